package dataplane

import (
	"errors"
	"slices"
	"sync"
)

// errClosed is what a fake says after Close.
var errClosed = errors.New("data plane is closed")

// FakeDirector is a DirectorPlane without a kernel: it checks as the real one does and records what was set.
type FakeDirector struct {
	fake[DirectorService, DirectorCounters]
}

// NewFakeDirector returns a plane that has nothing set.
func NewFakeDirector() *FakeDirector {
	return &FakeDirector{fake[DirectorService, DirectorCounters]{check: checkDirector}}
}

// FakeAgent is an AgentPlane without a kernel: it checks as the real one does and records what was set.
type FakeAgent struct {
	fake[AgentService, AgentCounters]
	renewals int
}

// NewFakeAgent returns a plane that has nothing set.
func NewFakeAgent() *FakeAgent {
	return &FakeAgent{fake: fake[AgentService, AgentCounters]{check: checkAgent}}
}

// Prepare checks as Set does.
func (f *FakeAgent) Prepare(services []AgentService) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	return f.check(services)
}

// Renew counts.
func (f *FakeAgent) Renew() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	f.renewals++
	return nil
}

// Renewals returns how often Renew was called.
func (f *FakeAgent) Renewals() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.renewals
}

var (
	_ DirectorPlane = (*FakeDirector)(nil)
	_ AgentPlane    = (*FakeAgent)(nil)
)

// fake is what both fakes do. It may be used from several goroutines.
type fake[S, C any] struct {
	check func([]S) error

	mu       sync.Mutex
	sets     [][]S
	counters C
	fail     error
	closed   bool
	kept     bool
}

// Set records services unless they contradict each other or the fake is told to fail.
func (f *fake[S, C]) Set(services []S) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	if err := f.check(services); err != nil {
		return err
	}
	if f.fail != nil {
		return f.fail
	}
	f.sets = append(f.sets, slices.Clone(services))
	return nil
}

// Counters returns what SetCounters said.
func (f *fake[S, C]) Counters() (C, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return f.counters, errClosed
	}
	return f.counters, nil
}

// Close ends the fake; Closed tells how.
func (f *fake[S, C]) Close(keep bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed, f.kept = true, keep
	return nil
}

// Sets returns all that was set so far, oldest first.
func (f *fake[S, C]) Sets() [][]S {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.sets)
}

// Current returns what was set last, nil before the first Set.
func (f *fake[S, C]) Current() []S {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.sets) == 0 {
		return nil
	}
	return f.sets[len(f.sets)-1]
}

// SetCounters says what Counters answers.
func (f *fake[S, C]) SetCounters(c C) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counters = c
}

// Fail makes every later Set fail with err; nil ends that.
func (f *fake[S, C]) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// Closed tells whether Close was called, and with which keep.
func (f *fake[S, C]) Closed() (closed, kept bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed, f.kept
}
