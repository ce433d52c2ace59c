package gobgp

import (
	"errors"
	"net/netip"
	"slices"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// Bounds of what a path may have.
const (
	asPathMost      = 1024
	communitiesMost = 1024
	componentsMost  = 12 // types of RFC 8955 section 4.2.2
	labelMost       = 1<<20 - 1
)

// A told is what the speaker tells of a path.
type told struct {
	learned   bgp.Learned
	family    bgp.Family
	prefix    netip.Prefix // of unicast and labelled families
	match     bgp.FlowMatch
	withdrawn bool
	from      netip.Addr // zero: ours, or another local one
	ours      bool       // has our mark
}

// Errors of paths; their texts are few, for counters.
var (
	errFamily     = errors.New("family")
	errPrefix     = errors.New("prefix")
	errLabel      = errors.New("label")
	errNextHop    = errors.New("next hop")
	errAttributes = errors.New("attributes")
	errRule       = errors.New("rule")
)

// decode reads what the speaker tells. It takes anything, and refuses what makes no sense.
func decode(p *api.Path) (told, error) {
	t := told{withdrawn: p.GetIsWithdraw(), ours: p.GetIdentifier() == ours}
	t.from, _ = netip.ParseAddr(p.GetNeighborIp()) // "<nil>" of local paths
	t.from = t.from.Unmap()
	var err error
	if t.family, err = fromFamily(p.GetFamily()); err != nil {
		return t, errFamily
	}
	if t.family.FlowSpec() {
		return t, t.decodeRule(p)
	}
	label, err := t.decodePrefix(p.GetNlri())
	if err != nil || t.withdrawn {
		return t, err
	}
	a, err := decodeAttributes(p.GetPattrs(), t.from.IsValid())
	if err != nil {
		return t, err
	}
	path := bgp.Path{Prefix: t.prefix, Attributes: a, From: t.from, Stale: p.GetStale() || slices.Contains(a.Communities, bgp.LLGRStale)}
	if t.family.Labelled() {
		t.learned.Labelled = &bgp.LabelledPath{Path: path, Label: label}
	} else {
		t.learned.Unicast = &path
	}
	return t, nil
}

func (t *told) decodePrefix(nlri *anypb.Any) (label uint32, err error) {
	m, err := nlri.UnmarshalNew()
	if err != nil {
		return 0, errPrefix
	}
	switch n := m.(type) {
	case *api.IPAddressPrefix:
		if t.family.Labelled() {
			return 0, errPrefix
		}
		t.prefix, err = decodePrefix(n.GetPrefix(), n.GetPrefixLen(), t.family.Is4())
	case *api.LabeledIPAddressPrefix:
		if !t.family.Labelled() {
			return 0, errPrefix
		}
		if t.prefix, err = decodePrefix(n.GetPrefix(), n.GetPrefixLen(), t.family.Is4()); err != nil || t.withdrawn {
			return 0, err // the label of a withdrawal says nothing (RFC 8277 section 2.4)
		}
		if len(n.GetLabels()) != 1 || n.GetLabels()[0] > labelMost {
			return 0, errLabel
		}
		label = n.GetLabels()[0]
	default:
		return 0, errPrefix
	}
	return label, err
}

// decodePrefix reads a prefix of one family, without bits behind.
func decodePrefix(text string, bits uint32, is4 bool) (netip.Prefix, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4() != is4 || bits > uint32(a.BitLen()) {
		return netip.Prefix{}, errPrefix
	}
	return netip.PrefixFrom(a, int(bits)).Masked(), nil
}

// decodeAttributes reads them; a neighbor's have a next hop.
func decodeAttributes(all []*anypb.Any, learnt bool) (a bgp.Attributes, err error) {
	for _, one := range all {
		m, err := one.UnmarshalNew()
		if err != nil {
			return a, errAttributes
		}
		switch m := m.(type) {
		case *api.NextHopAttribute:
			err = decodeNextHop(&a, m.GetNextHop())
		case *api.MpReachNLRIAttribute:
			if len(m.GetNextHops()) == 0 {
				return a, errNextHop
			}
			err = decodeNextHop(&a, m.GetNextHops()[0])
		case *api.MultiExitDiscAttribute:
			a.MED = &m.Med
		case *api.LocalPrefAttribute:
			a.LocalPref = &m.LocalPref
		case *api.AsPathAttribute:
			err = decodeASPath(&a, m)
		case *api.CommunitiesAttribute:
			err = decodeCommunities(&a, m)
		case *api.LargeCommunitiesAttribute:
			decodeMarks(&a, m)
		}
		if err != nil {
			return a, err
		}
	}
	if learnt && (!a.NextHop.IsValid() || a.NextHop.IsUnspecified() || a.NextHop.IsMulticast() || a.NextHop.IsLoopback()) {
		return a, errNextHop
	}
	if a.NextHop.IsUnspecified() {
		a.NextHop = netip.Addr{} // of ours: each session's own
	}
	return a, nil
}

func decodeNextHop(a *bgp.Attributes, text string) error {
	hop, err := netip.ParseAddr(text)
	if err != nil {
		return errNextHop
	}
	a.NextHop = hop.Unmap()
	return nil
}

func decodeASPath(a *bgp.Attributes, m *api.AsPathAttribute) error {
	for _, s := range m.GetSegments() {
		a.ASPath = append(a.ASPath, s.GetNumbers()...)
	}
	if len(a.ASPath) > asPathMost {
		return errAttributes
	}
	return nil
}

func decodeCommunities(a *bgp.Attributes, m *api.CommunitiesAttribute) error {
	if len(m.GetCommunities()) > communitiesMost {
		return errAttributes
	}
	for _, c := range m.GetCommunities() {
		a.Communities = append(a.Communities, bgp.Community(c))
	}
	slices.Sort(a.Communities)
	a.Communities = slices.Compact(a.Communities)
	return nil
}

// decodeMarks reads prependMarks.
func decodeMarks(a *bgp.Attributes, m *api.LargeCommunitiesAttribute) {
	for _, c := range m.GetCommunities() {
		if c.GetLocalData1() == ours && c.GetLocalData2() <= bgp.PrependMost {
			a.Prepend |= int(c.GetLocalData2())
		}
	}
}

func (t *told) decodeRule(p *api.Path) error {
	m, err := p.GetNlri().UnmarshalNew()
	if err != nil {
		return errRule
	}
	n, is := m.(*api.FlowSpecNLRI)
	if !is || len(n.GetRules()) > componentsMost {
		return errRule
	}
	for _, r := range n.GetRules() {
		if err := t.decodeComponent(r); err != nil {
			return err
		}
	}
	if !t.match.Destination.IsValid() {
		return errRule
	}
	t.prefix = t.match.Destination
	if t.withdrawn {
		return nil
	}
	rule := &bgp.FlowRule{FlowMatch: t.match, From: t.from}
	if rule.FlowAction, err = decodeAction(p.GetPattrs()); err != nil {
		return err
	}
	t.learned.FlowRule = rule
	return nil
}

func (t *told) decodeComponent(r *anypb.Any) error {
	m, err := r.UnmarshalNew()
	if err != nil {
		return errRule
	}
	switch c := m.(type) {
	case *api.FlowSpecIPPrefix:
		p, err := decodePrefix(c.GetPrefix(), c.GetPrefixLen(), t.family.Is4())
		if err != nil || c.GetOffset() != 0 {
			return errRule
		}
		switch c.GetType() {
		case flowDestination:
			t.match.Destination = p
		case flowSource:
			t.match.Source = p
		default:
			return errRule
		}
	case *api.FlowSpecComponent:
		items := c.GetItems()
		if len(items) != 1 || items[0].GetOp()&0x07 != flowEqual {
			return errRule
		}
		switch v := items[0].GetValue(); {
		case c.GetType() == flowProtocol && v <= 0xff:
			t.match.Protocol = uint8(v)
		case c.GetType() == flowPort && v <= 0xffff:
			t.match.Port = uint16(v)
		default:
			return errRule
		}
	default:
		return errRule
	}
	return nil
}

// decodeAction finds the redirection among the extended communities.
func decodeAction(all []*anypb.Any) (a bgp.FlowAction, err error) {
	for _, one := range all {
		m, err := one.UnmarshalNew()
		if err != nil {
			return a, errAttributes
		}
		var communities []*anypb.Any
		switch m := m.(type) {
		case *api.ExtendedCommunitiesAttribute:
			communities = m.GetCommunities()
		case *api.IP6ExtendedCommunitiesAttribute:
			communities = m.GetCommunities()
		}
		if len(communities) > communitiesMost {
			return a, errAttributes
		}
		for _, c := range communities {
			if err := decodeRedirect(&a, c); err != nil {
				return a, err
			}
		}
	}
	if a == (bgp.FlowAction{}) {
		return a, errRule
	}
	return a, nil
}

func decodeRedirect(a *bgp.FlowAction, community *anypb.Any) error {
	m, err := community.UnmarshalNew()
	if err != nil {
		return errAttributes
	}
	address := ""
	switch c := m.(type) {
	case *api.IPv4AddressSpecificExtended:
		if c.GetSubType() == redirectIPSubType {
			address = c.GetAddress()
		}
	case *api.IPv6AddressSpecificExtended:
		if c.GetSubType() == redirectIPSubType {
			address = c.GetAddress()
		}
	case *api.RedirectTwoOctetAsSpecificExtended:
		a.RedirectVRF = bgp.RouteTarget{AS: c.GetAsn(), Value: c.GetLocalAdmin()}
	case *api.RedirectFourOctetAsSpecificExtended:
		a.RedirectVRF = bgp.RouteTarget{AS: c.GetAsn(), Value: c.GetLocalAdmin()}
	}
	if address == "" {
		return nil
	}
	if a.RedirectIP, err = netip.ParseAddr(address); err != nil {
		return errRule
	}
	return nil
}
