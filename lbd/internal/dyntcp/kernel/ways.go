package kernel

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
)

// route is one of the kernel's, of table main.
type route struct {
	prefix netip.Prefix
	metric int
	hops   []hop
}

// hop is where packets go by a route. An address that is zero: the destination is on the link.
type hop struct {
	ifindex int
	address netip.Addr
}

// wayMapValue is struct way of bpf/client.bpf.c.
type wayMapValue struct {
	Hop  [16]byte
	Hops uint64
}

// waysOf are the ways by some interfaces that routes are. Those that lead where shorter prefixes do are left out: a host with one router has few,
// however many routes it has.
func waysOf(routes []route, interfaces map[int]bool) map[prefixMapKey]wayMapValue {
	slices.SortStableFunc(routes, func(a, b route) int {
		return cmp.Or(cmp.Compare(a.prefix.Bits(), b.prefix.Bits()), cmp.Compare(a.metric, b.metric))
	})
	ways := make(map[prefixMapKey]wayMapValue)
	seen := make(map[prefixMapKey]bool)
	for _, r := range routes {
		for _, h := range r.hops {
			key := newPrefix(uint32(h.ifindex), r.prefix)
			if !interfaces[h.ifindex] || seen[key] {
				continue
			}
			seen[key] = true
			way := wayMapValue{Hops: nameOf(r.hops)}
			if h.address.IsValid() {
				way.Hop = h.address.As16()
			}
			if covering, ok := above(ways, key.Of, r.prefix); !ok || covering != way {
				ways[key] = way
			}
		}
	}
	return ways
}

// above is the way of the longest prefix that a prefix is part of.
func above(ways map[prefixMapKey]wayMapValue, ifindex uint32, p netip.Prefix) (way wayMapValue, ok bool) {
	for bits := p.Bits() - 1; bits >= 0 && !ok; bits-- {
		way, ok = ways[newPrefix(ifindex, netip.PrefixFrom(p.Addr(), bits))]
	}
	return way, ok
}

// nameOf is the same for the same next hops.
func nameOf(hops []hop) uint64 {
	var names []string
	for _, h := range hops {
		names = append(names, fmt.Sprintf("%s %d;", h.address, h.ifindex))
	}
	slices.Sort(names)
	name := fnv.New64a()
	for _, n := range names {
		name.Write([]byte(n))
	}
	return name.Sum64()
}
