package service

import (
	"maps"
	"net/netip"

	"github.com/manycast/manycast/tdpd/internal/forwarding"
	"github.com/manycast/manycast/tdpd/internal/page"
)

// outdoneShown is how many routes a status names.
const outdoneShown = 32

// outdoes says whether packets to a prefix get no label though there are some: an IPv4 route of the same prefix that has no metric
// wins against the kernel's entry.
func (s *Service) outdoes(p netip.Prefix, m forwarding.FTN) bool {
	r := s.fecs.Table().Routes[p]
	return r != nil && p.Addr().Is4() && r.Metric == 0 && actOf(m) == forwarding.Push.String()
}

// outdone lists the first routes that outdo labels.
func (s *Service) outdone(most int) []netip.Prefix {
	table := s.fecs.Table().Routes
	return page.Behind(maps.Keys(table), netip.Prefix.Compare, func(p netip.Prefix) bool {
		if table[p].Metric != 0 || !p.Addr().Is4() {
			return false
		}
		m, ok := s.tables.Outgoing(p)
		return ok && s.outdoes(p, m)
	}, most)
}
