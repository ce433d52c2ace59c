package kernel

import (
	"net/netip"

	"github.com/manycast/manycast/igmpd/internal/kernel/mroute"
	"github.com/manycast/manycast/internal/steer"
)

// sg is a source and group; an invalid source is any.
type sg struct{ source, group netip.Addr }

// resolver answers the kernel's upcalls: which (S,G) entry a new source gets.
type resolver struct {
	static  map[sg]bool // expressed by entries that are always there
	routes  map[sg]demandRoute
	private map[netip.Addr]demandPrivate
}

type demandRoute struct{ in, out mroute.VIFs }

type demandPrivate struct {
	in     mroute.VIFs
	plan   *steer.Plan
	owners map[steer.Owner]int // to VIF
}

func newResolver() resolver {
	return resolver{static: map[sg]bool{}, routes: map[sg]demandRoute{}, private: map[netip.Addr]demandPrivate{}}
}

// answer returns the entry of a source whose packet came in by vif; without Out it is a refusal. ok is false where an entry
// made on demand would hide entries that are always there.
func (r resolver) answer(source, group netip.Addr, vif int) (e mroute.Entry, ok bool) {
	if r.static[sg{source, group}] {
		return e, false
	}
	route, found := r.routes[sg{source, group}]
	if !found {
		if r.static[sg{group: group}] {
			return e, false
		}
		if route, found = r.routes[sg{group: group}]; !found {
			route = r.owned(source, group)
		}
	}
	e = mroute.Entry{Source: source, Group: group, Parent: vif}
	if route.in != 0 && !route.in.Has(vif) {
		e.Parent = route.in.First() // a forged packet must not keep the right interface from being heard
	}
	if route.in != 0 {
		e.Out = route.out &^ mroute.VIF(e.Parent)
	}
	return e, true
}

func (r resolver) owned(source, group netip.Addr) demandRoute {
	p, ok := r.private[group]
	if !ok || p.plan == nil {
		return demandRoute{in: p.in}
	}
	out, ok := p.owners[p.plan.Lookup(source)]
	if !ok {
		return demandRoute{in: p.in}
	}
	return demandRoute{in: p.in, out: mroute.VIF(out)}
}

// knows says whether the group is anybody's.
func (r resolver) knows(source, group netip.Addr) bool {
	_, private := r.private[group]
	_, exact := r.routes[sg{source, group}]
	_, any := r.routes[sg{group: group}]
	return private || exact || any
}
