// Package bgppolicy says which paths are taken from BGP neighbors and which are told them, and makes of the paths taken what has to have
// labels. It is pure: events and time come in as values.
package bgppolicy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// Reason is why a path is not taken, or not told.
type Reason uint8

// Reasons. The first four are built in.
const (
	Passes       Reason = iota
	Malformed           // no prefix with an address of the family behind it
	OwnVIP              // a VIP of ours or a part of one: to follow it would send our users away
	DefaultRoute        // it is everybody's way out, not a FEC
	Martian             // what no router forwards
	ByRule              // a rule denies it
	NoRule              // no rule lets it pass
	OverLimit           // there are so many already
	Reasons             // how many there are
)

var reasonNames = [Reasons]string{"passes", "malformed", "own_vip", "default_route", "martian", "by_rule", "no_rule", "over_limit"}

// String is for counters.
func (r Reason) String() string {
	if r < Reasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Counts are how many paths came to what.
type Counts [Reasons]uint64

// Policy is what may pass. The zero Policy lets nothing pass (RFC 8212).
type Policy struct {
	Rules   []Rule // the first that matches decides
	Default bool   // lets the default route pass
	// Martians do not pass, nor what is inside them; VIPs never do.
	Martians []netip.Prefix
}

// Rule matches what all of its parts do; an empty part matches everything.
type Rule struct {
	bgp.PolicyRule
	Neighbors   []netip.Addr // that told it, or are to be told
	Least, Most int          // of the length of the AS path; Most 0: any
}

// Path is what a policy looks at.
type Path struct {
	bgp.Path
	Family bgp.Family
}

// Check says whether a path from, or to, a neighbor passes, with what the rule sets. VIPs are our own.
func (p Policy) Check(path Path, neighbor netip.Addr, vips []netip.Prefix) (Path, Reason) {
	if why := p.builtIn(path, vips); why != Passes {
		return Path{}, why
	}
	for _, r := range p.Rules {
		if !r.matches(path, neighbor) {
			continue
		}
		if r.Deny {
			return Path{}, ByRule
		}
		return r.set(path), Passes
	}
	return Path{}, NoRule
}

func (p Policy) builtIn(path Path, vips []netip.Prefix) Reason {
	prefix := path.Prefix
	switch {
	case !prefix.IsValid() || prefix != prefix.Masked() || prefix.Addr().Is4In6() || prefix.Addr().Is4() != path.Family.Is4():
		return Malformed
	case insideOf(prefix, vips):
		return OwnVIP
	case prefix.Bits() == 0 && !p.Default:
		return DefaultRoute
	case insideOf(prefix, p.Martians):
		return Martian
	}
	return Passes
}

// insideOf says whether all of a prefix is in one of others.
func insideOf(p netip.Prefix, others []netip.Prefix) bool {
	return slices.ContainsFunc(others, func(in netip.Prefix) bool { return inside(p, in) })
}

// inside says whether all of a prefix is in another one.
func inside(p, in netip.Prefix) bool { return p.Bits() >= in.Bits() && in.Contains(p.Addr()) }

func (r Rule) matches(p Path, neighbor netip.Addr) bool {
	return (len(r.Families) == 0 || slices.Contains(r.Families, p.Family)) &&
		(len(r.Neighbors) == 0 || slices.Contains(r.Neighbors, neighbor)) &&
		len(p.ASPath) >= r.Least && (r.Most == 0 || len(p.ASPath) <= r.Most) &&
		(len(r.Prefixes) == 0 || slices.ContainsFunc(r.Prefixes, func(one bgp.PrefixRange) bool { return one.Contains(p.Prefix) })) &&
		(len(r.Communities) == 0 || slices.ContainsFunc(r.Communities, func(c bgp.Community) bool { return slices.Contains(p.Communities, c) }))
}

// set changes what the rule says; the path's slices are left as they are.
func (r Rule) set(p Path) Path {
	s := r.Set
	if s.MED != nil {
		p.MED = s.MED
	}
	if s.LocalPref != nil {
		p.LocalPref = s.LocalPref
	}
	p.Prepend = min(p.Prepend+s.Prepend, bgp.PrependMost)
	if len(s.Add)+len(s.Remove) == 0 {
		return p
	}
	all := slices.DeleteFunc(slices.Clone(p.Communities), func(c bgp.Community) bool { return slices.Contains(s.Remove, c) })
	all = append(all, s.Add...)
	slices.Sort(all)
	p.Communities = slices.Compact(all)
	return p
}

// Range reads a prefix, such as 10.0.0.0/8, with ge and le as in prefix lists of routers: the least and the most bits of what is inside. 0: with
// neither the prefix alone, with ge alone up to single addresses, with le alone from the prefix on.
func Range(prefix string, ge, le int) (bgp.PrefixRange, error) {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return bgp.PrefixRange{}, fmt.Errorf("prefix %q: want one such as 10.0.0.0/8", prefix)
	}
	if p != p.Masked() {
		return bgp.PrefixRange{}, fmt.Errorf("prefix %s has bits behind it: did you mean %v?", prefix, p.Masked())
	}
	r := bgp.PrefixRange{Prefix: p, Least: p.Bits(), Most: p.Bits()}
	if ge != 0 {
		r.Least, r.Most = ge, p.Addr().BitLen()
	}
	if le != 0 {
		r.Most = le
	}
	if r.Least < p.Bits() || r.Most < r.Least || r.Most > p.Addr().BitLen() {
		return bgp.PrefixRange{}, fmt.Errorf("prefix %v ge %d le %d: want %d <= ge <= le <= %d", p, ge, le, p.Bits(), p.Addr().BitLen())
	}
	return r, nil
}
