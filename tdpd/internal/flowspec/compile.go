package flowspec

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// Compile makes rules of users: as few as there can be, and at most Config.Most. Where there would be more, services share what there is: who
// needs less than an equal share has all, and of the others the longest prefixes are left to the director first, as they have the fewest users.
func Compile(services []Users, c Config) Result {
	var parts []*part
	for _, u := range services {
		parts = append(parts, partsOf(u, c)...)
	}
	share(parts, c.Most)
	out := Result{Reasons: map[Reason]int{}}
	for _, p := range parts {
		out.add(p)
	}
	slices.SortFunc(out.Rules, compareRules)
	return out
}

// part is a service's users of one family.
type part struct {
	users  Users
	bounds []Bound
	vips   []netip.Addr
	config Config
	tree   *tree
	to     []netip.Addr // servers by number; the first is the director
	rules  []rule
}

func partsOf(u Users, c Config) (out []*part) {
	four := &part{users: u, bounds: u.Four, config: c}
	six := &part{users: u, bounds: u.Six, config: c}
	for _, v := range u.VIPs {
		if v.Is4() {
			four.vips = append(four.vips, v)
		} else {
			six.vips = append(six.vips, v)
		}
	}
	for _, p := range []*part{four, six} {
		if len(p.vips) == 0 {
			continue
		}
		p.number()
		p.rules = p.tree.rules()
		out = append(out, p)
	}
	return out
}

// number numbers servers in the order of their addresses, so that all directors make the same rules, and makes the tree.
func (p *part) number() {
	is4, known := p.vips[0].Is4(), map[netip.Addr]int{}
	for _, b := range p.bounds {
		_, vrf := p.config.VRFs[b.Server]
		if b.Server.IsValid() && (b.Server.Is4() == is4 || vrf) {
			known[b.Server] = 0
		}
	}
	p.to = append([]netip.Addr{{}}, slices.SortedFunc(maps.Keys(known), netip.Addr.Compare)...)
	for i, a := range p.to[1:] {
		known[a] = i + 1
	}
	p.tree = newTree(is4, p.bounds, func(a netip.Addr) int { return known[a] }, p.config)
}

// needs is how many rules there are of all of its VIPs.
func (p *part) needs() int { return len(p.rules) * len(p.vips) }

// share gives parts that need too much an equal share of what is there.
func share(parts []*part, most int) {
	left := slices.Clone(parts)
	slices.SortStableFunc(left, func(a, b *part) int { return cmp.Compare(a.needs(), b.needs()) })
	for i, p := range left {
		if fair := most / (len(left) - i); p.needs() > fair {
			p.rules = p.tree.prune(fair / len(p.vips))
		}
		most -= p.needs()
	}
}

func (r *Result) add(p *part) {
	for _, v := range p.vips {
		for _, rule := range p.rules {
			match := bgp.FlowMatch{Destination: netip.PrefixFrom(v, v.BitLen())}
			if rule.prefix.Bits() > 0 {
				match.Source = rule.prefix
			}
			r.Rules = append(r.Rules, bgp.FlowRule{FlowMatch: match, FlowAction: p.action(p.to[rule.server])})
		}
	}
	for i, b := range p.bounds {
		why := p.tree.why[i]
		if why == None {
			continue
		}
		if r.Reasons[why]++; len(r.Left) < LeftMost {
			r.Left = append(r.Left, Left{Service: p.users.Service, Portion: b.Portion, Server: b.Server, Why: why})
		}
	}
}

func (p *part) action(server netip.Addr) bgp.FlowAction {
	if t, ok := p.config.VRFs[server]; ok {
		return bgp.FlowAction{RedirectVRF: t}
	}
	return bgp.FlowAction{RedirectIP: server}
}

func compareRules(a, b bgp.FlowRule) int { return compareMatches(a.FlowMatch, b.FlowMatch) }

// compareMatches puts what is around others before them, without anything else between: all users have no source.
func compareMatches(a, b bgp.FlowMatch) int {
	return cmp.Or(a.Destination.Addr().Compare(b.Destination.Addr()), cmp.Compare(a.Destination.Bits(), b.Destination.Bits()),
		cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port),
		a.Source.Addr().Compare(b.Source.Addr()), cmp.Compare(a.Source.Bits(), b.Source.Bits()))
}
