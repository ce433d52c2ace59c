package bgp

import (
	"fmt"
	"net/netip"
)

// Family is what a session carries: an AFI and a SAFI (RFC 4760).
type Family uint8

// The families that there are.
const (
	IPv4Unicast  Family = iota + 1 // AFI 1, SAFI 1
	IPv6Unicast                    // 2, 1
	IPv4Labelled                   // 1, 4 (RFC 8277)
	IPv6Labelled                   // 2, 4
	IPv4FlowSpec                   // 1, 133 (RFC 8955)
	IPv6FlowSpec                   // 2, 133 (RFC 8956)
)

var familyNames = [...]string{
	IPv4Unicast: "ipv4-unicast", IPv6Unicast: "ipv6-unicast", IPv4Labelled: "ipv4-labelled", IPv6Labelled: "ipv6-labelled",
	IPv4FlowSpec: "ipv4-flowspec", IPv6FlowSpec: "ipv6-flowspec",
}

// Families are all of them, in order.
func Families() []Family {
	return []Family{IPv4Unicast, IPv6Unicast, IPv4Labelled, IPv6Labelled, IPv4FlowSpec, IPv6FlowSpec}
}

// String is as the configuration has it: ipv4-unicast.
func (f Family) String() string {
	if f == 0 || int(f) >= len(familyNames) {
		return fmt.Sprintf("family %d", uint8(f))
	}
	return familyNames[f]
}

// ParseFamily reads what String writes.
func ParseFamily(text string) (Family, error) {
	for _, f := range Families() {
		if f.String() == text {
			return f, nil
		}
	}
	return 0, fmt.Errorf("address family %q: want one of %v", text, Families())
}

// MarshalText and UnmarshalText are for configuration files.
func (f Family) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *Family) UnmarshalText(text []byte) (err error) {
	*f, err = ParseFamily(string(text))
	return err
}

// Is4 says whether its prefixes are of IPv4.
func (f Family) Is4() bool { return f == IPv4Unicast || f == IPv4Labelled || f == IPv4FlowSpec }

// Labelled says whether its paths have labels.
func (f Family) Labelled() bool { return f == IPv4Labelled || f == IPv6Labelled }

// FlowSpec says whether it carries rules.
func (f Family) FlowSpec() bool { return f == IPv4FlowSpec || f == IPv6FlowSpec }

// UnicastOf is the family of a prefix without labels.
func UnicastOf(p netip.Prefix) Family {
	if p.Addr().Is4() {
		return IPv4Unicast
	}
	return IPv6Unicast
}

// LabelledOf is the family of a prefix with labels.
func LabelledOf(p netip.Prefix) Family {
	if p.Addr().Is4() {
		return IPv4Labelled
	}
	return IPv6Labelled
}

// FlowSpecOf is the family of rules about a destination.
func FlowSpecOf(destination netip.Prefix) Family {
	if destination.Addr().Is4() {
		return IPv4FlowSpec
	}
	return IPv6FlowSpec
}
