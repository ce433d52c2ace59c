package kernel

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// id tells entries apart: a label, or a prefix with a metric.
type id struct {
	prefix netip.Prefix // invalid: of label
	label  uint32
	metric uint32
}

func labelID(label uint32) id         { return id{label: label} }
func prefixID(prefix netip.Prefix) id { return id{prefix: prefix, metric: Metric} }

func (i id) String() string {
	switch {
	case !i.prefix.IsValid():
		return fmt.Sprintf("label %d", i.label)
	case i.metric != Metric:
		return fmt.Sprintf("prefix %v metric %d", i.prefix, i.metric)
	}
	return fmt.Sprintf("prefix %v", i.prefix)
}

// check says what is wrong with an entry.
func check(i id, hops []Hop) error {
	switch {
	case len(hops) == 0:
		return fmt.Errorf("has no next hop")
	case i.prefix.IsValid() && (i.prefix != i.prefix.Masked() || i.prefix.Addr().Is4In6()):
		return fmt.Errorf("is not a prefix: %v is", i.prefix.Masked())
	case !i.prefix.IsValid() && (i.label < labelFirst || i.label >= labelsMax):
		return fmt.Errorf("is not from %d to %d", labelFirst, labelsMax-1)
	}
	for _, h := range hops {
		if err := h.check(i); err != nil {
			return err
		}
	}
	return nil
}

func (h Hop) check(i id) error {
	switch {
	case h.Tunnel.IsValid():
		return fmt.Errorf("labels in UDP to %v: the kernel's tables cannot do that, the fast path can", h.Tunnel)
	case h.Interface <= 0:
		return fmt.Errorf("next hop %v has no interface", h.Via)
	case h.Via.Is4In6():
		return fmt.Errorf("next hop %v: an IPv4 address in IPv6 form is no neighbour", h.Via)
	case i.prefix.IsValid() && !h.Via.IsValid():
		return fmt.Errorf("next hop by interface %d has no address", h.Interface)
	case i.prefix.IsValid() && i.prefix.Addr().Is6() && h.Via.Is4():
		return fmt.Errorf("next hop %v: the kernel has no IPv6 routes by IPv4 neighbours", h.Via)
	case !i.prefix.IsValid() && !h.Via.IsValid() && len(h.Labels) > 0:
		return fmt.Errorf("labels %d to push on the way to this host itself: give an address", h.Labels)
	case len(h.Labels) > stackMax:
		return fmt.Errorf("%d labels to push; the kernel pushes up to %d", len(h.Labels), stackMax)
	}
	for _, l := range h.Labels {
		if l >= labelsMax || l == labelImplicitNull {
			return fmt.Errorf("label %d cannot be pushed", l)
		}
	}
	return nil
}

// Canonical returns equal slices for hops that mean the same: sorted, each once, its own copy.
func Canonical(hops []Hop) []Hop {
	hops = slices.Clone(hops)
	for i := range hops {
		hops[i].Via = hops[i].Via.WithZone("")
		hops[i].Labels = slices.Clone(hops[i].Labels)
	}
	if len(hops) < 2 {
		return hops
	}
	slices.SortFunc(hops, compareHops)
	return slices.CompactFunc(hops, func(a, b Hop) bool { return compareHops(a, b) == 0 })
}

func compareHops(a, b Hop) int {
	return cmp.Or(cmp.Compare(a.Interface, b.Interface), a.Via.Compare(b.Via), a.Tunnel.Compare(b.Tunnel), slices.Compare(a.Labels, b.Labels))
}

// EqualHops says whether canonical hops mean the same.
func EqualHops(a, b []Hop) bool {
	return slices.EqualFunc(a, b, func(a, b Hop) bool { return compareHops(a, b) == 0 })
}
