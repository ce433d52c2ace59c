package bfd

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// Fake is a Keeper without a network: sessions are as a test says.
type Fake struct {
	mu      sync.Mutex
	kept    []Session
	applied int
	states  map[netip.Addr]State
	fail    error
}

// NewFake keeps nothing.
func NewFake() *Fake { return &Fake{states: map[netip.Addr]State{}} }

// Fail has it answer with an error from now on; nil: it works again.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// Forget is what happens to its sessions when it restarts.
func (f *Fake) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = nil
	clear(f.states)
}

// Set says how a session is that is kept.
func (f *Fake) Set(a netip.Addr, s State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.states[a] = s
}

// Kept are its sessions, and how often it was told of some.
func (f *Fake) Kept() ([]Session, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.kept), f.applied
}

// Apply implements Keeper.
func (f *Fake) Apply(_ context.Context, all []Session) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.kept = slices.Clone(all)
	f.applied++
	for _, s := range all {
		if _, has := f.states[s.Peer]; !has {
			f.states[s.Peer] = Down
		}
	}
	return nil
}

// States implements Keeper.
func (f *Fake) States(context.Context) (map[netip.Addr]State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.states), f.fail
}

var _ Keeper = (*Fake)(nil)
