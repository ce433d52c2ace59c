package gobgp

import (
	"context"
	"net/netip"
	"sync"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// waitingMost is how many events wait at most for who watches. Who puts in more waits, and with it the speaker's process, which has the memory.
const waitingMost = 65_536

// topic is what an event is about; of each but the zero one only one event waits.
type topic struct {
	path pathKey
	from netip.Addr // of refusals
	why  string
}

// mailbox has events that nobody has taken yet: of each topic the latest alone, in the place of the first. But nothing takes a place before that of an event of a
// neighbor: what it told after it came back is no word of before.
type mailbox struct {
	mu      sync.Mutex
	changed *sync.Cond
	order   []letter
	first   int           // number of order[0]
	of      map[topic]int // numbers of letters that can be replaced
	closed  bool
}

type letter struct {
	event bgp.Event
	about topic
}

func newMailbox() *mailbox {
	m := &mailbox{of: map[topic]int{}}
	m.changed = sync.NewCond(&m.mu)
	return m
}

// put adds an event; refusals of one topic are counted together. It waits while there are too many; false: the box was closed.
func (m *mailbox) put(e bgp.Event, about topic) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		if m.closed {
			return false
		}
		if at, waits := m.of[about]; waits {
			m.replace(&m.order[at-m.first].event, e)
			return true
		}
		if len(m.order) < waitingMost {
			break
		}
		m.changed.Wait()
	}
	if e.Neighbor != nil {
		clear(m.of)
	} else if about != (topic{}) {
		m.of[about] = m.first + len(m.order)
	}
	m.order = append(m.order, letter{e, about})
	m.changed.Broadcast()
	return true
}

func (m *mailbox) replace(old *bgp.Event, e bgp.Event) {
	if old.Refused != nil && e.Refused != nil {
		sum := *e.Refused
		sum.Count += old.Refused.Count
		e.Refused = &sum
	}
	*old = e
}

// take waits for events, and gives at most bgp.EventsMost; nil: the box was closed.
func (m *mailbox) take() []bgp.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.order) == 0 && !m.closed {
		m.changed.Wait()
	}
	if m.closed {
		return nil
	}
	n := min(len(m.order), bgp.EventsMost)
	out := make([]bgp.Event, n)
	for i, l := range m.order[:n] {
		out[i] = l.event
		if at, has := m.of[l.about]; has && at == m.first+i { // not a later one of the same
			delete(m.of, l.about)
		}
	}
	m.order, m.first = m.order[n:], m.first+n
	if len(m.order) == 0 {
		m.order = nil // what grew is given back
	}
	m.changed.Broadcast()
	return out
}

func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.changed.Broadcast()
}

// deliver hands out what is put in until ctx is done.
func (m *mailbox) deliver(ctx context.Context, to chan<- []bgp.Event) {
	defer context.AfterFunc(ctx, m.close)()
	for {
		some := m.take()
		if some == nil {
			return
		}
		select {
		case to <- some:
		case <-ctx.Done():
			m.close()
			return
		}
	}
}
