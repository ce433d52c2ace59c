package fastpath

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/internal/testnet"
)

// chain is user - edge - core - last - server, without MPLS in the kernel: the edge pushes 100, the core swaps it for 200, the last router
// pops it and gives the packet to the server, which has the VIP. The edge alone has a route to the VIP: what is not on the tree gets nowhere.
type chain struct {
	t                              *testing.T
	user, edge, core, last, server *testnet.Node
	of                             map[*testnet.Node]*Fastpath
}

func newChain(t *testing.T) *chain {
	n := testnet.New(t)
	c := &chain{t: t, user: n.Node("u"), edge: n.Node("e"), core: n.Node("c"), last: n.Node("l"), server: n.Node("s"), of: map[*testnet.Node]*Fastpath{}}
	nodes := []*testnet.Node{c.user, c.edge, c.core, c.last, c.server}
	for i := range 4 {
		n.Link(nodes[i], "down", fmt.Sprintf("10.%d.0.1/24", i+1), nodes[i+1], "up", fmt.Sprintf("10.%d.0.2/24", i+1))
		nodes[i].Address("down", fmt.Sprintf("2001:db8:%d::1/64", i+1))
		nodes[i+1].Address("up", fmt.Sprintf("2001:db8:%d::2/64", i+1))
	}
	c.user.Address("down", "10.1.0.11/24")
	for _, r := range nodes[1:4] {
		r.Sysctl("net.ipv4.ip_forward", "1")
		r.Sysctl("net.ipv6.conf.all.forwarding", "1")
		r.Sysctl("net.ipv4.conf.all.rp_filter", "0")
	}
	for _, r := range []struct {
		node     *testnet.Node
		dst, via string
	}{
		{c.user, "0.0.0.0/0", "10.1.0.2"}, {c.user, "::/0", "2001:db8:1::2"},
		{c.edge, vip4.String() + "/32", "10.2.0.2"}, {c.core, "10.1.0.0/24", "10.2.0.1"}, {c.core, "2001:db8:1::/64", "2001:db8:2::1"},
		{c.last, "10.1.0.0/24", "10.3.0.1"}, {c.last, "2001:db8:1::/64", "2001:db8:3::1"},
		{c.server, "0.0.0.0/0", "10.4.0.1"}, {c.server, "::/0", "2001:db8:4::1"},
	} {
		r.node.Route(r.dst, r.via)
	}
	c.server.Address("lo", vip4.String()+"/32")
	c.server.Address("lo", vip6.String()+"/128")
	c.user.Address("down", "2001:db8:1::11/64")
	if err := errors.Join(c.user.WholeChecksums("down"), c.user.TakesXDP("down"), c.server.TakesXDP("up")); err != nil {
		t.Fatal(err)
	}

	p := plan(t, map[steer.Owner]string{1: "0.0.0.0/0.0.0.0"})
	c.fast(c.edge, Edge, State{VIPs: map[netip.Addr]*steer.Plan{vip4: p, vip6: p}, Trees: map[steer.Owner][]Hop{1: {c.hop(c.edge, c.core, Label, 100)}}})
	c.fast(c.core, Core, State{Labels: map[uint32][]Hop{100: {c.hop(c.core, c.last, Label, 200)}}})
	c.fast(c.last, Core, State{Labels: map[uint32][]Hop{200: {c.hop(c.last, c.server, Bare, 0)}}})
	return c
}

func (c *chain) do(n *testnet.Node, f func() error) {
	c.t.Helper()
	if err := n.Do(f); err != nil {
		c.t.Fatal(err)
	}
}

// fast gives a node a fast path, on its interface toward the user.
func (c *chain) fast(n *testnet.Node, side Side, s State) {
	c.t.Helper()
	f := open(c.t)
	c.of[n] = f
	set(c.t, f, s)
	c.do(n, func() error {
		i, err := net.InterfaceByName("up")
		if err != nil {
			return err
		}
		if err := f.Attach(i.Index, side); err != nil {
			return err
		}
		if !IsNative(i.Index) {
			return errors.New("veth has native XDP, but it was not used")
		}
		return nil
	})
}

