package fastpath

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

// nat is users of one address - a router with a narrow link to them - edge - two servers. What the servers send at first is too long for that
// link: the router says so to the VIP, and the edge has to find out to which of them.
type nat struct {
	*chain
	router  *testnet.Node
	servers map[string]*testnet.Node
	flows   *steer.Plan
}

func newNAT(t *testing.T) *nat {
	n := testnet.New(t)
	c := &nat{
		chain:   &chain{t: t, user: n.Node("u"), edge: n.Node("e"), of: map[*testnet.Node]*Fastpath{}},
		router:  n.Node("n"),
		servers: map[string]*testnet.Node{"s1": n.Node("s1"), "s2": n.Node("s2")},
		flows:   plan(t, map[steer.Owner]string{1: "0.0.0.0/0.0.0.1", 2: "0.0.0.1/0.0.0.1"}),
	}
	link := func(a *testnet.Node, ifa string, b *testnet.Node, net int) {
		n.Link(a, ifa, fmt.Sprintf("10.%d.0.1/24", net), b, "up", fmt.Sprintf("10.%d.0.2/24", net))
		a.Address(ifa, fmt.Sprintf("2001:db8:%d::1/64", net))
		b.Address("up", fmt.Sprintf("2001:db8:%d::2/64", net))
	}
	link(c.user, "down", c.router, 1)
	link(c.router, "down", c.edge, 2)
	for i, name := range []string{"s1", "s2"} {
		s := c.servers[name]
		link(c.edge, name, s, 3+i)
		s.Route("0.0.0.0/0", fmt.Sprintf("10.%d.0.1", 3+i))
		s.Route("::/0", fmt.Sprintf("2001:db8:%d::1", 3+i))
		s.Address("lo", vip4.String()+"/32")
		s.Address("lo", vip6.String()+"/128")
		c.may(s.TakesXDP("up"))
	}
	for _, r := range []*testnet.Node{c.router, c.edge} {
		r.Sysctl("net.ipv4.ip_forward", "1")
		r.Sysctl("net.ipv6.conf.all.forwarding", "1")
	}
	c.router.Route("0.0.0.0/0", "10.2.0.2")
	c.router.Route("::/0", "2001:db8:2::2")
	c.edge.Route("10.1.0.0/24", "10.2.0.1")
	c.edge.Route("2001:db8:1::/64", "2001:db8:2::1")
	c.run(c.router, "ip", "link", "set", "dev", "up", "mtu", "1300")
	c.run(c.user, "ip", "route", "add", "default", "via", "10.1.0.2", "mtu", "1300", "advmss", "1460")
	c.run(c.user, "ip", "-6", "route", "add", "default", "via", "2001:db8:1::2", "mtu", "1300", "advmss", "1440")
	c.may(c.router.WholeChecksums("down"))
	c.may(c.router.TakesXDP("down"))

	s := State{Trees: map[steer.Owner][]Hop{1: {c.hopTo("s1")}, 2: {c.hopTo("s2")}}}
	s.VIPs = map[netip.Addr]*steer.Plan{vip4: c.flows, vip6: c.flows}
	split := vips.Split{Prefixes: steer.Split{netip.MustParsePrefix("10.1.0.1/32"), netip.MustParsePrefix("2001:db8:1::/64")}, Plan: c.flows}
	s.Split = map[netip.Addr]vips.Split{vip4: split, vip6: split}
	c.fast(c.edge, Edge, s)
	return c
}

func (c *nat) may(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *nat) run(n *testnet.Node, args ...string) {
	c.t.Helper()
	if out, err := n.Run(args...); err != nil {
		c.t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// hopTo is from the edge to a server, without a label.
func (c *nat) hopTo(server string) (h Hop) {
	h.How = Bare
	c.do(c.edge, func() error {
		i, err := net.InterfaceByName(server)
		if err == nil {
			h.Interface, h.From, h.MTU = i.Index, i.HardwareAddr, i.MTU
		}
		return err
	})
	c.do(c.servers[server], func() error {
		i, err := net.InterfaceByName("up")
		if err == nil {
			h.To = i.HardwareAddr
		}
		return err
	})
	return h
}

// answerWith has the servers answer what came with their name, its sum, and as much again.
func (c *nat) answerWith(address string) {
	for name, s := range c.servers {
		s.Serve(address, func(conn net.Conn) {
			data, _ := io.ReadAll(conn) // the user sees what is missing
			fmt.Fprintf(conn, "%s %x ", name, sha256.Sum256(data))
			conn.Write(data)
		})
	}
}

// exchange sends bytes and takes as many: by which server, and from which port.
func (c *nat) exchange(address string) (server string, from netip.AddrPort, err error) {
	var conn net.Conn
	if err := c.user.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", address, 5*time.Second)
		return err
	}); err != nil {
		return "", from, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", from, err
	}
	from = conn.LocalAddr().(*net.TCPAddr).AddrPort()
	data := bytes.Repeat([]byte(from.String()), 20_000)
	if _, err := conn.Write(data); err != nil {
		return "", from, err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return "", from, err
	}
	answer, err := io.ReadAll(conn)
	server, rest, _ := strings.Cut(string(answer), " ")
	if want := fmt.Sprintf("%x %s", sha256.Sum256(data), data); err == nil && rest != want {
		err = fmt.Errorf("%d bytes of %s, want %d: not what was sent", len(rest), server, len(want))
	}
	return server, from, err
}

// TestNetUsersBehindANAT: connections from one address go to two servers, each as a whole, and so does what routers say of their packets.
func TestNetUsersBehindANAT(t *testing.T) {
	c := newNAT(t)
	for _, address := range []string{vip4.String() + ":80", "[" + vip6.String() + "]:80"} {
		c.answerWith(address)
		var mu sync.Mutex
		var all sync.WaitGroup
		served := map[string]int{}
		for range 32 {
			all.Go(func() {
				server, from, err := c.exchange(address)
				if err != nil {
					t.Errorf("%v: %v", from, err)
					return
				}
				if want := fmt.Sprintf("s%d", c.flows.Lookup(steer.Flow(from))); server != want {
					t.Errorf("%v was %s's, want %s", from, server, want)
				}
				mu.Lock()
				defer mu.Unlock()
				served[server]++
			})
		}
		all.Wait()
		if served["s1"] == 0 || served["s2"] == 0 || served["s1"]+served["s2"] != 32 {
			t.Errorf("%s: %v", address, served)
		}
	}
	for name, s := range c.servers {
		if out, err := s.Run("ip", "route", "get", "10.1.0.1"); err != nil || !strings.Contains(out, "mtu 1300") {
			t.Errorf("%s was not told that its packets are too long: %v\n%s", name, err, out)
		}
		if out, err := s.Run("ip", "-6", "route", "get", "2001:db8:1::1"); err != nil || !strings.Contains(out, "mtu 1300") {
			t.Errorf("%s was not told that its packets of IPv6 are too long: %v\n%s", name, err, out)
		}
	}
}
