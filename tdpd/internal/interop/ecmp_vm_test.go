package interop

import (
	"net/netip"
	"strings"
	"testing"
)

// TestVMTwoNeighborsShare: a route by two next hops, each another neighbor with a label of its own; flows take both. When one of
// the two has no label any more the other carries all; with the route by one next hop and by two again the kernel follows.
func TestVMTwoNeighborsShare(t *testing.T) {
	l := newLine(t, 9, 5, 1) // and the first one has a link to the last one, too
	l.net.Link(l.nodes[0], "x", "10.0.9.1/24", l.nodes[2], "y", "10.0.9.2/24")
	l.nodes[0].Address("x", "fd00:9::1/64")
	l.nodes[2].Address("y", "fd00:9::2/64")
	for _, x := range []struct {
		at int
		to netip.Prefix
		by string
	}{{0, l.host4(2), "10.0.9.2"}, {0, l.host6(2), "fd00:9::2"}, {2, l.host4(0), "10.0.9.1"}, {2, l.host6(0), "fd00:9::1"}} {
		l.run(x.at, "ip", "route", "replace", x.to.String(), "via", x.by, "metric", "20")
	}
	servers := l.servers()
	var all []*ours
	for at := range 3 {
		all = append(all, l.tdpd(at, func(r *role) {
			r.Config.Transport6, r.Config.Labels.First = l.id6(at), 1000*(at+1)
			switch at {
			case 0:
				r.Config.Interfaces = append(r.Config.Interfaces, "x")
			case 2:
				r.Config.Interfaces, r.Config.Servers.Addresses = append(r.Config.Interfaces, "y"), servers
			}
		}))
	}
	all[0].meets(1)
	all[0].meets(2)
	all[1].meets(2)
	for _, server := range servers {
		p := netip.PrefixFrom(server, server.BitLen())
		first, _ := l.towards(0, 1, server.Is4())
		second := netip.MustParseAddr("10.0.9.2")
		if server.Is6() {
			second = netip.MustParseAddr("fd00:9::2")
		}
		hops := func(hops ...netip.Addr) {
			t.Helper()
			l.run(0, "sh", "-c", "ip route del "+p.String()+" metric 20; ip route add "+p.String()+" metric 20"+nexthops(hops))
			l.eventually(func() bool {
				var want []string
				for _, h := range hops {
					at := 1
					if h == second {
						at = 2
					}
					label := all[0].remote(at, p)
					want = append(want, label)
					if label == "" || !strings.Contains(l.run(0, "ip", family(p), "route", "show", p.String(), "proto", "1"), label+" via "+h.String()) {
						return false
					}
				}
				return len(strings.Fields(l.labelled(0, p))) == len(want)
			}, "labels by ", hops)
			l.reaches(0, server)
		}
		hops(first)
		hops(first, second)
		l.bothCarry(server)
		hops(second)
		hops(second, first)
	}
	l.run(1, "ip", "route", "del", servers[0].String(), "metric", "20") // the one in the middle has no way any more
	p := netip.PrefixFrom(servers[0], 32)
	l.eventually(func() bool {
		return all[0].remote(1, p) == "" && l.labelled(0, p) == all[0].remote(2, p)
	}, "the other one carries all")
	l.reaches(0, servers[0])
}

func nexthops(hops []netip.Addr) (text string) {
	for _, h := range hops {
		text += " nexthop via " + h.String()
	}
	return text
}

// bothCarry pings from many addresses, and sees packets on both links.
func (l *line) bothCarry(to netip.Addr) {
	l.t.Helper()
	r, x := l.capture(0, "r", "-Q", "out", "mpls"), l.capture(0, "x", "-Q", "out", "mpls")
	l.eventually(func() bool {
		for n := range 16 {
			from := netip.AddrFrom4([4]byte{10, 77, 0, byte(n + 1)})
			if to.Is6() {
				from = netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x77, 15: byte(n + 1)})
			}
			l.run(0, "ip", "addr", "replace", netip.PrefixFrom(from, from.BitLen()).String(), "dev", "lo", "nodad")
			_, _ = l.nodes[0].Run("ping", "-c", "1", "-W", "0.01", "-I", from.String(), to.String()) // nobody knows the way back
		}
		return strings.Contains(r.Output(), "MPLS") && strings.Contains(x.Output(), "MPLS")
	}, "flows by both")
}
