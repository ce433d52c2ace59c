package fec

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/routes"
)

// text is FECs in few words, and which are none any more.
func text(changed []labels.Route, gone []netip.Prefix) string {
	var out []string
	for _, r := range changed {
		line := fmt.Sprintf("%v %v", r.Prefix, r.Kind)
		for _, h := range r.NextHops {
			line += fmt.Sprintf(" %v@%s", h.Address, h.Interface)
		}
		out = append(out, line)
	}
	for _, p := range gone {
		out = append(out, fmt.Sprintf("%v gone", p))
	}
	return strings.Join(out, ", ")
}

func hop(via string, index int) routes.Hop {
	h := routes.Hop{Interface: index}
	if via != "" {
		h.Via = netip.MustParseAddr(via)
	}
	return h
}

func TestKinds(t *testing.T) {
	p, server := netip.MustParsePrefix, netip.MustParseAddr("10.9.0.80")
	f := New(func(iface string) bool { return iface == "core" })
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
	lo := &routes.Interface{Index: 1, Name: "lo", Up: true, Loopback: true, Addresses: []netip.Prefix{p("127.0.0.1/8"), p("10.0.0.1/32")}}
	core := &routes.Interface{Index: 2, Name: "core", Up: true, Addresses: []netip.Prefix{p("10.1.0.1/24"), p("fe80::1/64")}}
	out := &routes.Interface{Index: 3, Name: "out", Up: true, Addresses: []netip.Prefix{p("10.9.0.1/24")}}
	apply("10.0.0.1/32 attached, 10.1.0.0/24 attached, 10.2.0.0/16 transit 10.1.0.2@core, 10.3.0.0/16 attached, 10.9.0.0/24 attached", routes.Change{
		Full:       true,
		Interfaces: map[int]*routes.Interface{1: lo, 2: core, 3: out},
		Routes: map[netip.Prefix]*routes.Route{
			p("10.1.0.0/24"): {Hops: []routes.Hop{hop("", 2)}}, p("10.9.0.0/24"): {Hops: []routes.Hop{hop("", 3)}},
			p("10.2.0.0/16"): {Hops: []routes.Hop{hop("10.1.0.2", 2)}}, p("10.3.0.0/16"): {Hops: []routes.Hop{hop("10.9.0.9", 3)}},
		},
	})
	changed, gone := f.SetServers([]netip.Addr{server})
	step("10.9.0.80/32 server 10.9.0.80@out", changed, gone)
	// The route leads to another router, with the server behind it.
	apply("10.9.0.0/24 attached, 10.9.0.80/32 transit 10.1.0.2@core", routes.Change{
		Routes: map[netip.Prefix]*routes.Route{p("10.9.0.0/24"): {Hops: []routes.Hop{hop("10.1.0.2", 2)}}},
	})
	apply("10.9.0.80/32 transit 10.1.0.2@core, 10.2.0.0/16 gone", routes.Change{Routes: map[netip.Prefix]*routes.Route{p("10.2.0.0/16"): nil}})
	changed, gone = f.SetServers(nil)
	step("10.9.0.80/32 gone", changed, gone)
}

// TestServersOwnHost is the egress of its server, by itself.
func TestServersOwnHost(t *testing.T) {
	f := New(func(string) bool { return true })
	f.SetServers([]netip.Addr{netip.MustParseAddr("10.9.0.80")})
	got := text(f.Apply(routes.Change{Full: true, Interfaces: map[int]*routes.Interface{
		1: {Index: 1, Name: "lo", Up: true, Loopback: true},
		2: {Index: 2, Name: "eth0", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.80/24")}},
	}}))
	if want := "10.9.0.0/24 attached, 10.9.0.80/32 server invalid IP@lo"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
