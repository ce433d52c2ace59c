package pins

import (
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

// Answer is a director's word of a revision of a server's pins.
type Answer struct {
	Director, Service, Server string
	Revision                  uint64
	Held                      bool // by all routers that the director speaks to; not: it has come
}

// Answers carries them. They may be lost: who waits has a deadline.
type Answers interface {
	// Say hands an answer over to all who listen, without waiting for anybody.
	Say(a Answer) error
	// Listen calls handle for each answer that comes, until stop. handle must not block.
	Listen(handle func(Answer)) (stop func(), err error)
}

const subject = "lbd.pins"

// OnBus are Answers over the bus.
func OnBus(c *bus.Conn) Answers { return onBus{c} }

type onBus struct{ c *bus.Conn }

// Say implements Answers.
func (o onBus) Say(a Answer) error {
	return o.c.Publish(subject, &handoverv1.Pinned{Director: a.Director, Service: a.Service, Server: a.Server, Revision: a.Revision, Held: a.Held})
}

// Listen implements Answers.
func (o onBus) Listen(handle func(Answer)) (stop func(), err error) {
	return o.c.Subscribe(subject, func(m bus.Msg) {
		var p handoverv1.Pinned
		if proto.Unmarshal(m.Data, &p) == nil { // else it is nobody's answer
			handle(Answer{p.GetDirector(), p.GetService(), p.GetServer(), p.GetRevision(), p.GetHeld()})
		}
	})
}

// Fake are Answers within one process, for tests.
type Fake struct {
	mu        sync.Mutex
	listeners map[int]func(Answer)
	next      int
}

// NewFake returns Answers to which nobody listens yet.
func NewFake() *Fake { return &Fake{listeners: map[int]func(Answer){}} }

// Say implements Answers.
func (f *Fake) Say(a Answer) error {
	f.mu.Lock()
	all := slices.Collect(maps.Values(f.listeners))
	f.mu.Unlock()
	for _, handle := range all {
		handle(a)
	}
	return nil
}

// Listen implements Answers.
func (f *Fake) Listen(handle func(Answer)) (stop func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.next
	f.next++
	f.listeners[n] = handle
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.listeners, n)
	}, nil
}
