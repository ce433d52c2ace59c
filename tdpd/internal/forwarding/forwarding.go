// Package forwarding computes what is done to packets from routes and bindings, in RFC 3031's terms (section 3.10 to 3.12): the ILM
// maps labels that come in to NHLFEs, the FTN prefixes of packets without a label. Views of labels in, changes of the kernel's tables
// out. It is pure: no sockets, no clock, no log. Not safe for concurrent use.
package forwarding

import (
	"net/netip"
	"slices"

	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// Tables is the state: the views that hold, from which all else follows.
type Tables struct {
	views   map[netip.Prefix]labels.View
	owners  map[wire.Label]netip.Prefix // of labels that come in
	leaving int                         // views that are in the FTN
}

// New returns Tables without an entry.
func New() *Tables {
	return &Tables{views: map[netip.Prefix]labels.View{}, owners: map[wire.Label]netip.Prefix{}}
}

// Update takes FECs that changed and FECs that are no more, and tells what that changes in the kernel: nothing where it comes out the
// same. A label may go from one of the FECs to another.
func (t *Tables) Update(views []labels.View, gone []netip.Prefix) kernel.Changes {
	b := before{map[uint32][]kernel.Hop{}, map[netip.Prefix][]kernel.Hop{}}
	for _, p := range gone {
		t.note(b, p)
		t.forget(p)
	}
	for _, v := range views {
		t.note(b, v.FEC, v.Local, v.Leaving)
		t.forget(v.FEC)
		t.views[v.FEC] = v
		if leaves(v) {
			t.leaving++
		}
		for _, label := range []wire.Label{v.Local, v.Leaving} {
			if comesIn(label) {
				t.owners[label] = v.FEC
			}
		}
	}
	return t.since(b)
}

// before is what was in the tables, of all that an update may touch.
type before struct {
	labels   map[uint32][]kernel.Hop
	prefixes map[netip.Prefix][]kernel.Hop
}

// note notes a FEC's entries, and those of the labels that it is about to have.
func (t *Tables) note(b before, p netip.Prefix, next ...wire.Label) {
	if _, noted := b.prefixes[p]; !noted {
		b.prefixes[p] = t.prefix(p)
	}
	if v, known := t.views[p]; known {
		next = append(next, v.Local, v.Leaving)
	}
	for _, label := range next {
		if _, noted := b.labels[uint32(label)]; !noted && comesIn(label) {
			b.labels[uint32(label)] = t.label(label)
		}
	}
}

func (t *Tables) forget(p netip.Prefix) {
	v, known := t.views[p]
	for _, label := range []wire.Label{v.Local, v.Leaving} {
		if known && t.owners[label] == p {
			delete(t.owners, label)
		}
	}
	if known && leaves(v) {
		t.leaving--
	}
	delete(t.views, p)
}

// since gives what has changed since.
func (t *Tables) since(b before) kernel.Changes {
	for label, had := range b.labels {
		if has := t.label(wire.Label(label)); equal(had, has) {
			delete(b.labels, label)
		} else {
			b.labels[label] = has
		}
	}
	for p, had := range b.prefixes {
		if has := t.prefix(p); equal(had, has) {
			delete(b.prefixes, p)
		} else {
			b.prefixes[p] = has
		}
	}
	return kernel.Changes{Labels: b.labels, Prefixes: b.prefixes}
}

// State is all that is to be in the kernel; Interfaces is nil.
func (t *Tables) State() kernel.State {
	s := kernel.State{Labels: make(map[uint32][]kernel.Hop, len(t.owners)), Prefixes: map[netip.Prefix][]kernel.Hop{}}
	for label := range t.owners {
		if hops := t.label(label); hops != nil {
			s.Labels[uint32(label)] = hops
		}
	}
	for p := range t.views {
		if hops := t.prefix(p); hops != nil {
			s.Prefixes[p] = hops
		}
	}
	return s
}

// label is the kernel's entry of a label; nil: there is none, and packets with it are dropped.
func (t *Tables) label(label wire.Label) []kernel.Hop {
	m, _ := t.Incoming(label)
	return hops(m.NHLFEs)
}

// prefix is the kernel's entry of a prefix; nil: none is needed, as the route that is there does the same.
func (t *Tables) prefix(p netip.Prefix) []kernel.Hop {
	m, _ := t.Outgoing(p)
	if !slices.ContainsFunc(m.NHLFEs, func(n NHLFE) bool { return n.Operation == Push }) {
		return nil
	}
	return hops(m.NHLFEs)
}

func hops(list []NHLFE) []kernel.Hop {
	if len(list) == 0 {
		return nil
	}
	out := make([]kernel.Hop, len(list))
	for i, n := range list {
		out[i] = n.hop()
	}
	return out
}

func equal(a, b []kernel.Hop) bool {
	return slices.EqualFunc(a, b, func(a, b kernel.Hop) bool {
		return a.Via == b.Via && a.Interface == b.Interface && a.Tunnel == b.Tunnel && slices.Equal(a.Labels, b.Labels)
	})
}
