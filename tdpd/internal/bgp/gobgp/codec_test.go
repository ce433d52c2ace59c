package gobgp

import (
	"net/netip"
	"reflect"
	"testing"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func pointer(n uint32) *uint32     { return &n }

// TestRoundTrip: what is said to the speaker is what is read of it.
func TestRoundTrip(t *testing.T) {
	full := bgp.Attributes{
		NextHop: addr("10.0.0.9"), MED: pointer(0), LocalPref: pointer(7), ASPath: []uint32{65001, 4_200_000_000}, Prepend: 21,
		Communities: []bgp.Community{1, bgp.GracefulShutdown},
	}
	v6 := full
	v6.NextHop = addr("2001:db8::9")
	for _, p := range []bgp.Path{
		{Prefix: prefix("192.0.2.80/32")}, {Prefix: prefix("0.0.0.0/0"), Attributes: full}, {Prefix: prefix("2001:db8::/32")}, {Prefix: prefix("2001:db8::80/128"), Attributes: v6},
		{Prefix: prefix("192.0.2.80/32"), Attributes: v6}, // RFC 8950
	} {
		got, err := decode(encodeUnicast(p, 65000))
		if err != nil || !got.ours || got.withdrawn || got.from.IsValid() || !reflect.DeepEqual(*got.learned.Unicast, p) {
			t.Errorf("%+v: %+v, %v", p, got, err)
		}
		l := bgp.LabelledPath{Path: p, Label: 1<<20 - 1}
		got, err = decode(encodeLabelled(l, 65000))
		if err != nil || !got.ours || !reflect.DeepEqual(*got.learned.Labelled, l) {
			t.Errorf("%+v: %+v, %v", l, got, err)
		}
	}
	for _, r := range []bgp.FlowRule{
		{FlowMatch: bgp.FlowMatch{Destination: prefix("192.0.2.80/32")}, FlowAction: bgp.FlowAction{RedirectIP: addr("10.0.0.9")}},
		{FlowMatch: bgp.FlowMatch{Destination: prefix("192.0.2.80/32"), Source: prefix("0.0.0.0/1"), Protocol: 6, Port: 443}, FlowAction: bgp.FlowAction{RedirectVRF: bgp.RouteTarget{AS: 65001, Value: 80}}},
		{FlowMatch: bgp.FlowMatch{Destination: prefix("2001:db8::80/128"), Source: prefix("2001:db8::/33"), Port: 1}, FlowAction: bgp.FlowAction{RedirectIP: addr("2001:db8::9")}},
		{FlowMatch: bgp.FlowMatch{Destination: prefix("2001:db8::80/128")}, FlowAction: bgp.FlowAction{RedirectVRF: bgp.RouteTarget{AS: 65536, Value: 65535}}},
	} {
		p, err := encodeRule(r, 65000)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decode(p); err != nil || !got.ours || *got.learned.FlowRule != r {
			t.Errorf("%+v: %+v, %v", r, got, err)
		}
	}
	if _, err := encodeRule(bgp.FlowRule{FlowMatch: bgp.FlowMatch{Destination: prefix("192.0.2.80/32")}}, 1); err == nil {
		t.Error("a rule that does nothing")
	}
}

// TestRefused: what makes no sense is refused, each for one of few reasons.
func TestRefused(t *testing.T) {
	v4, l4, f4 := toFamily(bgp.IPv4Unicast), toFamily(bgp.IPv4Labelled), toFamily(bgp.IPv4FlowSpec)
	ip := func(p string, bits uint32) *anypb.Any {
		return toAny(&api.IPAddressPrefix{Prefix: p, PrefixLen: bits})
	}
	hop := func(a string) []*anypb.Any { return []*anypb.Any{toAny(&api.NextHopAttribute{NextHop: a})} }
	good := hop("10.0.0.1")
	rule := func(parts ...proto.Message) *anypb.Any {
		n := &api.FlowSpecNLRI{}
		for _, p := range parts {
			n.Rules = append(n.Rules, toAny(p))
		}
		return toAny(n)
	}
	destination := &api.FlowSpecIPPrefix{Type: 1, Prefix: "192.0.2.80", PrefixLen: 32}
	many := make([]uint32, 1025)
	for name, x := range map[string]struct {
		path *api.Path
		want error
	}{
		"nothing":                  {&api.Path{}, errFamily},
		"VPN":                      {&api.Path{Family: &api.Family{Afi: 1, Safi: 128}}, errFamily},
		"no prefix":                {&api.Path{Family: v4, Pattrs: good}, errPrefix},
		"unknown NLRI":             {&api.Path{Family: v4, Nlri: &anypb.Any{TypeUrl: "x/y", Value: []byte{1}}}, errPrefix},
		"other NLRI":               {&api.Path{Family: v4, Nlri: toAny(&api.OriginAttribute{})}, errPrefix},
		"33 bits":                  {&api.Path{Family: v4, Nlri: ip("10.0.0.0", 33), Pattrs: good}, errPrefix},
		"IPv6 in IPv4":             {&api.Path{Family: v4, Nlri: ip("2001:db8::", 32), Pattrs: good}, errPrefix},
		"no address":               {&api.Path{Family: v4, Nlri: ip("ten", 8), Pattrs: good}, errPrefix},
		"zone":                     {&api.Path{Family: toFamily(bgp.IPv6Unicast), Nlri: ip("fe80::1%eth0", 64), Pattrs: good}, errPrefix},
		"a label without label":    {&api.Path{Family: l4, Nlri: ip("10.0.0.0", 8), Pattrs: good}, errPrefix},
		"no label":                 {&api.Path{Family: l4, Nlri: toAny(&api.LabeledIPAddressPrefix{Prefix: "10.0.0.0", PrefixLen: 8}), Pattrs: good}, errLabel},
		"two labels":               {&api.Path{Family: l4, Nlri: toAny(&api.LabeledIPAddressPrefix{Prefix: "10.0.0.0", PrefixLen: 8, Labels: []uint32{1, 2}}), Pattrs: good}, errLabel},
		"21 bits":                  {&api.Path{Family: l4, Nlri: toAny(&api.LabeledIPAddressPrefix{Prefix: "10.0.0.0", PrefixLen: 8, Labels: []uint32{1 << 20}}), Pattrs: good}, errLabel},
		"no next hop":              {&api.Path{Family: v4, Nlri: ip("10.0.0.0", 8)}, errNextHop},
		"next hop 0.0.0.0":         {&api.Path{Family: v4, Nlri: ip("10.0.0.0", 8), Pattrs: hop("0.0.0.0")}, errNextHop},
		"next hop loopback":        {&api.Path{Family: v4, Nlri: ip("10.0.0.0", 8), Pattrs: hop("127.0.0.1")}, errNextHop},
		"next hop multicast":       {&api.Path{Family: v4, Nlri: ip("10.0.0.0", 8), Pattrs: hop("224.0.0.5")}, errNextHop},
		"next hop nonsense":        {&api.Path{Family: v4, Nlri: ip("10.0.0.0", 8), Pattrs: hop("here")}, errNextHop},
		"MP_REACH without":         {&api.Path{Family: v4, Nlri: ip("10.0.0.0", 8), Pattrs: []*anypb.Any{toAny(&api.MpReachNLRIAttribute{})}}, errNextHop},
		"an attribute of nobody":   {&api.Path{Family: v4, Nlri: ip("10.0.0.0", 8), Pattrs: append(hop("10.0.0.1"), &anypb.Any{TypeUrl: "x/y"})}, errAttributes},
		"a long AS path":           {&api.Path{Family: v4, Nlri: ip("10.0.0.0", 8), Pattrs: append(hop("10.0.0.1"), toAny(&api.AsPathAttribute{Segments: []*api.AsSegment{{Numbers: many}}}))}, errAttributes},
		"many communities":         {&api.Path{Family: v4, Nlri: ip("10.0.0.0", 8), Pattrs: append(hop("10.0.0.1"), toAny(&api.CommunitiesAttribute{Communities: many}))}, errAttributes},
		"a rule without VIP":       {&api.Path{Family: f4, Nlri: rule(&api.FlowSpecIPPrefix{Type: 2, Prefix: "10.0.0.0", PrefixLen: 8})}, errRule},
		"a rule of TCP flags":      {&api.Path{Family: f4, Nlri: rule(destination, &api.FlowSpecComponent{Type: 9, Items: []*api.FlowSpecComponentItem{{Op: 0x81, Value: 2}}})}, errRule},
		"a range of ports":         {&api.Path{Family: f4, Nlri: rule(destination, &api.FlowSpecComponent{Type: 5, Items: []*api.FlowSpecComponentItem{{Op: 3, Value: 2}, {Op: 0x85, Value: 9}}})}, errRule},
		"a rule that does nothing": {&api.Path{Family: f4, Nlri: rule(destination)}, errRule},
	} {
		x.path.NeighborIp = "10.0.0.1"
		if got, err := decode(x.path); err != x.want { //nolint:errorlint // counters go by the very texts
			t.Errorf("%s: %+v, %v, want %v", name, got, err, x.want)
		}
	}
	// A withdrawal needs no more than its prefix.
	got, err := decode(&api.Path{Family: l4, NeighborIp: "10.0.0.1", IsWithdraw: true, Nlri: toAny(&api.LabeledIPAddressPrefix{Prefix: "10.0.0.0", PrefixLen: 8, Labels: []uint32{0x800000}})})
	if err != nil || !got.withdrawn || got.prefix != prefix("10.0.0.0/8") {
		t.Errorf("%+v, %v", got, err)
	}
}

// FuzzDecode: whatever the speaker says is read, or refused for one of few reasons, and what was read can be said again.
func FuzzDecode(f *testing.F) {
	rule, _ := encodeRule(bgp.FlowRule{FlowMatch: bgp.FlowMatch{Destination: prefix("192.0.2.80/32"), Source: prefix("10.0.0.0/8"), Protocol: 6}, FlowAction: bgp.FlowAction{RedirectIP: addr("10.0.0.9")}}, 1)
	for _, p := range []*api.Path{
		encodeUnicast(bgp.Path{Prefix: prefix("192.0.2.80/32"), Attributes: bgp.Attributes{MED: pointer(1), Prepend: 3, ASPath: []uint32{1}, Communities: []bgp.Community{1}}}, 1),
		encodeLabelled(bgp.LabelledPath{Path: bgp.Path{Prefix: prefix("2001:db8::/32")}, Label: 16}, 1), rule,
	} {
		p.NeighborIp = "10.0.0.1"
		text, err := proto.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	reasons := map[string]bool{}
	for _, err := range []error{errFamily, errPrefix, errLabel, errNextHop, errAttributes, errRule} {
		reasons[err.Error()] = true
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p := &api.Path{}
		if proto.Unmarshal(text, p) != nil {
			return
		}
		got, err := decode(p)
		switch {
		case err != nil:
			if !reasons[err.Error()] {
				t.Errorf("refused for %q", err)
			}
		case got.withdrawn:
			if !got.prefix.IsValid() || got.prefix != got.prefix.Masked() {
				t.Errorf("withdrawn: %+v", got)
			}
		case got.learned.Unicast != nil:
			encodeUnicast(*got.learned.Unicast, 1)
		case got.learned.Labelled != nil:
			encodeLabelled(*got.learned.Labelled, 1)
		case got.learned.FlowRule != nil:
			if _, err := encodeRule(*got.learned.FlowRule, 1); err != nil {
				t.Error(err)
			}
		default:
			t.Errorf("nothing: %+v", got)
		}
	})
}

// FuzzNeighbor: whatever the speaker says of a neighbor can be read.
func FuzzNeighbor(f *testing.F) {
	text, err := proto.Marshal(encodeNeighbor(neighborAs{Neighbor: bgp.Neighbor{Address: addr("10.0.0.1"), AS: 2, Families: bgp.Families(), MaxPrefixes: 3}, as: 1, limited: true}, true))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		p := &api.Peer{}
		if proto.Unmarshal(text, p) == nil {
			if n := decodeNeighbor(p); n.State == "" || n.Hold < 0 {
				t.Errorf("%+v", n)
			}
		}
	})
}