// hop is from a node down to the next one.
func (c *chain) hop(from, to *testnet.Node, how How, label uint32) (h Hop) {
	h.How, h.Label = how, label
	c.do(from, func() error {
		i, err := net.InterfaceByName("down")
		if err == nil {
			h.Interface, h.From, h.MTU = i.Index, i.HardwareAddr, i.MTU
		}
		return err
	})
	c.do(to, func() error {
		i, err := net.InterfaceByName("up")
		if err == nil {
			h.To = i.HardwareAddr
		}
		return err
	})
	return h
}

// serve answers each connection with the sum of what came, and says from where it was.
func (c *chain) serve(address string) {
	c.server.Serve(address, func(conn net.Conn) {
		h := sha256.New()
		io.Copy(h, conn)
		fmt.Fprintf(conn, "%v %x", conn.RemoteAddr(), h.Sum(nil))
	})
}

// send uploads bytes and checks what the server says of them.
func (c *chain) send(local, address string, size int) {
	c.t.Helper()
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	c.do(c.user, func() error {
		d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}}
		conn, err := d.Dial("tcp", address)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return err
		}
		if _, err := conn.Write(data); err != nil {
			return err
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		answer, err := io.ReadAll(conn)
		if want := fmt.Sprintf("%v %x", conn.LocalAddr(), sha256.Sum256(data)); err != nil || string(answer) != want {
			return fmt.Errorf("answer %q, want %q: %w", answer, want, err)
		}
		return nil
	})
}

// TestNetChainWithoutMPLS: real connections cross three labels in kernels that know none.
func TestNetChainWithoutMPLS(t *testing.T) {
	c := newChain(t)
	c.serve(vip4.String() + ":80")
	c.serve("[" + vip6.String() + "]:80")
	c.send("10.1.0.11", vip4.String()+":80", 4<<20)
	c.send("2001:db8:1::11", "["+vip6.String()+"]:80", 4<<20)
	if out, err := c.user.Run("ping", "-c", "3", "-i", "0.2", "-W", "2", vip4.String()); err != nil {
		t.Errorf("ping: %v\n%s", err, out)
	}
	counts := func(n *testnet.Node) Counters {
		got, err := c.of[n].Counters()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	edge, core, last := counts(c.edge), counts(c.core), counts(c.last)
	// 1,500 bytes and a label do not go through a link of 1,500: the users are told, and send less.
	if edge.Told == 0 || edge.TooLong > edge.Told+100 {
		t.Errorf("%d were too long, %d told", edge.TooLong, edge.Told)
	}
	if edge.Pushed < 5000 || core.Swapped != edge.Pushed || last.Popped != edge.Pushed {
		t.Errorf("%d pushed, %d swapped, %d popped", edge.Pushed, core.Swapped, last.Popped)
	}
	if edge.Nobody+edge.Malformed+core.Nobody+core.Kernel+last.Kernel+last.Malformed > 0 {
		t.Errorf("edge %+v, core %+v, last %+v", edge, core, last)
	}
	// A user's TTL ends at the edge, where its kernel says so.
	out, _ := c.user.Run("ping", "-c", "1", "-t", "1", "-W", "2", vip4.String())
	if !strings.Contains(out, "Time to live exceeded") {
		t.Errorf("a TTL of 1: %s", out)
	}
	// Somebody outside sends labels: they go nowhere.
	before := counts(c.last).Popped
	c.forge()
	testnet.Eventually(t, 5*time.Second, func() bool { return counts(c.edge).Outsider == 1 }, "the outsider's packet")
	if got := counts(c.last).Popped; got != before {
		t.Errorf("%d popped, %d before", got, before)
	}
}

// forge sends a labelled packet from the user's host.
func (c *chain) forge() {
	c.do(c.user, func() error {
		i, err := net.InterfaceByName("down")
		if err != nil {
			return err
		}
		proto := binary.BigEndian.Uint16([]byte{0x47, 0x88})
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		b := frame(packet{src: "10.1.0.11", dst: vip4.String(), proto: 17, ttl: 64, payload: make([]byte, 40)}.ip(), entry(100, 0, true, 64))
		return unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: i.Index})
	})
}
