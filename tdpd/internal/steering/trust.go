package steering

import (
	"net/netip"
	"slices"
)

// Trust is from whom bindings are taken. Who is not named is not trusted.
type Trust []Rule

// Rule lets a neighbor bind VIPs. Whoever passes bindings on is answerable for them: the voucher is not asked.
type Rule struct {
	From Router         // the neighbor; the zero Addr: any
	VIPs []netip.Prefix // that it may bind; none: all
}

// allows says whether a neighbor may bind a VIP.
func (t Trust) allows(from Router, vip netip.Addr) bool {
	return slices.ContainsFunc(t, func(r Rule) bool {
		return (!r.From.IsValid() || r.From == from) && (len(r.VIPs) == 0 || slices.ContainsFunc(r.VIPs, func(p netip.Prefix) bool { return p.Contains(vip) }))
	})
}
