package service

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/forwarding"
	"github.com/manycast/manycast/tdpd/internal/page"
	"github.com/manycast/manycast/tdpd/internal/routes"
)

// outdoneShown is how many routes a status names.
const outdoneShown = 32

// bare says whether a route leads on and has no metric.
func bare(p netip.Prefix, r *routes.Route) bool {
	return r != nil && p.Addr().Is4() && r.Metric == 0 && slices.ContainsFunc(r.Hops, func(h routes.Hop) bool { return h.Via.IsValid() })
}

// outdoes says whether packets to a prefix get no label though there are some: an IPv4 route of the same prefix that has no metric
// wins against the kernel's entry.
func (s *Service) outdoes(p netip.Prefix, m forwarding.FTN) bool {
	return bare(p, s.fecs.Table().Routes[p]) && slices.ContainsFunc(m.NHLFEs, func(n forwarding.NHLFE) bool {
		return n.Operation == forwarding.Push && !n.Tunnel.IsValid() // tunnels are not in the kernel
	})
}

// outdone lists the first routes that outdo labels.
func (s *Service) outdone(most int) []netip.Prefix {
	return page.Behind(maps.Keys(s.outdoing), netip.Prefix.Compare, func(netip.Prefix) bool { return true }, most)
}

// bareChanged has those of changed routes looked at that outdo labels or may do so now: where only the metric is new, that is nothing to
// labels.
func (s *Service) bareChanged(c routes.Change) {
	for p, r := range c.Routes {
		if bare(p, r) || s.outdoing[p] {
			s.pending.change(p)
		}
	}
	if c.Full {
		for p := range s.outdoing {
			s.pending.change(p)
		}
	}
}

// noteOutdone notes which of the FECs that have changed have a route that outdoes their labels, and warns of it, seldom: a status names
// them.
func (s *Service) noteOutdone(now time.Time, changed map[netip.Prefix]bool) {
	for p := range changed {
		if m, ok := s.tables.Outgoing(p); !ok || !s.outdoes(p, m) {
			delete(s.outdoing, p)
			continue
		}
		s.outdoing[p] = true
		if k := &s.kernel; k.bare.IsZero() || now.Sub(k.bare) >= retryLater {
			k.bare = now
			s.Log.Warn("an IPv4 route without a metric wins against its labels: give it one, such as 20", "route", p)
		}
	}
}
