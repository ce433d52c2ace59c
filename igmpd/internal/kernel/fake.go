package kernel

import (
	"context"
	"sync"
)

// Fake is a Forwarder that records what it is given.
type Fake struct {
	mu      sync.Mutex
	states  []State
	closed  []bool
	failure error
	counts  Counters
}

// Set records s, or fails as told by Fail.
func (f *Fake) Set(s State) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failure != nil {
		return f.failure
	}
	f.states = append(f.states, s)
	return nil
}

// Fail lets every Set fail with err from now on; nil ends that.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failure = err
}

// States returns all states set so far, oldest first.
func (f *Fake) States() []State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]State(nil), f.states...)
}

// Last returns the newest state, the zero State before the first.
func (f *Fake) Last() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.states) == 0 {
		return State{}
	}
	return f.states[len(f.states)-1]
}

// SetCounters sets what Counters returns.
func (f *Fake) SetCounters(c Counters) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts = c
}

// Counters returns what SetCounters was given.
func (f *Fake) Counters() (Counters, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts, nil
}

// Secure does nothing.
func (f *Fake) Secure() error { return nil }

// Run waits for ctx to end.
func (f *Fake) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Close records keep.
func (f *Fake) Close(keep bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = append(f.closed, keep)
	return nil
}

// Closed returns the keep argument of every Close so far.
func (f *Fake) Closed() []bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]bool(nil), f.closed...)
}

var _ Forwarder = (*Fake)(nil)
