package kernel

import (
	"maps"
	"net/netip"
	"sync"
)

// None is a Backend for a kernel without MPLS: it remembers what it is given, for others to forward by. What is for prefixes has no effect:
// their packets leave without labels.
type None struct {
	mu    sync.Mutex
	state State
}

// NewNone returns one that has what a process before has left to those others.
func NewNone(labels map[uint32][]Hop) *None {
	n := &None{state: State{Labels: map[uint32][]Hop{}, Prefixes: map[netip.Prefix][]Hop{}}}
	maps.Copy(n.state.Labels, labels)
	return n
}

// Set implements Backend.
func (n *None) Set(s State) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state = State{Interfaces: s.Interfaces, Labels: maps.Clone(s.Labels), Prefixes: maps.Clone(s.Prefixes)}
	return nil
}

// Update implements Backend.
func (n *None) Update(c Changes) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	merge(n.state.Labels, c.Labels)
	merge(n.state.Prefixes, c.Prefixes)
	return nil
}

func merge[K comparable](state, changes map[K][]Hop) {
	for key, hops := range changes {
		if len(hops) == 0 {
			delete(state, key)
		} else {
			state[key] = hops
		}
	}
}

// Entries implements Backend.
func (n *None) Entries() (State, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return State{Labels: maps.Clone(n.state.Labels), Prefixes: maps.Clone(n.state.Prefixes)}, nil
}

// Others implements Backend: there are none.
func (n *None) Others() ([]uint32, error) { return nil, nil }

// Changed implements Backend: nobody changes anything.
func (n *None) Changed() <-chan struct{} { return nil }

// Close implements Backend.
func (n *None) Close(bool) error { return nil }
