package routes

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/tdpd/internal/rtnl"
	"golang.org/x/sys/unix"
)

// rib has all routes of the main tables, and which prefixes may have another best one since take.
type rib struct {
	ignore uint8 // protocol
	routes map[netip.Prefix][]rtnl.Route
	best   map[netip.Prefix]*Route // as told last
	dirty  map[netip.Prefix]bool
}

func newRIB(ignore uint8) *rib {
	return &rib{ignore, map[netip.Prefix][]rtnl.Route{}, map[netip.Prefix]*Route{}, map[netip.Prefix]bool{}}
}

// concerns says whether a route is one that packets to elsewhere take, or are dropped by.
func (r *rib) concerns(route *rtnl.Route) bool {
	return route.Table == unix.RT_TABLE_MAIN && (route.Type == unix.RTN_UNICAST || drops(route)) && route.TOS == 0 && route.Protocol != r.ignore &&
		route.Flags&unix.RTM_F_CLONED == 0 && route.Prefix.IsValid() &&
		!route.Prefix.Addr().IsMulticast() && !route.Prefix.Addr().IsLinkLocalUnicast()
}

// drops says whether packets that come to the route go no further: it hides others of higher metrics.
func drops(route *rtnl.Route) bool {
	switch route.Type {
	case unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW:
		return true
	}
	return false
}

// uses says whether a route leads to an interface.
func (r *rib) uses(index int) bool {
	for _, all := range r.routes {
		for _, route := range all {
			if slices.ContainsFunc(route.Hops, func(h rtnl.Hop) bool { return h.Interface == index }) {
				return true
			}
		}
	}
	return false
}

// reset begins anew with what add gets next. Only what differs in the end is told.
func (r *rib) reset() {
	for p := range r.best {
		r.dirty[p] = true
	}
	clear(r.routes)
}

// add takes a route of a dump. IPv6 may list those of one metric one by one.
func (r *rib) add(route rtnl.Route) {
	if r.concerns(&route) {
		r.routes[route.Prefix] = append(r.routes[route.Prefix], route)
		r.dirty[route.Prefix] = true
	}
}

// changed takes a notification that a route came: with flags of the request (NLM_F_REPLACE, NLM_F_APPEND).
func (r *rib) changed(route rtnl.Route, flags uint16) {
	if !r.concerns(&route) {
		return
	}
	p := route.Prefix
	r.dirty[p] = true
	same := func(o rtnl.Route) bool { return o.Metric == route.Metric }
	if p.Addr().Is6() { // it has all next hops that share, whichever of them is new
		r.routes[p] = slices.DeleteFunc(r.routes[p], func(o rtnl.Route) bool {
			return same(o) && (viaAll(o) == viaAll(route) && viaAll(o) || overlap(o, route) || o.Type != route.Type && flags&unix.NLM_F_REPLACE != 0)
		})
		r.routes[p] = append(r.routes[p], route)
		return
	}
	// The kernel has none twice; a notification from before a dump may tell of one that is there.
	identical := func(o rtnl.Route) bool {
		return same(o) && o.Protocol == route.Protocol && o.Type == route.Type && equalHops(o.Hops, route.Hops)
	}
	if flags&unix.NLM_F_REPLACE == 0 {
		r.routes[p] = slices.DeleteFunc(r.routes[p], identical)
	}
	at := slices.IndexFunc(r.routes[p], same)
	switch {
	case at >= 0 && flags&unix.NLM_F_REPLACE != 0:
		r.routes[p][at].Hops = nil // not what is deleted
		r.routes[p] = slices.DeleteFunc(r.routes[p], identical)
		r.routes[p][at] = route
	case at >= 0 && flags&unix.NLM_F_APPEND == 0:
		r.routes[p] = slices.Insert(r.routes[p], at, route)
	default:
		r.routes[p] = append(r.routes[p], route)
	}
}

func viaAll(r rtnl.Route) bool {
	return !slices.ContainsFunc(r.Hops, func(h rtnl.Hop) bool { return !h.Via.IsValid() })
}

func equalHops(a, b []rtnl.Hop) bool {
	return slices.EqualFunc(a, b, func(a, b rtnl.Hop) bool { return a.Via == b.Via && a.Interface == b.Interface })
}

func overlap(a, b rtnl.Route) bool {
	return slices.ContainsFunc(a.Hops, func(h rtnl.Hop) bool { return hasHop(b.Hops, h) })
}

func hasHop(hops []rtnl.Hop, h rtnl.Hop) bool {
	return slices.ContainsFunc(hops, func(o rtnl.Hop) bool { return o.Via == h.Via && o.Interface == h.Interface })
}

// gone takes a notification that a route went, or of IPv6 some of its next hops.
func (r *rib) gone(route rtnl.Route) {
	p := route.Prefix
	if !r.concerns(&route) || r.routes[p] == nil {
		return
	}
	r.dirty[p] = true
	for i := range r.routes[p] {
		if o := &r.routes[p][i]; o.Metric == route.Metric && o.Protocol == route.Protocol && o.Type == route.Type && overlap(*o, route) {
			hops := slices.DeleteFunc(slices.Clone(o.Hops), func(h rtnl.Hop) bool { return hasHop(route.Hops, h) })
			if len(hops) > 0 && p.Addr().Is6() {
				o.Hops = hops
			} else {
				r.routes[p] = slices.Delete(r.routes[p], i, i+1)
			}
			break
		}
	}
	if len(r.routes[p]) == 0 {
		delete(r.routes, p)
	}
}

// take writes the best routes that are others than at the last call.
func (r *rib) take(into map[netip.Prefix]*Route) {
	for p := range r.dirty {
		best := choose(r.routes[p])
		if best.equal(r.best[p]) {
			continue
		}
		into[p] = best
		if best == nil {
			delete(r.best, p)
		} else {
			r.best[p] = best
		}
	}
	clear(r.dirty)
}

// choose returns the route of the lowest metric, the first of several; of IPv6 all that have it share.
func choose(routes []rtnl.Route) *Route {
	if len(routes) == 0 {
		return nil
	}
	first := slices.MinFunc(routes, func(a, b rtnl.Route) int { return cmp.Compare(a.Metric, b.Metric) })
	best := &Route{Metric: first.Metric, Protocol: first.Protocol, Drops: drops(&first)}
	if best.Drops {
		return best
	}
	for i, o := range routes {
		if o.Metric != first.Metric || len(best.Hops) > 0 && !routes[i].Prefix.Addr().Is6() {
			continue
		}
		for _, h := range o.Hops {
			best.Hops = append(best.Hops, Hop{h.Via, h.Interface})
		}
	}
	slices.SortFunc(best.Hops, func(a, b Hop) int { return cmp.Or(cmp.Compare(a.Interface, b.Interface), a.Via.Compare(b.Via)) })
	best.Hops = slices.Compact(best.Hops)
	return best
}
