package interop

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// TestNetLabelled: labels go both ways on a session of their own, beside one without labels by the other family. A label that changes replaces the one before; FRR's
// prefix is learned with its label and next hop, and lost again; the speaker's own paths are not told as learned.
func TestNetLabelled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	server, other := netip.MustParsePrefix("10.9.0.80/32"), netip.MustParsePrefix("198.51.100.7/32")
	r.d.Policies = []bgp.Policy{{Name: "labels", Rules: []bgp.PolicyRule{
		{Prefixes: []bgp.PrefixRange{{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Least: 32, Most: 32}}, Families: []bgp.Family{bgp.IPv4Labelled}},
	}}}
	r.d.Unicast = []bgp.Path{{Prefix: vip6}}
	r.d.Labelled = []bgp.LabelledPath{{Path: bgp.Path{Prefix: server}, Label: 1000}}
	labels, six := r.neighbor(bgp.IPv4Labelled), r.neighbor(bgp.IPv6Unicast)
	labels.Import, six.Address = "labels", frr6
	r.d.Neighbors = []bgp.Neighbor{labels, six}
	seen := r.watch()
	f := r.frr(frrConfig{
		v6: []string{},
		families: " address-family ipv4 unicast\n  network 198.51.100.7/32 label-index 3\n  network 198.51.100.0/24\n exit-address-family\n" +
			family("ipv4 labeled-unicast", us4) + family("ipv6 unicast", us6),
		global: " no bgp network import-check\n",
	})
	r.apply()
	r.established(frr4)
	r.established(frr6)
	r.eventually(func() bool {
		p := f.routes("ipv4 labeled-unicast", server)
		return len(p) == 1 && p[0].Label == 1000 && len(p[0].NextHops) == 1 && p[0].NextHops[0].IP == us4.String()
	}, "the label at FRR")
	r.d.Labelled[0].Label = 1001
	r.apply()
	r.eventually(func() bool {
		p := f.routes("ipv4 labeled-unicast", server)
		return len(p) == 1 && p[0].Label == 1001
	}, "the other label at FRR")

	r.eventually(func() bool { return seen.labelled(other) != nil }, "FRR's label")
	got := seen.labelled(other)
	if got.Label != 3 || got.NextHop != frr4 || got.From != frr4 || len(got.ASPath) != 1 || got.ASPath[0] != frrAS {
		t.Errorf("%+v", got)
	}
	if seen.labelled(server) != nil || seen.unicast(vip6) != nil {
		t.Error("our own paths came back as learned")
	}
	if seen.labelled(netip.MustParsePrefix("198.51.100.0/24")) != nil {
		t.Error("the policy lets pass what it does not name")
	}
	f.vty("configure terminal", "router bgp 65001", "address-family ipv4 unicast", "no network 198.51.100.7/32")
	r.eventually(func() bool { return seen.labelled(other) == nil }, "FRR's label is gone")
	r.d.Labelled = nil
	r.apply()
	r.eventually(func() bool { return len(f.routes("ipv4 labeled-unicast", server)) == 0 }, "ours is gone")
}

// TestNetFlowSpec: FRR decodes rules of ours as they were meant.
func TestNetFlowSpec(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	match := func(source string) bgp.FlowMatch {
		return bgp.FlowMatch{Destination: vip4, Source: netip.MustParsePrefix(source)}
	}
	web := match("203.0.113.0/25")
	web.Protocol, web.Port = 6, 443
	r.d.Rules = []bgp.FlowRule{
		{FlowMatch: match("203.0.113.128/25"), FlowAction: bgp.FlowAction{RedirectIP: netip.MustParseAddr("10.9.0.80")}},
		{FlowMatch: web, FlowAction: bgp.FlowAction{RedirectVRF: bgp.RouteTarget{AS: 65001, Value: 80}}},
		{FlowMatch: bgp.FlowMatch{Destination: vip6, Source: netip.MustParsePrefix("2001:db8:5::/48")}, FlowAction: bgp.FlowAction{RedirectVRF: bgp.RouteTarget{AS: 65001, Value: 81}}},
	}
	r.d.Neighbors = []bgp.Neighbor{r.neighbor(bgp.IPv4FlowSpec, bgp.IPv6FlowSpec)}
	f := r.frr(frrConfig{families: family("ipv4 flowspec", us4) + family("ipv6 flowspec", us4)})
	r.apply()
	r.established(frr4)
	show := func() string { return f.vty("show bgp ipv4 flowspec detail", "show bgp ipv6 flowspec detail") }
	decoded := func() bool {
		for _, want := range []string{
			"Destination Address 192.0.2.80/32 Source Address 203.0.113.128/25 NH:10.9.0.80:0",
			"Destination Address 192.0.2.80/32 Source Address 203.0.113.0/25 IP Protocol = 6 Destination Port = 443 FS:redirect VRF RT:65001:80",
			"Destination Address 2001:db8:80::80/128/off 0 Source Address 2001:db8:5::/48/off 0 FS:redirect VRF RT:65001:81",
		} {
			if !strings.Contains(strings.Join(strings.Fields(show()), " "), want) {
				return false
			}
		}
		return true
	}
	r.eventually(decoded, "rules as FRR decodes them")
	r.d.Rules = r.d.Rules[1:2]
	r.apply()
	r.eventually(func() bool {
		text := show()
		return !strings.Contains(text, "203.0.113.128") && !strings.Contains(text, "2001:db8:5::") && strings.Contains(text, "203.0.113.0")
	}, "two are gone")
}
