package bgp

import "net/netip"

// FlowRule is a traffic filtering rule (RFC 8955, of IPv6: RFC 8956): what it matches, and what becomes of that. Two rules that match the
// same are one.
type FlowRule struct {
	FlowMatch
	FlowAction
	From netip.Addr // neighbor that it was learnt from; zero: ours
}

// FlowMatch is what a rule matches: what all of its parts do. It is comparable, and both prefixes are of one family.
type FlowMatch struct {
	Destination netip.Prefix // the VIP; masked, valid
	Source      netip.Prefix // users; masked; invalid: all of them
	Protocol    uint8        // of IP; 0: any
	Port        uint16       // destination port; 0: any
}

// FlowAction is what becomes of packets that a rule matches. Exactly one of RedirectIP and RedirectVRF is there.
type FlowAction struct {
	// RedirectIP sends them to who has the address, by whatever way leads there, a labelled one too (draft-ietf-idr-flowspec-redirect-ip).
	RedirectIP netip.Addr
	// RedirectVRF sends them by the table that imports the route target (RFC 8955 section 7.4).
	RedirectVRF RouteTarget
}

// RouteTarget is the value of a route target of two-octet AS (RFC 4360 section 4), or of four-octet AS (RFC 5668) where AS needs it. The zero value is none.
type RouteTarget struct {
	AS    uint32
	Value uint32 // with a four-octet AS 0 to 65535
}

// Family is what carries the rule.
func (r FlowMatch) Family() Family { return FlowSpecOf(r.Destination) }
