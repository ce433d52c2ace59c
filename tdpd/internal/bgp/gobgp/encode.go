package gobgp

import (
	"fmt"
	"net/netip"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// ours is the path identifier of what we announce, "mc80": so we know it again in a speaker that has paths of others, too. It is not on the wire.
const ours = 0x6d633830

// Components of FlowSpec rules (RFC 8955 section 4.2.2) and what a value is compared by.
const (
	flowDestination = 1
	flowSource      = 2
	flowProtocol    = 3
	flowPort        = 5 // of the destination
	flowEqual       = 0x01
	flowEnd         = 0x80
)

// Extended communities that redirect (draft-ietf-idr-flowspec-redirect-ip, RFC 8955 section 7.4).
const redirectIPSubType = 0x0c

func toAny(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic(err) // messages of ours are good
	}
	return a
}

// encodeUnicast is a path of ours.
func encodeUnicast(p bgp.Path, as uint32) *api.Path {
	return encode(p.Family(), toAny(&api.IPAddressPrefix{Prefix: p.Prefix.Addr().String(), PrefixLen: uint32(p.Prefix.Bits())}), p.Attributes, as)
}

func encodeLabelled(p bgp.LabelledPath, as uint32) *api.Path {
	nlri := &api.LabeledIPAddressPrefix{Labels: []uint32{p.Label}, Prefix: p.Prefix.Addr().String(), PrefixLen: uint32(p.Prefix.Bits())}
	return encode(p.Family(), toAny(nlri), p.Attributes, as)
}

func encodeRule(r bgp.FlowRule, as uint32) (*api.Path, error) {
	path := encode(r.Family(), toAny(&api.FlowSpecNLRI{Rules: encodeMatch(r.FlowMatch)}), bgp.Attributes{}, as)
	switch {
	case r.RedirectIP.Is4():
		c := toAny(&api.IPv4AddressSpecificExtended{IsTransitive: true, SubType: redirectIPSubType, Address: r.RedirectIP.String()})
		path.Pattrs = append(path.Pattrs, toAny(&api.ExtendedCommunitiesAttribute{Communities: []*anypb.Any{c}}))
	case r.RedirectIP.Is6():
		c := toAny(&api.IPv6AddressSpecificExtended{IsTransitive: true, SubType: redirectIPSubType, Address: r.RedirectIP.String()})
		path.Pattrs = append(path.Pattrs, toAny(&api.IP6ExtendedCommunitiesAttribute{Communities: []*anypb.Any{c}}))
	case r.RedirectVRF != (bgp.RouteTarget{}):
		path.Pattrs = append(path.Pattrs, toAny(&api.ExtendedCommunitiesAttribute{Communities: []*anypb.Any{encodeVRF(r.RedirectVRF)}}))
	default:
		return nil, fmt.Errorf("rule for %v from %v: redirect to what?", r.Destination, r.Source)
	}
	return path, nil
}

func encodeVRF(t bgp.RouteTarget) *anypb.Any {
	if t.AS > 0xffff {
		return toAny(&api.RedirectFourOctetAsSpecificExtended{Asn: t.AS, LocalAdmin: t.Value})
	}
	return toAny(&api.RedirectTwoOctetAsSpecificExtended{Asn: t.AS, LocalAdmin: t.Value})
}

// encodeMatch is in ascending order of the components, as RFC 8955 section 4.2 wants it.
func encodeMatch(m bgp.FlowMatch) []*anypb.Any {
	prefix := func(kind uint32, p netip.Prefix) *anypb.Any {
		return toAny(&api.FlowSpecIPPrefix{Type: kind, Prefix: p.Addr().String(), PrefixLen: uint32(p.Bits())})
	}
	value := func(kind uint32, v uint64) *anypb.Any {
		return toAny(&api.FlowSpecComponent{Type: kind, Items: []*api.FlowSpecComponentItem{{Op: flowEqual | flowEnd, Value: v}}})
	}
	rules := []*anypb.Any{prefix(flowDestination, m.Destination)}
	if m.Source.IsValid() {
		rules = append(rules, prefix(flowSource, m.Source))
	}
	if m.Protocol != 0 {
		rules = append(rules, value(flowProtocol, uint64(m.Protocol)))
	}
	if m.Port != 0 {
		rules = append(rules, value(flowPort, uint64(m.Port)))
	}
	return rules
}

// encode makes a path of ours. as is our own AS.
func encode(f bgp.Family, nlri *anypb.Any, a bgp.Attributes, as uint32) *api.Path {
	path := &api.Path{Family: toFamily(f), Nlri: nlri, Identifier: ours, Pattrs: []*anypb.Any{toAny(&api.OriginAttribute{})}}
	add := func(m proto.Message) { path.Pattrs = append(path.Pattrs, toAny(m)) }
	hop := a.NextHop
	if !hop.IsValid() { // the speaker puts in the address of each session
		hop = netip.IPv4Unspecified()
		if !f.Is4() {
			hop = netip.IPv6Unspecified()
		}
	}
	if f == bgp.IPv4Unicast && hop.Is4() {
		add(&api.NextHopAttribute{NextHop: hop.String()})
	} else {
		add(&api.MpReachNLRIAttribute{Family: toFamily(f), NextHops: []string{hop.String()}, Nlris: []*anypb.Any{nlri}})
	}
	if len(a.ASPath) > 0 {
		add(&api.AsPathAttribute{Segments: []*api.AsSegment{{Type: api.AsSegment_AS_SEQUENCE, Numbers: a.ASPath}}})
	}
	if a.MED != nil {
		add(&api.MultiExitDiscAttribute{Med: *a.MED})
	}
	if a.LocalPref != nil {
		add(&api.LocalPrefAttribute{LocalPref: *a.LocalPref})
	}
	if len(a.Communities) > 0 {
		all := &api.CommunitiesAttribute{}
		for _, c := range a.Communities {
			all.Communities = append(all.Communities, uint32(c))
		}
		add(all)
	}
	if marks := prependMarks(as, a.Prepend); len(marks) > 0 {
		add(&api.LargeCommunitiesAttribute{Communities: marks})
	}
	return path
}

// prependMarks say how often the export policy is to put our AS in front, toward other ASes: in the path itself it would be told to our own AS, too, whose
// routers would take it for a circle. Each power of two has a mark.
func prependMarks(as uint32, n int) (marks []*api.LargeCommunity) {
	for bit := 1; bit <= bgp.PrependMost; bit <<= 1 {
		if n&bit != 0 {
			marks = append(marks, &api.LargeCommunity{GlobalAdmin: as, LocalData1: ours, LocalData2: uint32(bit)})
		}
	}
	return marks
}
