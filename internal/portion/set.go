package portion

import (
	"math/bits"
	"net/netip"
	"slices"
	"strings"
)

// Set is the permitted senders less the denied ones (Fig 7B and 7C). No Permit at all permits nobody.
type Set struct {
	Permit []Portion
	Deny   []Portion
}

// Contains reports whether some portion of Permit and none of Deny contains a.
func (s Set) Contains(a netip.Addr) bool {
	in := func(p Portion) bool { return p.Contains(a) }
	return slices.ContainsFunc(s.Permit, in) && !slices.ContainsFunc(s.Deny, in)
}

// Share returns how much of the IPv4 space is in s: 0..1. It is for sets of our own: its work is not bounded.
func (s Set) Share() float64 {
	var apart []cube // the permitted addresses, each in one cube only
	permit, deny := cubes(s.Permit, true), cubes(s.Deny, true)
	for i, p := range permit {
		rest := []cube{p}
		for _, d := range slices.Concat(deny, permit[:i]) {
			rest = without(rest, d)
		}
		apart = append(apart, rest...)
	}
	sum := 0.0
	for _, c := range apart {
		sum += 1 / float64(uint64(1)<<bits.OnesCount32(uint32(c.mask.lo)))
	}
	return sum
}

// Empty reports whether no address is in s. A set that is too entangled for the bound of work (see Overlap) is taken as
// not empty.
func (s Set) Empty() bool {
	return !slices.ContainsFunc(families, func(is4 bool) bool {
		_, v := search(is4, []region{regionOf(s, is4)}, func(st []status) verdict {
			return verdictOf(st[0] == yes, st[0] == no)
		})
		return v != prune
	})
}

// Equal reports whether both have the same addresses, however they are written. Sets that are too entangled for the bound
// of work (see Overlap) are taken as different.
func (s Set) Equal(o Set) bool {
	if slices.Equal(s.Permit, o.Permit) && slices.Equal(s.Deny, o.Deny) {
		return true // written alike: no need to search
	}
	return !slices.ContainsFunc(families, func(is4 bool) bool {
		_, v := search(is4, []region{regionOf(s, is4), regionOf(o, is4)}, func(st []status) verdict {
			settled := st[0] != maybe && st[1] != maybe
			return verdictOf(settled && st[0] != st[1], settled && st[0] == st[1])
		})
		return v != prune
	})
}

// Overlap returns an address that is in both. The answer is exact and its work bounded: whether masks with denied portions
// leave something over can be made exponentially hard to tell. Sets beyond the bound, which honest members do not make, are
// taken as overlapping, with the zero Addr as the witness.
func (s Set) Overlap(o Set) (witness netip.Addr, overlaps bool) {
	for _, is4 := range families {
		mine, others := regionOf(s, is4), regionOf(o, is4)
		if mine.apart(others) {
			continue
		}
		a, v := search(is4, []region{mine, others}, func(st []status) verdict {
			return verdictOf(st[0] == yes && st[1] == yes, st[0] == no || st[1] == no)
		})
		if v != prune {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// maxApart bounds the pairs of portions that apart looks at.
const maxApart = 1 << 16

// apart says that regions have nothing in common, where that is seen without a search: what is in two permitted portions is denied by one
// portion of either. False says nothing. So slots differ, and fixed portions from slots that deny them.
func (r region) apart(o region) bool {
	if len(r.permit)*len(o.permit) > maxApart {
		return false
	}
	left := maxApart
	for _, p := range r.permit {
		for _, q := range o.permit {
			if !p.overlaps(q) {
				continue
			}
			both := cube{p.addr.or(q.addr), p.mask.or(q.mask)}
			denies := func(d cube) bool { return d.covers(both) }
			if left -= len(r.deny) + len(o.deny); left < 0 || !slices.ContainsFunc(r.deny, denies) && !slices.ContainsFunc(o.deny, denies) {
				return false
			}
		}
	}
	return true
}

// String lists the permitted portions, then the denied ones behind exclamation marks.
func (s Set) String() string {
	if len(s.Permit) == 0 {
		return "nobody"
	}
	var b strings.Builder
	for i, p := range s.Permit {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(p.String())
	}
	for _, p := range s.Deny {
		b.WriteString(" !" + p.String())
	}
	return b.String()
}

var families = []bool{true, false}

func regionOf(s Set, is4 bool) region {
	return region{permit: cubes(s.Permit, is4), deny: cubes(s.Deny, is4)}
}
