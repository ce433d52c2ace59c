package mover

import (
	"maps"
	"sync"
	"time"

	"github.com/manycast/manycast/lbd/internal/handover"
)

// Counters are totals since the start.
type Counters struct {
	Given    uint64 // connections that others have taken
	Taken    uint64
	Bytes    uint64                     // of states that were sent
	Sizes    Sizes                      // of these
	Stayed   map[handover.Reason]uint64 // connections that were to be given
	Lost     map[handover.Reason]uint64
	NotTaken map[handover.Reason]uint64 // connections that were to come
	Longest  time.Duration              // from an offer that was taken up to the live connection
}

// counters are written by the loop and read by anybody.
type counters struct {
	mu sync.Mutex
	Counters
}

func newCounters() counters {
	return counters{Counters: Counters{
		Stayed: map[handover.Reason]uint64{}, Lost: map[handover.Reason]uint64{}, NotTaken: map[handover.Reason]uint64{},
	}}
}

func (c *counters) reported(r handover.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Bytes > 0 {
		c.Bytes += uint64(r.Bytes)
		c.Sizes.Add(uint64(r.Bytes))
	}
	switch r.Outcome {
	case handover.Given:
		c.Given++
	case handover.Stayed:
		c.Stayed[r.Why.Reason]++
	case handover.Lost:
		c.Lost[r.Why.Reason]++
	}
}

func (c *counters) arrived(a handover.Arrived) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !a.Live {
		c.NotTaken[a.Why.Reason]++
		return
	}
	c.Taken++
	c.Longest = max(c.Longest, a.Took)
}

// Counters are the totals. Any goroutine may read them.
func (m *Mover) Counters() Counters {
	m.counters.mu.Lock()
	defer m.counters.mu.Unlock()
	c := m.counters.Counters
	c.Stayed, c.Lost, c.NotTaken = maps.Clone(c.Stayed), maps.Clone(c.Lost), maps.Clone(c.NotTaken)
	return c
}
