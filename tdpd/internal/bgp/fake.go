package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// Fake is a Speaker without a network: it keeps what it is told, and tells what a test has it tell.
type Fake struct {
	mu       sync.Mutex
	desired  Desired
	applied  int
	fail     error
	watchers []chan []Event
	cleared  []netip.Addr
}

// NewFake returns one whose sessions are all established, but for those that are to be down.
func NewFake() *Fake { return &Fake{} }

// Fail has Apply return an error from now on; nil: it works again.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// Desired is what was applied last, and how often something was.
func (f *Fake) Desired() (Desired, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.desired, f.applied
}

// Cleared are the neighbors that were cleared, in order.
func (f *Fake) Cleared() []netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.cleared)
}

// Tell has all watches tell events. It waits until they are taken.
func (f *Fake) Tell(events ...Event) {
	f.mu.Lock()
	watchers := slices.Clone(f.watchers)
	f.mu.Unlock()
	for _, w := range watchers {
		w <- events
	}
}

// Apply implements Speaker.
func (f *Fake) Apply(_ context.Context, d Desired) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.desired = d
	f.applied++
	return nil
}

// Watch implements Speaker.
func (f *Fake) Watch(ctx context.Context) (<-chan []Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	events := make(chan []Event)
	f.watchers = append(f.watchers, events)
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.watchers = slices.DeleteFunc(f.watchers, func(w chan []Event) bool { return w == events })
		close(events)
	})
	return events, nil
}

// Neighbors implements Speaker.
func (f *Fake) Neighbors(context.Context) (all []NeighborState, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.desired.Neighbors {
		s := NeighborState{Address: n.Address, AS: n.AS, State: Established, Hold: n.Hold, Down: n.Down}
		if n.Down {
			s.State = Idle
		}
		for _, family := range n.Families {
			s.Families = append(s.Families, FamilyState{Family: family, Agreed: !n.Down})
		}
		all = append(all, s)
	}
	return all, nil
}

// Routes implements Speaker: those of ours.
func (f *Fake) Routes(_ context.Context, q Query, each func(Route) bool) error {
	d, _ := f.Desired()
	var all []Route
	for _, p := range d.Unicast {
		if p.Family() == q.Family {
			all = append(all, Route{Learned: Learned{Unicast: &p}, Best: true})
		}
	}
	for _, p := range d.Labelled {
		if p.Family() == q.Family {
			all = append(all, Route{Learned: Learned{Labelled: &p}, Best: true})
		}
	}
	for _, r := range d.Rules {
		if r.Family() == q.Family {
			all = append(all, Route{Learned: Learned{FlowRule: &r}, Best: true})
		}
	}
	for _, r := range all {
		if !each(r) {
			return nil
		}
	}
	return nil
}

// Clear implements Speaker.
func (f *Fake) Clear(_ context.Context, neighbor netip.Addr, _ bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.ContainsFunc(f.desired.Neighbors, func(n Neighbor) bool { return n.Address == neighbor }) {
		return fmt.Errorf("clear neighbor %v: %w", neighbor, ErrNoNeighbor)
	}
	f.cleared = append(f.cleared, neighbor)
	return nil
}

var _ Speaker = (*Fake)(nil)
