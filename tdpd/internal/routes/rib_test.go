package routes

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"

	"github.com/manycast/manycast/tdpd/internal/rtnl"
	"golang.org/x/sys/unix"
)

func route(prefix string, metric uint32, hops ...string) rtnl.Route {
	r := rtnl.Route{Prefix: netip.MustParsePrefix(prefix), Metric: metric, Protocol: 4, Type: unix.RTN_UNICAST, Table: unix.RT_TABLE_MAIN}
	for _, h := range hops {
		r.Hops = append(r.Hops, rtnl.Hop{Via: netip.MustParseAddr(h), Interface: 2})
	}
	return r
}

// hole drops packets.
func hole(prefix string, metric uint32) rtnl.Route {
	r := route(prefix, metric)
	r.Type, r.Hops = unix.RTN_BLACKHOLE, []rtnl.Hop{{}}
	return r
}

func TestBestRoutesAreTold(t *testing.T) {
	const p, p6 = "192.0.2.0/24", "2001:db8::/32"
	create, replace := uint16(unix.NLM_F_CREATE), uint16(unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	r := newRIB(77)
	for _, step := range []struct {
		what string
		do   func()
		want string // "-": nothing new
	}{
		{"the first", func() { r.add(route(p, 20, "10.0.0.1")) }, "20 10.0.0.1"},
		{"told again", func() { r.changed(route(p, 20, "10.0.0.1"), create) }, "-"},
		{"a worse one", func() { r.changed(route(p, 30, "10.0.0.3"), create) }, "-"},
		{"in its place, with two hops", func() { r.changed(route(p, 20, "10.0.0.2", "10.0.0.1"), replace) }, "20 10.0.0.1 10.0.0.2"},
		{"gone: the worse one", func() { r.gone(route(p, 20, "10.0.0.2", "10.0.0.1")) }, "30 10.0.0.3"},
		{"ours", func() { o := route(p, 1, "10.0.0.9"); o.Protocol = 77; r.changed(o, create) }, "-"},
		{"another table's", func() { o := route(p, 1, "10.0.0.9"); o.Table = 100; r.changed(o, create) }, "-"},
		{"read again, the same", func() { r.reset(); r.add(route(p, 30, "10.0.0.3")) }, "-"},
		{"read again, none", func() { r.reset() }, "gone"},
		{"IPv6", func() { r.changed(route(p6, 1024, "fd00::1"), create) }, "1024 fd00::1"},
		{"IPv6, one more hop", func() { r.changed(route(p6, 1024, "fd00::1", "fd00::2"), create) }, "1024 fd00::1 fd00::2"},
		{"IPv6, one hop less", func() { r.gone(route(p6, 1024, "fd00::1")) }, "1024 fd00::2"},
		{"IPv6, a blackhole in its place", func() { r.changed(hole(p6, 1024), replace) }, "1024 drops"},
		{"IPv6, none", func() { r.gone(hole(p6, 1024)) }, "gone"},
		{"one more", func() { r.changed(route(p, 20, "10.0.0.1"), create) }, "20 10.0.0.1"},
		{"a worse blackhole", func() { r.changed(hole(p, 30), create) }, "-"},
		{"a better one", func() { r.changed(hole(p, 10), create) }, "10 drops"},
		{"the worse one goes", func() { r.gone(hole(p, 30)) }, "-"},
		{"and the better", func() { r.gone(hole(p, 10)) }, "20 10.0.0.1"},
		{"and all", func() { r.gone(route(p, 20, "10.0.0.1")) }, "gone"},
	} {
		step.do()
		told, got := map[netip.Prefix]*Route{}, "-"
		r.take(told)
		for best := range maps.Values(told) {
			if got = "gone"; best != nil {
				got = fmt.Sprint(best.Metric)
				if best.Drops {
					got += " drops"
				}
				for _, h := range best.Hops {
					got += " " + h.Via.String()
				}
			}
		}
		if got != step.want || len(told) > 1 {
			t.Errorf("%s: %s, want %s", step.what, got, step.want)
		}
	}
	if len(r.routes) != 0 || len(r.best) != 0 {
		t.Errorf("left: %v %v", r.routes, r.best)
	}
}

func TestWhatIsNotTakenIsMerged(t *testing.T) {
	p, q := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.3.0/24")
	on := &Route{Hops: []Hop{{Interface: 2}}}
	var c Change
	for _, later := range []Change{
		{Full: true, Routes: map[netip.Prefix]*Route{p: on}, Interfaces: map[int]*Interface{2: {Index: 2, Up: true}}},
		{Routes: map[netip.Prefix]*Route{p: nil, q: on}},
	} {
		c.merge(later)
	}
	var table Table
	table.Apply(c)
	if ifindex, ok := table.OnLink(netip.MustParseAddr("192.0.3.7")); !c.Full || len(c.Routes) != 1 || !ok || ifindex != 2 {
		t.Errorf("%+v: on link by %d, %v", c, ifindex, ok)
	}
	if _, ok := table.OnLink(netip.MustParseAddr("192.0.2.7")); ok {
		t.Error("a host without a route is on a link")
	}
}

// TestMuchIsToldInParts: they add up to the same, and all that there is at first is one.
func TestMuchIsToldInParts(t *testing.T) {
	c, on := newChange(false), &Route{Hops: []Hop{{Interface: 2}}}
	c.Interfaces[2] = &Interface{Index: 2}
	for n := range 2*atOnce + 1 {
		c.Routes[netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(n >> 16), byte(n >> 8), byte(n)}), 32)] = on
	}
	all := maps.Clone(c.Routes)
	var table Table
	for _, want := range []int{atOnce, atOnce, 1, 0} {
		part := c.cut()
		if len(part.Routes) != want || want == atOnce && len(table.Interfaces)+len(part.Interfaces) != 1 {
			t.Errorf("%d routes, want %d; %d interfaces", len(part.Routes), want, len(part.Interfaces))
		}
		table.Apply(part)
	}
	if !maps.Equal(table.Routes, all) || !c.empty() {
		t.Error("the parts are not the whole")
	}
	c = Change{Full: true, Routes: all}
	if part := c.cut(); len(part.Routes) != len(all) || !part.Full {
		t.Errorf("at first %d routes of %d", len(part.Routes), len(all))
	}
}
