package scenario

import (
	"math"

	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/lab/traffic"
)

// report judges everything, once it is over.
func (m *multicast) report() *report.Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &report.Report{Scenario: "multicast", Joins: joins(m.ledgers)}
	m.judge(r)
	if !m.o.Static {
		m.checkMoves(m.plan(), expected)
		m.checkSecondStays()
	}
	m.check("joins were admitted", r.Joins.Admitted > 0, "%d", r.Joins.Admitted)
	r.Checks = m.checks
	return r
}

// judge judges what the users saw. The caller holds mu.
func (s *stage) judge(r *report.Report) {
	s.tally.Timeline = s.web.eras()
	r.PerServer, r.Moves, r.Phases = s.tally.PerServer(s.servers), []report.Move{}, s.tally.Phases()
	for _, v := range s.web.all() {
		r.Moves = append(r.Moves, v.Move)
	}
	if n := len(s.tally.Spans); n > 0 {
		r.DurationS = math.Round(s.tally.Spans[n-1].End.Sub(s.began).Seconds()*1000) / 1000
	}
	var failed, broken []traffic.Event
	r.Requests, failed = s.tally.Requests()
	r.Connections, broken = s.tally.Connections()
	s.check("no request failed", r.Requests.Total > 0 && r.Requests.Failed == 0, "%d of %d%s", r.Requests.Failed, r.Requests.Total, s.examples(failed, s.tally.Timeline))
	s.check("no connection was broken", r.Connections.Opened > 0 && r.Connections.Broken == 0, "%d of %d%s",
		r.Connections.Broken, r.Connections.Opened, s.examples(broken, s.tally.Timeline))
	waited := s.tally.Waited(longestWait)
	s.check("hardly anybody waits long", r.Requests.Total > 0 && len(waited) <= s.mayWait(),
		"%d answers took longer than %v, %d may%s", len(waited), longestWait, s.mayWait(), s.examples(waited, s.tally.Timeline))
	strangers := s.tally.Strangers()
	s.check("only owners answer", r.Requests.Total > 0 && len(strangers) == 0, "%d answers by others%s", len(strangers), s.examples(strangers, s.tally.Timeline))
}
