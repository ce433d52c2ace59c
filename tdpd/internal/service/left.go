package service

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// left is what a process before has left in the kernel (RFC 3478 section 3.1). What nobody has asked for yet stays as it is. When a FEC
// is looked at, its entries become its own: next hops whose routers have not told a label go on with the one that they had, as long as
// the route leads to them.
type left struct {
	kernel.State                              // entries of FECs that were not looked at, and of none
	label        map[netip.Prefix]wire.Label  // FECs' own, of those not looked at
	stale        map[netip.Prefix]staleLabels // of FECs that were looked at, and whose next hops' routers are not all back
}

// staleLabels is what a FEC's entries had.
type staleLabels struct {
	own  wire.Label // NoLabel: it has got it again
	hops []labels.Hop
}

func newLeft(entries kernel.State, had map[netip.Prefix]wire.Label) left {
	return left{
		State: kernel.State{Labels: maps.Clone(entries.Labels), Prefixes: maps.Clone(entries.Prefixes)},
		label: maps.Clone(had), stale: map[netip.Prefix]staleLabels{},
	}
}

// others are labels that belong to no FEC that is known of.
func (l *left) others() (list []wire.Label) {
	known := map[uint32]bool{}
	for _, label := range l.label {
		known[uint32(label)] = true
	}
	for label := range l.Labels {
		if !known[label] {
			list = append(list, wire.Label(label))
		}
	}
	return list
}

// claim makes what is left of a FEC its own; gone gets the entries, which are to be removed unless it wants them.
func (l *left) claim(p netip.Prefix, gone *kernel.Changes) {
	own, bound := l.label[p]
	prefix, routed := l.Prefixes[p]
	if !bound && !routed {
		return
	}
	s := staleLabels{own: labels.NoLabel}
	if routed {
		gone.Prefixes[p] = nil
		s.add(prefix)
	}
	if hops, ok := l.Labels[uint32(own)]; bound && ok {
		gone.Labels[uint32(own)] = nil
		s.own = own
		s.add(hops)
	}
	delete(l.Prefixes, p)
	delete(l.Labels, uint32(own))
	delete(l.label, p)
	l.stale[p] = s
}

// add takes over what entries did at their next hops.
func (s *staleLabels) add(hops []kernel.Hop) {
	for _, h := range hops {
		stale := labels.Hop{NextHop: labels.NextHop{Address: h.Via, Index: h.Interface}, Label: wire.LabelImplicitNull, Tunnel: h.Tunnel}
		if len(h.Labels) > 0 {
			stale.Label = wire.Label(h.Labels[0])
		}
		if h.Via.IsValid() && (h.Tunnel.IsValid() || s.of(stale.NextHop) == labels.NoLabel) {
			s.hops = append(s.hops, stale)
		}
	}
}

// of is the label that a next hop had.
func (s *staleLabels) of(n labels.NextHop) wire.Label {
	for _, h := range s.hops {
		if h.Address == n.Address && h.Index == n.Index && !h.Tunnel.IsValid() {
			return h.Label
		}
	}
	return labels.NoLabel
}

// fill gives next hops of a view the labels that they had, where nobody has told another one. What is not used is forgotten.
func (l *left) fill(v *labels.View) {
	s, ok := l.stale[v.FEC]
	if !ok {
		return
	}
	delete(l.stale, v.FEC)
	if v.Kind != labels.Transit {
		return
	}
	var used []labels.Hop
	for i := range v.Hops {
		h := &v.Hops[i]
		if label := s.of(h.NextHop); h.Label == labels.NoLabel && label != labels.NoLabel {
			h.Label = label
			used = append(used, *h)
		}
	}
	if !slices.ContainsFunc(v.Hops, func(h labels.Hop) bool { return h.Label != labels.NoLabel }) {
		for _, h := range s.hops {
			if h.Tunnel.IsValid() {
				v.Hops, used = append(v.Hops, h), append(used, h)
			}
		}
	}
	if v.Local != labels.NoLabel {
		s.own = labels.NoLabel // it may lose it again
	}
	if len(used) == 0 {
		return
	}
	if s.own != labels.NoLabel { // ordered control has it wait
		v.Local = s.own
	}
	s.hops = used
	l.stale[v.FEC] = s
}

// forget is for a FEC that there is no route to any more.
func (l *left) forget(p netip.Prefix) { delete(l.stale, p) }

// into adds the entries that nobody has asked for.
func (l *left) into(s *kernel.State) {
	for label, hops := range l.Labels {
		s.Labels[label] = hops
	}
	for p, hops := range l.Prefixes {
		s.Prefixes[p] = hops
	}
}

// waiting are FECs that go on with labels of the past.
func (l *left) waiting() []netip.Prefix { return slices.Collect(maps.Keys(l.stale)) }
