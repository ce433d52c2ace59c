package scenario

import (
	"fmt"
	"math"
	"time"

	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/lab/traffic"
)

// report judges everything, once it is over.
func (m *multicast) report() *report.Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &report.Report{Scenario: "multicast", Joins: joins(m.ledgers)}
	m.judge(r, m.mayWait())
	if !m.o.Static {
		m.checkMoves(m.plan(), expected)
		m.checkSecondStays()
	}
	m.check("joins were admitted", r.Joins.Admitted > 0, "%d", r.Joins.Admitted)
	r.Checks = m.checks
	return r
}

// judge judges what the users saw, of whom so many may wait long. The caller holds mu.
func (s *stage) judge(r *report.Report, mayWait int) {
	s.tally.Timeline = s.web.eras()
	r.PerServer, r.Moves, r.Phases = s.tally.PerServer(s.servers), []report.Move{}, s.tally.Phases()
	for _, v := range s.web.all() {
		r.Moves = append(r.Moves, v.Move)
	}
	if n := len(s.tally.Spans); n > 0 {
		r.DurationS = math.Round(s.tally.Spans[n-1].End.Sub(s.began).Seconds()*1000) / 1000
	}
	if s.starvation != nil { // nil: what a test judges
		r.StarvedMS = report.Milliseconds(s.starvation.longest(s.began, time.Now(), ""))
	}
	var failed, broken []traffic.Event
	r.Requests, failed = s.tally.Requests()
	r.Connections, broken = s.tally.Connections()
	s.checkUsers("no request failed", r.Requests.Total, 0, "requests failed", failed, false)
	s.checkUsers("no connection was broken", r.Connections.Opened, 0, "connections broken", broken, true)
	s.checkUsers("hardly anybody waits long", r.Requests.Total, mayWait, fmt.Sprintf("answers took longer than %v", longestWait), s.tally.Waited(longestWait), false)
	s.checkUsers("only owners answer", r.Requests.Total, 0, "answers by others", s.tally.Strangers(), true)
}

// checkUsers checks that no more befell users than may, whatever the machine did to daemons excepted: all of it, or what standbys did.
func (s *stage) checkUsers(name string, of, may int, what string, befell []traffic.Event, byStandbys bool) {
	rest, left := s.undisturbed(befell, byStandbys)
	detail := fmt.Sprintf("%d %s of %d, %d may", len(rest), what, of, may)
	if s.starvation != nil {
		detail += fmt.Sprintf("; left out, while the machine kept daemons from running: %d", left)
	}
	s.check(name, of > 0 && len(rest) <= may, "%s%s", detail, s.examples(rest, s.tally.Timeline))
}
