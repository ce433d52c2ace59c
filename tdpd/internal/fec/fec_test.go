package fec

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
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
	f := New(func(iface string) bool { return iface == "core" }, false)
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
	apply("10.2.0.0/16 gone", routes.Change{Routes: map[netip.Prefix]*routes.Route{p("10.2.0.0/16"): nil}})
	changed, gone = f.SetServers(nil)
	step("10.9.0.80/32 gone", changed, gone)
}

// TestServersOwnHost is the egress of its server, by itself.
func TestServersOwnHost(t *testing.T) {
	f := New(func(string) bool { return true }, false)
	f.SetServers([]netip.Addr{netip.MustParseAddr("10.9.0.80")})
	got := text(f.Apply(routes.Change{Full: true, Interfaces: map[int]*routes.Interface{
		1: {Index: 1, Name: "lo", Up: true, Loopback: true},
		2: {Index: 2, Name: "eth0", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.80/24")}},
	}}))
	if want := "10.9.0.0/24 attached, 10.9.0.80/32 server invalid IP@lo"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestDownLinks: a next hop whose link is down is none while there are others.
func TestDownLinks(t *testing.T) {
	p := netip.MustParsePrefix("10.2.0.0/16")
	f := New(func(string) bool { return true }, false)
	a := &routes.Interface{Index: 2, Name: "a", Up: true}
	b := &routes.Interface{Index: 3, Name: "b", Up: true}
	down := &routes.Interface{Index: 3, Name: "b"}
	for _, step := range []struct {
		want   string
		change routes.Change
	}{
		{"10.2.0.0/16 transit 10.1.0.2@a 10.1.1.2@b", routes.Change{Full: true, Interfaces: map[int]*routes.Interface{2: a, 3: b},
			Routes: map[netip.Prefix]*routes.Route{p: {Hops: []routes.Hop{hop("10.1.0.2", 2), hop("10.1.1.2", 3)}}}}},
		{"10.2.0.0/16 transit 10.1.0.2@a", routes.Change{Interfaces: map[int]*routes.Interface{3: down}}},
		{"10.2.0.0/16 transit 10.1.0.2@a 10.1.1.2@b", routes.Change{Interfaces: map[int]*routes.Interface{3: b}}},
		{"10.2.0.0/16 transit 10.1.1.2@b", routes.Change{Routes: map[netip.Prefix]*routes.Route{p: {Hops: []routes.Hop{hop("10.1.1.2", 3)}}}}},
		{"10.2.0.0/16 transit 10.1.1.2@b", routes.Change{Interfaces: map[int]*routes.Interface{3: down}}},
		{"", routes.Change{Interfaces: map[int]*routes.Interface{7: {Index: 7, Name: "veth7", Up: true}}}},
	} {
		if got := text(f.Apply(step.change)); got != step.want {
			t.Errorf("%s\nwant %s", got, step.want)
		}
	}
}

// TestBlackholes: where packets are dropped there is nothing to lead them to, for a server in there neither.
func TestBlackholes(t *testing.T) {
	all, p := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.9.0.0/24")
	f := New(func(string) bool { return true }, false)
	f.SetServers([]netip.Addr{netip.MustParseAddr("10.9.0.80")})
	via := &routes.Route{Hops: []routes.Hop{hop("10.1.0.2", 2)}}
	got := text(f.Apply(routes.Change{Full: true, Interfaces: map[int]*routes.Interface{2: {Index: 2, Name: "a", Up: true}},
		Routes: map[netip.Prefix]*routes.Route{all: via, p: {Drops: true}}}))
	if want := "0.0.0.0/0 transit 10.1.0.2@a"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	got = text(f.Apply(routes.Change{Routes: map[netip.Prefix]*routes.Route{p: nil}}))
	if want := "10.9.0.80/32 transit 10.1.0.2@a"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// some makes a change at random, of few prefixes and interfaces, so that they meet.
func some(r *rand.Rand) routes.Change {
	c := routes.Change{Routes: map[netip.Prefix]*routes.Route{}, Interfaces: map[int]*routes.Interface{}}
	address := func() netip.Addr { return netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), 0, byte(r.IntN(4))}) }
	for range r.IntN(3) {
		p := netip.PrefixFrom(address(), []int{0, 8, 24, 30, 32}[r.IntN(5)]).Masked()
		if c.Routes[p] = nil; r.IntN(3) == 0 {
			continue
		}
		c.Routes[p] = &routes.Route{Drops: r.IntN(6) == 0}
		for range 1 + r.IntN(2) {
			h := routes.Hop{Interface: 1 + r.IntN(4)}
			if r.IntN(3) > 0 {
				h.Via = address()
			}
			c.Routes[p].Hops = append(c.Routes[p].Hops, h)
		}
	}
	if r.IntN(3) == 0 {
		index := 1 + r.IntN(4)
		if c.Interfaces[index] = nil; r.IntN(4) > 0 {
			i := &routes.Interface{Index: index, Name: fmt.Sprint("eth", r.IntN(5)), Up: r.IntN(3) > 0, Loopback: index == 1}
			for range r.IntN(3) {
				i.Addresses = append(i.Addresses, netip.PrefixFrom(address(), []int{24, 30, 32}[r.IntN(3)]))
			}
			c.Interfaces[index] = i
		}
	}
	return c
}

