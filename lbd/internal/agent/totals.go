package agent

import (
	"maps"
	"sync"
)

// totals are how many connections this agent has closed, by why. They are written by the loop and read by anybody.
type totals struct {
	mu     sync.Mutex
	closed map[string]uint64
}

func (t *totals) add(why string, connections int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed == nil {
		t.closed = map[string]uint64{}
	}
	t.closed[why] += uint64(max(connections, 0))
}

// Ended are how many connections of users whom the server lost it has closed since its start, by why: their users "moved"; they were to be transferred,
// and had not been at the "deadline"; they were at a "break" point; their users' owner was "back". Any goroutine may read them.
func (l *Loop) Ended() map[string]uint64 {
	l.totals.mu.Lock()
	defer l.totals.mu.Unlock()
	return maps.Clone(l.totals.closed)
}

// Pinned are how often users to go were pinned since the start: held by routers in time, or late. Any goroutine may read them.
func (l *Loop) Pinned() (held, late uint64) {
	if l.pinner == nil {
		return 0, 0
	}
	l.pinner.mu.Lock()
	defer l.pinner.mu.Unlock()
	return l.pinner.held, l.pinner.late
}
