package announce

import (
	"slices"
	"sync"
)

// Fake is an Announcer within one process, for tests.
type Fake struct {
	mu        sync.Mutex
	listeners map[int]func(Message)
	next      int
	lost      func(Message) bool
}

var _ Announcer = (*Fake)(nil)

// NewFake returns a Fake that loses nothing.
func NewFake() *Fake { return &Fake{listeners: map[int]func(Message){}} }

// Lose makes the fake lose the messages that lost says yes to; nil: none.
func (f *Fake) Lose(lost func(Message) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost = lost
}

// Send calls all listeners.
func (f *Fake) Send(m Message) error {
	for _, handle := range f.receivers(m) {
		handle(m)
	}
	return nil
}

func (f *Fake) receivers(m Message) []func(Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lost != nil && f.lost(m) {
		return nil
	}
	var order []int
	for id := range f.listeners {
		order = append(order, id)
	}
	slices.Sort(order)
	handlers := make([]func(Message), len(order))
	for i, id := range order {
		handlers[i] = f.listeners[id]
	}
	return handlers
}

// Listen adds a listener.
func (f *Fake) Listen(handle func(Message)) (stop func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.next
	f.next++
	f.listeners[id] = handle
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.listeners, id)
	}, nil
}