// TestChangesAddUp: one change after the other, it comes out as if all there is had come at once.
func TestChangesAddUp(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		runs := func(iface string) bool { return iface != "eth3" }
		f, sum := New(runs, seed%2 == 0), map[netip.Prefix]string{}
		var servers []netip.Addr
		take := func(changed []labels.Route, gone []netip.Prefix) {
			for _, route := range changed {
				sum[route.Prefix] = text([]labels.Route{route}, nil)
			}
			for _, p := range gone {
				delete(sum, p)
			}
		}
		take(f.Apply(routes.Change{Full: true, Routes: map[netip.Prefix]*routes.Route{}}))
		for step := range 60 {
			if r.IntN(6) == 0 {
				servers = nil
				for range r.IntN(4) {
					servers = append(servers, netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), 0, byte(r.IntN(4))}))
				}
				take(f.SetServers(servers))
			} else {
				take(f.Apply(some(r)))
			}
			fresh := New(runs, seed%2 == 0)
			fresh.SetServers(servers)
			changed, _ := fresh.Apply(routes.Change{Full: true, Routes: f.Table().Routes, Interfaces: f.Table().Interfaces})
			got, want := slices.Sorted(maps.Values(sum)), []string(nil)
			for _, route := range changed {
				want = append(want, text([]labels.Route{route}, nil))
			}
			if slices.Sort(want); !slices.Equal(got, want) {
				t.Fatalf("seed %d step %d\n%q\nwant\n%q", seed, step, got, want)
			}
		}
	}
}

// BenchmarkRoutes is a batch of 1,000 routes that change while there are 50,000 servers elsewhere.
func BenchmarkRoutes(b *testing.B) {
	f := New(func(string) bool { return true }, false)
	f.Apply(routes.Change{Full: true, Interfaces: map[int]*routes.Interface{2: {Index: 2, Name: "a", Up: true}}})
	var servers []netip.Addr
	for n := range 50_000 {
		servers = append(servers, netip.AddrFrom4([4]byte{11, byte(n >> 16), byte(n >> 8), byte(n)}))
	}
	f.SetServers(servers)
	c := routes.Change{Routes: map[netip.Prefix]*routes.Route{}}
	for n := range 1000 {
		c.Routes[netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(n >> 8), byte(n), 0}), 24)] = &routes.Route{Hops: []routes.Hop{hop("10.0.0.2", 2)}}
	}
	for b.Loop() {
		f.Apply(c)
	}
}
