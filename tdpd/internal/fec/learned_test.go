package fec

import (
	"net/netip"
	"testing"

	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/routes"
)

func TestLearnedPrefixes(t *testing.T) {
	p, addr := netip.MustParsePrefix, netip.MustParseAddr
	f := New(func(iface string) bool { return iface == "core" }, false)
	core := &routes.Interface{Index: 2, Name: "core", Up: true, Addresses: []netip.Prefix{p("10.1.0.1/24")}}
	out := &routes.Interface{Index: 3, Name: "out", Up: true, Addresses: []netip.Prefix{p("10.9.0.1/24")}}
	step := func(want string, changed []labels.Route, gone []netip.Prefix) {
		t.Helper()
		if got := text(changed, gone); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	apply := func(want string, c routes.Change) {
		t.Helper()
		changed, gone := f.Apply(c)
		step(want, changed, gone)
	}
	learn := func(want string, news map[netip.Prefix]Learned) {
		t.Helper()
		changed, gone := f.Learn(news)
		step(want, changed, gone)
	}
	bgp := addr("10.1.0.2")
	learn("", map[netip.Prefix]Learned{p("10.5.0.5/32"): {bgp, true}, p("10.6.0.0/16"): {addr("10.7.7.7"), false}, p("10.8.0.0/16"): {addr("10.7.7.7"), true}})
	apply("10.1.0.0/24 attached, 10.5.0.5/32 transit 10.1.0.2@core, 10.9.0.0/24 attached", routes.Change{Full: true,
		Interfaces: map[int]*routes.Interface{2: core, 3: out},
		Routes:     map[netip.Prefix]*routes.Route{p("10.1.0.0/24"): {Hops: []routes.Hop{hop("", 2)}}, p("10.9.0.0/24"): {Hops: []routes.Hop{hop("", 3)}}},
	})
	// A route to the far router of two: the one with a label of its own is behind others, who do not know it.
	apply("10.6.0.0/16 transit 10.1.0.9@core, 10.7.0.0/16 transit 10.1.0.9@core", routes.Change{Routes: map[netip.Prefix]*routes.Route{p("10.7.0.0/16"): {Hops: []routes.Hop{hop("10.1.0.9", 2)}}}})
	apply("10.7.0.0/16 attached, 10.6.0.0/16 gone", routes.Change{Routes: map[netip.Prefix]*routes.Route{p("10.7.0.0/16"): {Hops: []routes.Hop{hop("10.9.0.9", 3)}}}})
	// The kernel's own route goes before.
	apply("10.5.0.5/32 transit 10.1.0.3@core", routes.Change{Routes: map[netip.Prefix]*routes.Route{p("10.5.0.5/32"): {Hops: []routes.Hop{hop("10.1.0.3", 2)}}}})
	apply("10.5.0.5/32 transit 10.1.0.2@core", routes.Change{Routes: map[netip.Prefix]*routes.Route{p("10.5.0.5/32"): nil}})
	// A server is learned, more specific than the route to it.
	apply("10.5.0.0/16 transit 10.1.0.3@core", routes.Change{Routes: map[netip.Prefix]*routes.Route{p("10.5.0.0/16"): {Hops: []routes.Hop{hop("10.1.0.3", 2)}}}})
	step("10.5.0.5/32 transit 10.1.0.2@core", onlyChanged(f.SetServers([]netip.Addr{addr("10.5.0.5")})), nil)
	learn("10.5.0.5/32 transit 10.1.0.3@core", map[netip.Prefix]Learned{p("10.5.0.5/32"): {}})
	learn("", map[netip.Prefix]Learned{p("10.1.0.0/25"): {addr("10.2.2.2"), true}}) // nobody knows the way
	learn("10.1.0.0/24 attached", map[netip.Prefix]Learned{p("10.1.0.0/24"): {bgp, true}})
	apply("10.5.0.0/16 attached, 10.5.0.5/32 attached, 10.1.0.0/24 gone", routes.Change{Interfaces: map[int]*routes.Interface{2: nil}, Routes: map[netip.Prefix]*routes.Route{p("10.1.0.0/24"): nil}})
	if learn("", map[netip.Prefix]Learned{p("10.1.0.0/24"): {}, p("10.6.0.0/16"): {}, p("10.8.0.0/16"): {}, p("10.1.0.0/25"): {}}); len(f.learned)+len(f.vias) != 0 {
		t.Errorf("%d prefixes and %d routers are left", len(f.learned), len(f.vias))
	}
}

func onlyChanged(changed []labels.Route, _ []netip.Prefix) []labels.Route { return changed }
