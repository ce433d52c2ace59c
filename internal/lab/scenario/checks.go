package scenario

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/lab/traffic"
)

// shareTolerance is how far a server's part of the answers may be from its part of the users.
const shareTolerance = 0.05

// longestWait is how long an answer may take, but for users of a dead server: less than the second after which a SYN is sent
// again, or a network that forwards nothing for a while would pass.
const longestWait = 950 * time.Millisecond

// mayWait is how many answers may take longer: one for ten users. On one link a winner begins when the loser has said that it
// ceased; a SYN in that moment, a millisecond or as many as the machine is late, is sent again after a second. Without
// forwarding for that long every user would wait.
func (s *stage) mayWait() int { return max(2, len(s.users)/10) }

// checkShares compares each server's part of the answers with its part of the users.
func (m *multicast) checkShares(phase string, from, to time.Time) {
	m.mu.Lock()
	m.tally.Timeline = m.web.eras()
	shares := m.tally.Shares(m.servers, m.users, from, to)
	m.mu.Unlock()
	ok := true
	var detail []string
	for _, s := range shares {
		ok = ok && s.Requests > 0 && math.Abs(s.Got-s.Want) <= shareTolerance
		detail = append(detail, fmt.Sprintf("%s %.1f %% of answers for %.1f %% of users", s.Server, 100*s.Got, 100*s.Want))
	}
	m.check("shares: "+phase, ok, "%s; %d answers", strings.Join(detail, ", "), shares[0].Requests)
}

// report judges everything, once it is over.
func (m *multicast) report() *report.Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tally.Timeline = m.web.eras()
	r := &report.Report{
		Scenario: "multicast", PerServer: m.tally.PerServer(m.servers), Moves: []report.Move{}, Joins: joins(m.ledgers), Phases: m.tally.Phases(),
	}
	for _, v := range m.web.all() {
		r.Moves = append(r.Moves, v.Move)
	}
	if n := len(m.tally.Spans); n > 0 {
		r.DurationS = math.Round(m.tally.Spans[n-1].End.Sub(m.began).Seconds()*1000) / 1000
	}
	var failed, broken []traffic.Event
	r.Requests, failed = m.tally.Requests()
	r.Connections, broken = m.tally.Connections()
	m.check("no request failed", r.Requests.Total > 0 && r.Requests.Failed == 0, "%d of %d%s", r.Requests.Failed, r.Requests.Total, m.examples(failed, m.tally.Timeline))
	m.check("no connection was broken", r.Connections.Opened > 0 && r.Connections.Broken == 0, "%d of %d%s",
		r.Connections.Broken, r.Connections.Opened, m.examples(broken, m.tally.Timeline))
	waited := m.tally.Waited(longestWait)
	m.check("hardly anybody waits long", r.Requests.Total > 0 && len(waited) <= m.mayWait(),
		"%d answers took longer than %v, %d may%s", len(waited), longestWait, m.mayWait(), m.examples(waited, m.tally.Timeline))
	strangers := m.tally.Strangers()
	m.check("only owners answer", r.Requests.Total > 0 && len(strangers) == 0, "%d answers by others%s", len(strangers), m.examples(strangers, m.tally.Timeline))
	if !m.o.Static {
		m.checkMoves(m.tally.Spans)
		m.checkSecondStays()
	}
	m.check("joins were admitted", r.Joins.Admitted > 0, "%d", r.Joins.Admitted)
	r.Checks = m.checks
	return r
}
