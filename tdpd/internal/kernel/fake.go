package kernel

import (
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// Fake is a Backend that keeps what it is given, and fails as it is told.
type Fake struct {
	mu      sync.Mutex
	state   State
	calls   int
	sets    int
	failure error
	refused map[id]error
	others  map[uint32]bool
	closed  []bool
	changed chan struct{}
}

// NewFake returns a Fake that has what a process before left.
func NewFake(left State) *Fake {
	f := &Fake{refused: map[id]error{}, others: map[uint32]bool{}, changed: make(chan struct{}, 1)}
	f.state = State{Labels: map[uint32][]Hop{}, Prefixes: map[netip.Prefix][]Hop{}}
	maps.Copy(f.state.Labels, left.Labels)
	maps.Copy(f.state.Prefixes, left.Prefixes)
	return f
}

// Set implements Backend.
func (f *Fake) Set(s State) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	f.sets++
	if f.failure != nil {
		return f.failure
	}
	c := newCompiler(labelsMax, len(s.Labels)+len(s.Prefixes))
	c.state(s)
	for i := range f.have() {
		if _, wanted := c.want[i]; !wanted && !c.wrong[i] {
			f.put(i, nil)
		}
	}
	f.state.Interfaces = append([]string(nil), s.Interfaces...)
	return f.add(c)
}

// Update implements Backend.
func (f *Fake) Update(changes Changes) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.failure != nil {
		return f.failure
	}
	c := newCompiler(labelsMax, len(changes.Labels)+len(changes.Prefixes))
	for _, i := range c.changes(changes) {
		f.put(i, nil)
	}
	return f.add(c)
}

func (f *Fake) add(c *compiler) error {
	for i, hops := range c.want {
		err := f.refused[i]
		if !i.prefix.IsValid() && f.others[i.label] {
			err = fs.ErrExist
		}
		if err != nil {
			c.failures = append(c.failures, Failure{i.String(), i.label, err})
			continue
		}
		f.put(i, hops)
	}
	return c.failures.err()
}

func (f *Fake) have() map[id][]Hop {
	have := map[id][]Hop{}
	for label, hops := range f.state.Labels {
		have[labelID(label)] = hops
	}
	for prefix, hops := range f.state.Prefixes {
		have[prefixID(prefix)] = hops
	}
	return have
}

func (f *Fake) put(i id, hops []Hop) {
	switch {
	case i.prefix.IsValid() && hops == nil:
		delete(f.state.Prefixes, i.prefix)
	case i.prefix.IsValid():
		f.state.Prefixes[i.prefix] = hops
	case hops == nil:
		delete(f.state.Labels, i.label)
	default:
		f.state.Labels[i.label] = hops
	}
}

// Entries implements Backend.
func (f *Fake) Entries() (State, error) {
	s := f.State()
	s.Interfaces = nil
	return s, nil
}

// Others implements Backend.
func (f *Fake) Others() ([]uint32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.others)), nil
}

// Occupy makes a label somebody else's, and tells where he says so.
func (f *Fake) Occupy(label uint32, tells bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.others[label] = true
	delete(f.state.Labels, label)
	if tells {
		f.tell()
	}
}

func (f *Fake) tell() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// State returns what is there now.
func (f *Fake) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return State{f.state.Interfaces, maps.Clone(f.state.Labels), maps.Clone(f.state.Prefixes)}
}

// Calls counts Set and Update.
func (f *Fake) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Sets counts Set.
func (f *Fake) Sets() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sets
}

// Fail lets every Set and Update fail with err, and do nothing; nil ends that.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failure = err
}

// RefuseLabel lets the label's entry fail, as if somebody else had it; nil ends that.
func (f *Fake) RefuseLabel(label uint32, err error) { f.refuse(labelID(label), err) }

// RefusePrefix lets the prefix's entry fail; nil ends that.
func (f *Fake) RefusePrefix(prefix netip.Prefix, err error) { f.refuse(prefixID(prefix), err) }

func (f *Fake) refuse(i id, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused[i] = err
}

// Lose takes all entries away, as a kernel may, and tells.
func (f *Fake) Lose() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.state.Labels)
	clear(f.state.Prefixes)
	f.tell()
}

// Changed implements Backend.
func (f *Fake) Changed() <-chan struct{} { return f.changed }

// Close records keep.
func (f *Fake) Close(keep bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.closed) > 0 {
		return errors.New("closed twice")
	}
	f.closed = append(f.closed, keep)
	if !keep {
		clear(f.state.Labels)
		clear(f.state.Prefixes)
	}
	return nil
}

// Closed returns the keep argument of Close, if it was called.
func (f *Fake) Closed() (keep, closed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.closed) > 0 && f.closed[0], len(f.closed) > 0
}

var _ Backend = (*Fake)(nil)
