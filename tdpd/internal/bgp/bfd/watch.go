package bfd

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Watch says which neighbors BGP is to have no session with. A neighbor whose BFD session was never up is left to BGP's own timers, for it may have no
// BFD; one whose session fails is out until it is up again. If it is not for as long as BGP's hold time, BGP tries by itself: the neighbor may have
// come back without BFD. Not safe for concurrent use.
type Watch struct {
	neighbors map[netip.Addr]*neighbor
}

type neighbor struct {
	hold time.Duration
	up   bool
	out  time.Time // until then; zero: it is not
}

// NewWatch watches neighbors with their hold times.
func NewWatch(hold map[netip.Addr]time.Duration) *Watch {
	w := &Watch{neighbors: map[netip.Addr]*neighbor{}}
	for a, d := range hold {
		w.neighbors[a] = &neighbor{hold: d}
	}
	return w
}

// Take takes how sessions are; none: nobody knows, and nothing follows. It says whether Out is another.
func (w *Watch) Take(now time.Time, states map[netip.Addr]State) (changed bool) {
	for a, n := range w.neighbors {
		switch states[a] {
		case Up:
			changed = changed || !n.out.IsZero()
			n.up, n.out = true, time.Time{}
		case Failed:
			if n.up {
				n.out, changed = now.Add(n.hold), true
			}
			n.up = false
		default:
			n.up = false
		}
	}
	return w.tick(now) || changed
}

// tick lets time pass.
func (w *Watch) tick(now time.Time) (changed bool) {
	for _, n := range w.neighbors {
		if !n.out.IsZero() && !now.Before(n.out) {
			n.out, changed = time.Time{}, true
		}
	}
	return changed
}

// Out are the neighbors that are out, by address.
func (w *Watch) Out() (all []netip.Addr) {
	for _, a := range slices.SortedFunc(maps.Keys(w.neighbors), netip.Addr.Compare) {
		if !w.neighbors[a].out.IsZero() {
			all = append(all, a)
		}
	}
	return all
}
