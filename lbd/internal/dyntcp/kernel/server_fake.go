package kernel

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// FakeServer is a Server without a kernel: it checks as the real one does, and who is heard is what a test says. A socket is any number.
type FakeServer struct {
	mu       sync.Mutex
	services []ServerService
	held     map[int]Held
	follows  map[Flow]bool
	bound    map[Flow]int // sockets
	heard    chan Heard
	counters ServerCounters
	closed   bool
}

// NewFakeServer returns one without services.
func NewFakeServer() *FakeServer {
	return &FakeServer{held: make(map[int]Held), follows: make(map[Flow]bool), bound: make(map[Flow]int), heard: make(chan Heard, heardWaiting)}
}

// Hear is a segment of a socket's user at its destination.
func (f *FakeServer) Hear(socket int, flow Flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.held[socket]
	if f.closed || !ok || h.Heard {
		return
	}
	h.Heard = true
	f.held[socket] = h
	f.counters.Heard++
	select {
	case f.heard <- Heard{Flow: flow, Tag: h.Tag, Cookie: h.Cookie, Sequence: h.Sequence}:
	default:
		f.counters.HeardLost++
	}
}

// Miss is a segment of a socket's user by way of another server.
func (f *FakeServer) Miss(socket int, flow Flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.held[socket]
	if f.closed || !ok || h.Sequence == 0 {
		return
	}
	h.Heard = false
	f.held[socket] = h
	f.counters.Elsewhere++
	select {
	case f.heard <- Heard{Flow: flow, Tag: h.Tag, Cookie: h.Cookie, Sequence: h.Sequence, Elsewhere: true}:
	default:
		f.counters.HeardLost++
	}
}

// Send is a segment of a flow's user to where its connection was.
func (f *FakeServer) Send(flow Flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.follows[flow] {
		f.counters.Followed++
	}
}

// Next is what the next process finds, when this one is killed, or keeps all.
func (f *FakeServer) Next() *FakeServer {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := NewFakeServer()
	next.services, next.counters = f.services, f.counters
	maps.Copy(next.held, f.held)
	maps.Copy(next.follows, f.follows)
	maps.Copy(next.bound, f.bound)
	return next
}

// Bind says whose socket is a flow's.
func (f *FakeServer) Bind(socket int, flow Flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bound[flow] = socket
}

// Listen has the next Hear of a flow told.
func (f *FakeServer) Listen(flow Flow) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	socket, bound := f.bound[flow]
	h, ok := f.held[socket]
	if f.closed || !bound || !ok {
		return ErrGone
	}
	h.Heard = false
	f.held[socket] = h
	return nil
}

// End ends a socket.
func (f *FakeServer) End(socket int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.held, socket)
}

// Follows says whether a flow is followed.
func (f *FakeServer) Follows(flow Flow) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.follows[flow]
}

// Services are those that were set.
func (f *FakeServer) Services() []ServerService {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.services
}

// Set checks and keeps them.
func (f *FakeServer) Set(services []ServerService) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	if err := checkServer(services); err != nil {
		return err
	}
	f.services = services
	return nil
}

// Held is what Adopt said.
func (f *FakeServer) Held(socket int) (Held, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.held[socket]
	if !ok {
		return Held{}, fmt.Errorf("socket %d: %w", socket, ErrGone)
	}
	return h, nil
}

// Find is what Held returns of the socket that was bound.
func (f *FakeServer) Find(flow Flow) (Held, error) {
	f.mu.Lock()
	socket, ok := f.bound[flow]
	f.mu.Unlock()
	if !ok {
		return Held{}, fmt.Errorf("%s: %w", flow, ErrGone)
	}
	return f.Held(socket)
}

// Adopt keeps it.
func (f *FakeServer) Adopt(socket int, h Held) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := checkPlace("destination", h.Destination); err != nil {
		return err
	}
	f.held[socket] = h
	return nil
}

// Follow adds flows.
func (f *FakeServer) Follow(flows []Flow) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, flow := range flows {
		f.follows[flow] = true
	}
	return nil
}

// Followed are those of Follow.
func (f *FakeServer) Followed() ([]Flow, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.follows)), nil
}

// Forget takes them back.
func (f *FakeServer) Forget(flows []Flow) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, flow := range flows {
		delete(f.follows, flow)
	}
	return nil
}

// Heard are those of Hear.
func (f *FakeServer) Heard() <-chan Heard { return f.heard }

// Counters are what Hear counted.
func (f *FakeServer) Counters() (ServerCounters, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counters, nil
}

// Close ends Heard.
func (f *FakeServer) Close(bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		close(f.heard)
	}
	return nil
}
