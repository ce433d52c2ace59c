package bgp

import "net/netip"

// Policy says which paths pass, and what becomes of them. The first rule that matches decides; what none matches does not pass.
type Policy struct {
	Name  string
	Rules []PolicyRule
}

// PolicyRule matches what all of its parts match; an empty part matches everything.
type PolicyRule struct {
	Prefixes    []PrefixRange // any of them; of one or both families; FlowSpec rules are in none
	Communities []Community   // any of them
	Families    []Family
	Deny        bool
	Set         PolicySet // of what passes
}

// PolicySet is what a rule changes of a path.
type PolicySet struct {
	MED       *uint32
	LocalPref *uint32 // at least 1
	Prepend   int     // own AS, so often, toward other ASes; of exports
	Add       []Community
	Remove    []Community
}

// PrefixRange is prefixes inside another one, of some lengths.
type PrefixRange struct {
	Prefix      netip.Prefix // masked
	Least, Most int          // of their lengths: Prefix.Bits() <= Least <= Most <= 32 or 128
}

// Contains says whether a prefix is one of them.
func (r PrefixRange) Contains(p netip.Prefix) bool {
	return r.Prefix.Contains(p.Addr()) && r.Least <= p.Bits() && p.Bits() <= r.Most
}
