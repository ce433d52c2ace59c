package config

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
)

func TestAnnounceAndFlowSpec(t *testing.T) {
	c, err := load(t, least+`[bgp]
as = 1
[bgp.announce]
vips = ["198.51.100.0/24"]
covers = ["198.51.100.0/24"]
prepend = 3
med = 100
communities = ["65001:7", "graceful-shutdown"]
settle = "2s"
flap_first = "0s"
[bgp.flowspec]
most = 500
nested = true
within = ["203.0.113.0/24"]
vrfs = [{ server = "10.9.0.80", route_target = "65001:80" }, { server = "10.9.0.81", route_target = "4200000001:81" }]
`)
	if err != nil {
		t.Fatal(err)
	}
	med := uint32(100)
	want := announcing.Config{
		Covers: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
		Soft:   announcing.Soft{Prepend: 3, MED: &med, Communities: []bgp.Community{65001<<16 | 7, bgp.GracefulShutdown}},
		Settle: 2 * time.Second, Patience: 30 * time.Second, Flaps: announcing.Flaps{Max: time.Minute, Forget: time.Minute},
	}
	if got := c.BGP.Announce.Announcing(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	f, err := c.BGP.FlowSpec.Config()
	targets := map[netip.Addr]bgp.RouteTarget{netip.MustParseAddr("10.9.0.80"): {AS: 65001, Value: 80}, netip.MustParseAddr("10.9.0.81"): {AS: 4200000001, Value: 81}}
	if err != nil || f.Most != 500 || !f.Nested || len(f.Within) != 1 || !reflect.DeepEqual(f.VRFs, targets) {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestBadAnnounceAndFlowSpec(t *testing.T) {
	for text, want := range map[string]string{
		"[bgp.announce]\nvips = [\"10.0.0.1/8\"]":                                            "bgp.announce.vips",
		"[bgp.announce]\ncovers = [\"0.0.0.0/0\"]":                                           "no default route",
		"[bgp.announce]\nprepend = 32":                                                       "prepend 32",
		"[bgp.announce]\npatience = \"0s\"":                                                  "patience is more than none",
		"[bgp.flowspec]\nmost = 65537":                                                       "bgp.flowspec.most",
		"[bgp.flowspec]\nwithin = [\"10.0.0.1/8\"]":                                          "bgp.flowspec.within",
		"[bgp.flowspec]\nvrfs = [{ server = \"10.0.0.1\", route_target = \"65001\" }]":       "want 65001:80",
		"[bgp.flowspec]\nvrfs = [{ server = \"10.0.0.1\", route_target = \"65536:65536\" }]": "behind an AS of four octets",
		"[bgp.flowspec]\nvrfs = [{ server = \"224.0.0.1\", route_target = \"65001:1\" }]":    "want unicast addresses",
	} {
		if _, err := load(t, least+"[bgp]\nas = 1\n"+text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
