package kernel

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

func TestWays(t *testing.T) {
	prefix, address := netip.MustParsePrefix, netip.MustParseAddr
	one, two, linkLocal := address("10.0.0.1"), address("10.0.0.2"), address("fe80::1")
	by := func(p string, metric int, hops ...hop) route { return route{prefix(p), metric, hops} }
	way := func(a netip.Addr, all ...hop) wayMapValue {
		w := wayMapValue{Hops: nameOf(all)}
		if a.IsValid() {
			w.Hop = a.As16()
		}
		return w
	}
	link := netip.Addr{}
	for what, tt := range map[string]struct {
		routes []route
		want   map[prefixMapKey]wayMapValue
	}{
		"the shorter metric's": {
			[]route{by("10.0.0.0/8", 100, hop{7, two}), by("10.0.0.0/8", 0, hop{7, one})},
			map[prefixMapKey]wayMapValue{newPrefix(7, prefix("10.0.0.0/8")): way(one, hop{7, one})},
		},
		"what leads where a shorter prefix does is left out": {
			[]route{by("10.1.2.0/24", 0, hop{7, one}), by("0.0.0.0/0", 0, hop{7, one}), by("10.1.0.0/16", 0, hop{7, one}), by("10.9.0.0/16", 0, hop{7, link})},
			map[prefixMapKey]wayMapValue{newPrefix(7, prefix("0.0.0.0/0")): way(one, hop{7, one}), newPrefix(7, prefix("10.9.0.0/16")): way(link, hop{7, link})},
		},
		"but not what a longer one between leads elsewhere": {
			[]route{by("10.1.2.0/24", 0, hop{7, one}), by("0.0.0.0/0", 0, hop{7, one}), by("10.1.0.0/16", 0, hop{7, two})},
			map[prefixMapKey]wayMapValue{
				newPrefix(7, prefix("0.0.0.0/0")): way(one, hop{7, one}), newPrefix(7, prefix("10.1.0.0/16")): way(two, hop{7, two}),
				newPrefix(7, prefix("10.1.2.0/24")): way(one, hop{7, one}),
			},
		},
		"each interface has its own, and others have none": {
			[]route{by("10.0.0.0/8", 0, hop{7, one}), by("10.0.0.0/8", 1, hop{8, two}), by("10.0.0.0/8", 2, hop{9, two})},
			map[prefixMapKey]wayMapValue{newPrefix(7, prefix("10.0.0.0/8")): way(one, hop{7, one}), newPrefix(8, prefix("10.0.0.0/8")): way(two, hop{8, two})},
		},
		"of several hops the first, named by all in any order": {
			[]route{by("2001:db8::/32", 0, hop{7, linkLocal}, hop{7, two}), by("2001:db8:1::/48", 0, hop{7, two}, hop{7, linkLocal})},
			map[prefixMapKey]wayMapValue{
				newPrefix(7, prefix("2001:db8::/32")):   way(linkLocal, hop{7, linkLocal}, hop{7, two}),
				newPrefix(7, prefix("2001:db8:1::/48")): way(two, hop{7, linkLocal}, hop{7, two}),
			},
		},
	} {
		t.Run(what, func(t *testing.T) {
			if got := waysOf(tt.routes, map[int]bool{7: true, 8: true}); !maps.Equal(got, tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// newLink is a user and two servers that a switch joins, without a router between; the user leads the VIP to s1.
func newLink(t testing.TB) *path {
	t.Helper()
	p := newNodes(t)
	for _, leaf := range []struct {
		node      *testnet.Node
		port      string
		addresses []string
	}{
		{p.user, "users", []string{"10.1.0.7/24", "2001:db8:1::7/64"}},
		{p.s1, "s1", []string{"10.2.0.3/24", "2001:db8:2::3/64"}},
		{p.s2, "s2", []string{"10.3.0.4/24", "2001:db8:3::4/64"}},
	} {
		p.net.Link(leaf.node, "eth0", "", p.router, leaf.port, "")
		for _, a := range leaf.addresses {
			leaf.node.Address("eth0", a)
		}
	}
	p.router.Bridge("br0", false, "users", "s1", "s2")
	for _, family := range [][]string{{"10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"}, {"2001:db8:1::/64", "2001:db8:2::/64", "2001:db8:3::/64"}} {
		p.ip(p.user, "route", "add", family[1], "dev", "eth0") // of scope link, as next hops have to be
		p.s1.Route(family[0], "eth0")
		p.s2.Route(family[0], "eth0")
	}
	p.user.Route("192.0.2.80/32", "10.2.0.3")
	p.user.Route("2001:db8::80/128", "2001:db8:2::3")
	return p
}

// ways are those that the user of a link may have to s2, where the VIP's next hop is s1.
var ways = map[string]func(p *path){
	"on the link": func(p *path) {
		p.user.Route("10.3.0.0/24", "eth0")
		p.user.Route("2001:db8:3::/64", "eth0")
	},
	"on the link, the VIP by a table of its own": func(p *path) {
		p.user.Route("10.3.0.0/24", "eth0")
		p.user.Route("2001:db8:3::/64", "eth0")
		for family, to := range map[string][2]string{"-4": {"192.0.2.80", "10.2.0.3"}, "-6": {"2001:db8::80", "2001:db8:2::3"}} {
			p.ip(p.user, family, "route", "add", to[0], "via", to[1], "table", "100")
			p.ip(p.user, family, "rule", "add", "to", to[0], "lookup", "100")
			p.ip(p.user, family, "route", "del", to[0])
		}
	},
	"behind a router": func(p *path) {
		p.routes()
		p.user.Route("10.3.0.0/24", "10.1.0.1")
		p.user.Route("2001:db8:3::/64", "2001:db8:1::1")
	},
	"behind several": func(p *path) {
		p.routes()
		p.router.Address("br0", "10.1.0.2/24")
		p.router.Address("br0", "fe80::2/64")
		p.ip(p.user, "route", "add", "10.3.0.0/24", "nexthop", "via", "10.1.0.1", "nexthop", "via", "10.1.0.2")
		p.ip(p.user, "route", "add", "2001:db8:3::/64", "nexthop", "via", "2001:db8:1::1", "nexthop", "via", "fe80::2", "dev", "eth0")
	},
	"behind a router of IPv6": func(p *path) { // RFC 5549
		p.routes()
		p.ip(p.user, "route", "add", "10.3.0.0/24", "via", "inet6", "2001:db8:1::1", "dev", "eth0")
		p.user.Route("2001:db8:3::/64", "2001:db8:1::1")
	},
}

// routes has the switch be a router as well, which s2 is behind.
func (p *path) routes() {
	p.router.Address("br0", "10.1.0.1/24")
	p.router.Address("br0", "2001:db8:1::1/64")
	p.router.Sysctl("net.ipv4.ip_forward", "1")
	p.router.Sysctl("net.ipv6.conf.all.forwarding", "1")
	p.router.Route("10.3.0.0/24", "br0")
	p.router.Route("2001:db8:3::/64", "br0")
}

func (p *path) ip(node *testnet.Node, args ...string) {
	p.t.Helper()
	if out, err := node.Run(append([]string{"ip"}, args...)...); err != nil {
		p.t.Fatalf("ip: %v: %s", err, out)
	}
}

// A connection that moves away from the VIP's next hop is followed there: by the next hop of where it is.
func TestNetMoveFromTheNextHop(t *testing.T) {
	for name, e := range families {
		for where, to2 := range ways {
			t.Run(name+" "+where, func(t *testing.T) {
				p := newLink(t)
				to2(p)
				client, one, two := p.client(), p.server(p.s1), p.server(p.s2)
				wire := p.tap(p.user, "eth0")
				c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
				p.echo(c)
				p.moveToS2(client, one, two, &c)
				p.echo(c)
				p.upload(c)
				n := clientCounters(t, client)
				if sent := wire.sent(c, e.vip); n.Sent != sent || n.Failed != 0 {
					t.Errorf("%d segments left for a server, counted are %+v", sent, n)
				}
			})
		}
	}
}

// All fragments of a segment go to where its connection is, and none to the VIP's next hop, which is another server.
func TestNetFragmentsBesideTheNextHop(t *testing.T) {
	for where, to2 := range ways {
		t.Run(where, func(t *testing.T) {
			p := newLink(t)
			to2(p)
			client, one, two := p.client(), p.server(p.s1), p.server(p.s2)
			e := families["IPv4"]
			c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
			p.echo(c)
			p.moveToS2(client, one, two, &c)
			p.echo(c)
			const each = 5
			for id := range uint16(each) {
				p.sendCut(c.flow(), 1+id)
			}
			testnet.Eventually(t, 5*time.Second, func() bool { return reassembled(t, p.s2, "IpReasmOKs") == each }, "s2 has all fragments")
			if n := reassembled(t, p.s1, "IpReasmReqds"); n > 0 {
				t.Errorf("s1 has %d fragments", n)
			}
			p.echo(c)
		})
	}
}

// sendCut sends a segment of a flow's user, an old one, as three fragments.
func (p *path) sendCut(f Flow, id uint16) {
	p.t.Helper()
	segment := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, f.User.Port()), f.VIP.Port())
	segment = append(segment, 0, 0, 0, 1, 0, 0, 0, 1, 5<<4, 0x10, 0, 1, 0, 0, 0, 0) // ACK
	const each = 24                                                                 // the first one has the whole header of TCP
	segment = append(segment, make([]byte, 2*each+4)...)
	err := p.user.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for offset := 0; offset < len(segment) && err == nil; offset += each {
			header := []byte{4<<4 | 5, 0, 0, 0, byte(id >> 8), byte(id), 0, byte(offset / 8), 64, unix.IPPROTO_TCP, 0, 0} // the kernel adds length and checksum
			if offset+each < len(segment) {
				header[6] = 0x20 // more follow
			}
			packet := slices.Concat(header, f.User.Addr().AsSlice(), f.VIP.Addr().AsSlice(), segment[offset:min(offset+each, len(segment))])
			err = unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: f.VIP.Addr().As4()})
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// reassembled is a counter of a node's reassembly.
func reassembled(t *testing.T, node *testnet.Node, name string) (n int) {
	t.Helper()
	out, err := node.Run("nstat", "-asz", name)
	_, counted, _ := strings.Cut(out, name)
	if _, e := fmt.Sscan(counted, &n); err != nil || e != nil {
		t.Fatalf("%v, %v: %s", err, e, out)
	}
	return n
}

// moveToS2 takes a connection from s1 to s2, and tells the user.
func (p *path) moveToS2(client Client, one, two Server, c *pair) {
	p.t.Helper()
	to := families["IPv4"].s2
	if c.flow().VIP.Addr().Is6() {
		to = families["IPv6"].s2
	}
	h := p.held(one, *c)
	h.Sequence, h.Heard, h.Destination = 1, false, to
	if err := one.Follow([]Flow{c.flow()}); err != nil {
		p.t.Fatal(err)
	}
	p.nft(p.s1, silent)
	c.server = p.carry(c.server, p.s2, func(fd int) error { return two.Adopt(fd, h) })
	if err := client.SetDestination(c.flow(), h.Cookie, to, h.Sequence); err != nil {
		p.t.Fatal(err)
	}
}

// sent counts the segments of a connection's user that left for other places than the VIP.
func (w *tap) sent(c pair, vip netip.AddrPort) (n uint64) {
	for _, s := range w.segments() {
		if s.src == c.flow().User && s.dst != vip {
			n++
		}
	}
	return n
}

// upload sends more than a segment holds: offload has it in large ones.
func (p *path) upload(c pair) {
	p.t.Helper()
	const size = 4 << 20
	deadline := time.Now().Add(20 * time.Second)
	c.user.SetDeadline(deadline)
	c.server.SetDeadline(deadline)
	failed := make(chan error, 1)
	go func() {
		_, err := c.user.Write(make([]byte, size))
		failed <- err
	}()
	if n, err := io.CopyN(io.Discard, c.server, size); err != nil {
		p.t.Fatalf("%d bytes of %d: %v", n, size, err)
	}
	if err := <-failed; err != nil {
		p.t.Fatal(err)
	}
}

// A connection that another server than the next hop has answered is there from what ends the handshake on.
func TestNetHandshakeBesideTheNextHop(t *testing.T) {
	for where, to2 := range ways {
		t.Run(where, func(t *testing.T) {
			p := newLink(t)
			to2(p)
			e := families["IPv4"]
			client := p.client()
			p.server(p.s1)
			server := p.server(p.s2)
			var mac net.HardwareAddr
			err := p.s2.Do(func() error {
				link, err := net.InterfaceByName("eth0")
				if err == nil {
					mac = link.HardwareAddr
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			p.nft(p.router, fmt.Sprintf("add table bridge m; add chain bridge m p { type filter hook prerouting priority -300; }; "+
				"add rule bridge m p tcp flags & (syn | ack) == syn ether daddr set %s", mac)) // as a server that sends first segments on
			c := p.connect(e.vip, p.listen(p.s2, e.vip.String()))
			p.echo(c)
			if is, h := connectionOf(t, client, c.flow()), p.held(server, c); is.Destination != e.s2 || !h.Heard {
				t.Errorf("the user's host has %+v, the server %+v", is, h)
			}
		})
	}
}

// Ways change with the routes. Where the interface leads to no server, segments go on to the VIP's next hop: here a server that is a router, too.
func TestNetWaysFollowRoutes(t *testing.T) {
	p := newLink(t)
	e := families["IPv4"]
	c := p.client().(*client)
	leads := func() bool {
		var way wayMapValue
		return c.objects.Ways.Lookup(newPrefix(uint32(p.index()), netip.PrefixFrom(e.s2.Addr(), 32)), &way) == nil
	}
	if leads() {
		t.Error("there is a way before there is a route")
	}
	p.user.Route("10.3.0.0/24", "eth0")
	testnet.Eventually(t, 20*time.Second, leads, "a way with the route")
	p.ip(p.user, "route", "del", "10.3.0.0/24")
	testnet.Eventually(t, 20*time.Second, func() bool { return !leads() }, "none without it")
	server := p.server(p.s2)
	p.s1.Sysctl("net.ipv4.ip_forward", "1")
	p.s1.Sysctl("net.ipv4.conf.all.send_redirects", "0")
	p.s1.Sysctl("net.ipv4.conf.eth0.send_redirects", "0")
	p.s1.Route("10.3.0.0/24", "eth0")
	one := p.server(p.s1)
	pair := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
	p.echo(pair)
	p.moveToS2(c, one, server, &pair)
	p.echo(pair)
	p.user.Route("10.3.0.0/24", "eth0")
	p.s1.Sysctl("net.ipv4.ip_forward", "0")
	p.echo(pair)
}

// index is that of the user's interface.
func (p *path) index() (index int) {
	p.t.Helper()
	err := p.user.Do(func() error {
		link, err := net.InterfaceByName("eth0")
		if err == nil {
			index = link.Index
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return index
}
