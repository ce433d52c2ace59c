package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/testnet"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

const tunnelVIP = "192.0.2.80"

// tap counts what users' packets are in on an interface.
type tap struct {
	mu    sync.Mutex
	ports map[netip.Addr]map[uint16]int // in UDP for port 6635: by the user inside, the source port
	other int                           // for the VIP, or labelled, otherwise
}

// newTap listens at a node until the test ends.
func newTap(t *testing.T, node *testnet.Node, ifname string) *tap {
	x := &tap{ports: map[netip.Addr]map[uint16]int{}}
	var fd int
	if err := node.Do(func() (err error) {
		all := int(binary.BigEndian.Uint16([]byte{unix.ETH_P_ALL, 0}))
		i, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all<<8>>8); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(unix.ETH_P_ALL << 8 & 0xffff), Ifindex: i.Index})
	}); err != nil {
		t.Fatal(err)
	}
	timeout := unix.NsecToTimeval(int64(100 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var over sync.WaitGroup
	over.Go(func() {
		b := make([]byte, 2048)
		for {
			select {
			case <-done:
				return
			default:
			}
			if n, _, err := unix.Recvfrom(fd, b, 0); err == nil {
				x.take(b[:n])
			}
		}
	})
	t.Cleanup(func() {
		close(done)
		over.Wait()
		unix.Close(fd)
	})
	return x
}

func (x *tap) take(frame []byte) {
	if len(frame) < 34 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	ip, vip := frame[14:], netip.MustParseAddr(tunnelVIP)
	proto, outer := binary.BigEndian.Uint16(frame[12:]), 20
	if proto == 0x86dd {
		outer = 40
	}
	switch {
	case proto == 0x8847 || proto == 0x0800 && netip.AddrFrom4([4]byte(ip[16:])) == vip:
		x.other++
	case len(ip) >= outer+32 && (proto == 0x0800 && ip[9] == 17 || proto == 0x86dd && ip[6] == 17) && binary.BigEndian.Uint16(ip[outer+2:]) == 6635:
		user := netip.AddrFrom4([4]byte(ip[outer+12+12:]))
		if x.ports[user] == nil {
			x.ports[user] = map[uint16]int{}
		}
		x.ports[user][binary.BigEndian.Uint16(ip[outer:])]++
	}
}

// serve has a server say its name, the user's address and the sum of what it uploaded.
func (r *rig) serve(name string) {
	r.t.Helper()
	r.nodes[name].Serve(tunnelVIP+":80", func(conn net.Conn) {
		h := sha256.New()
		io.Copy(h, conn)
		fmt.Fprintf(conn, "%s %v %x", name, conn.RemoteAddr(), h.Sum(nil))
	})
}

// upload uploads a megabyte to the VIP from a user's address, and returns who has served it.
func (r *rig) upload(from string) (server string) {
	r.t.Helper()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if err := r.nodes["u"].Do(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := d.DialContext(ctx, "tcp", tunnelVIP+":80")
		if err != nil {
			return err
		}
		defer conn.Close()
		deadline, _ := ctx.Deadline()
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
		if _, err := conn.Write(data); err != nil {
			return err
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		answer, err := io.ReadAll(conn)
		var user, sum string
		if fmt.Sscan(string(answer), &server, &user, &sum); user != conn.LocalAddr().String() || sum != fmt.Sprintf("%x", sha256.Sum256(data)) {
			return fmt.Errorf("answer %q: %w", answer, err)
		}
		return nil
	}); err != nil {
		r.t.Fatalf("upload from %s: %v", from, err)
	}
	return server
}

// shares says at a router that users, by the last bits of their addresses, are shared out among servers.
func (r *rig) shares(router string, servers map[string]string) {
	r.t.Helper()
	a := alloc.Allocation{Epoch: epoch.Epoch{Term: 1, Number: 1}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 2}}
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		a.Servers, a.Addresses = append(a.Servers, name), append(a.Addresses, netip.MustParseAddr(servers[name]))
	}
	for i := range a.Cells() {
		a.Owner, a.Standby = append(a.Owner, uint16(i%len(servers))), append(a.Standby, alloc.None)
	}
	r.say(router, &tdpdv1.UserBinding{
		Service: "web", Vips: [][]byte{{192, 0, 2, 80}}, Allocation: alloc.ToProto("web", a), LifetimeMs: 120_000, HoldMs: 60_000,
	})
}

// packets is a counter of a router's fast path.
func (r *rig) packets(name, what string) uint64 {
	answer, _ := r.ask(name, "")
	return answer.GetStatus().GetFastPath()[what]
}

// newFabric is u - r1 - x - s1 and s2, with a plain router x that knows neither labels nor the VIP. r1 has a director beside it, servers' hosts
// have tdpd beside the agent, and nothing else speaks LDP. Sessions, and what users' packets are in, are of one family.
func newFabric(t *testing.T, six bool) *rig {
	n := testnet.New(t)
	r := &rig{t: t, dir: t.TempDir(), nodes: map[string]*testnet.Node{}, daemons: map[string]*testnet.Process{}, whole: map[string]string{}, caps: ",+bpf"}
	for _, name := range []string{"u", "r1", "x", "s1", "s2"} {
		node := n.Node(name)
		r.nodes[name] = node
		node.Sysctl("net.ipv4.ip_forward", "1")
		node.Sysctl("net.ipv6.conf.all.forwarding", "1")
		node.Sysctl("net.ipv4.conf.all.rp_filter", "0")
		node.Sysctl("net.ipv4.conf.default.rp_filter", "0")
	}
	n.Link(r.nodes["u"], "eth0", "10.1.0.11/24", r.nodes["r1"], "e", "10.1.0.1/24")
	n.Link(r.nodes["r1"], "a", "10.0.12.1/24", r.nodes["x"], "in", "10.0.12.2/24")
	for _, a := range [][3]string{{"r1", "a", "2001:db8:12::1/64"}, {"x", "in", "2001:db8:12::2/64"}, {"r1", "lo", "2001:db8::1/128"}} {
		r.nodes[a[0]].Address(a[1], a[2])
	}
	n.Link(r.nodes["x"], "s1", "10.9.1.1/24", r.nodes["s1"], "eth0", "10.9.1.80/24")
	n.Link(r.nodes["x"], "s2", "10.9.2.1/24", r.nodes["s2"], "eth0", "10.9.2.80/24")
	r.nodes["r1"].Address("lo", "1.1.1.1/32")
	r.nodes["u"].Route("0.0.0.0/0", "10.1.0.1")
	r.nodes["r1"].Route("10.9.0.0/16", "10.0.12.2")
	r.nodes["x"].Route("1.1.1.1/32", "10.0.12.1")
	r.nodes["x"].Route("10.1.0.0/24", "10.0.12.1")
	r.nodes["r1"].Route("2001:db8:9::/48", "2001:db8:12::2")
	r.nodes["x"].Route("2001:db8::1/128", "2001:db8:12::1")
	for i, s := range []string{"s1", "s2"} {
		r.nodes["x"].Address(s, fmt.Sprintf("2001:db8:9:%d::1/64", i+1))
		r.nodes[s].Address("eth0", fmt.Sprintf("2001:db8:9:%d::80/64", i+1))
		r.nodes[s].Route("::/0", fmt.Sprintf("2001:db8:9:%d::1", i+1))
		r.nodes[s].Route("0.0.0.0/0", fmt.Sprintf("10.9.%d.1", i+1))
		r.nodes[s].Address("lo", tunnelVIP+"/32")
	}
	if err := errors.Join(r.nodes["u"].WholeChecksums("eth0"), r.nodes["u"].TakesXDP("eth0"), r.nodes["x"].TakesXDP("in")); err != nil {
		t.Fatal(err)
	}
	bpffs := n.BPFFS()
	fast := "[forwarding]\ntables = \"none\"\nfast_path = true\nbpffs = %q\n"
	own, transport := "1.1.1.1", ""
	if six {
		own, transport = "2001:db8::1", "transport_ipv6 = \"2001:db8::1\"\n"
	}
	r.whole["r1"] = "router_id = \"1.1.1.1\"\n" + transport + "interfaces = []\n[hello]\ntargeted_hold = \"3s\"\n[servers]\ntunnel = \"udp\"\n" + fmt.Sprintf(fast, filepath.Join(bpffs, "r1")) + "edge = [\"e\", \"a\"]\n"
	for i, s := range []string{"s1", "s2"} {
		id, address, transport := fmt.Sprintf("10.9.%d.80", i+1), serverOf(i+1, six), ""
		if six {
			transport = fmt.Sprintf("transport_ipv6 = %q\n", address)
		}
		from := netip.PrefixFrom(netip.MustParseAddr(own), netip.MustParseAddr(own).BitLen())
		r.whole[s] = fmt.Sprintf("router_id = %q\n%sinterfaces = []\n[hello]\ntargeted_hold = \"3s\"\naccept_targeted = [%q]\n[servers]\naddresses = [%q]\n", id, transport, from, address) +
			fmt.Sprintf(fast, filepath.Join(bpffs, s)) + fmt.Sprintf("edge = [\"eth0\"]\ntunnels_from = [%q]\n", from)
	}
	return r
}

func serverOf(i int, six bool) string {
	if six {
		return fmt.Sprintf("2001:db8:9:%d::80", i)
	}
	return fmt.Sprintf("10.9.%d.80", i)
}

// TestNetTunnelsToServersHosts: a director's router and tdpd on servers' hosts alone, with a fabric between that nobody has touched. The router
// learns from the binding which servers there are, asks their hosts for labels, and sends users' packets there in UDP.
func TestNetTunnelsToServersHosts(t *testing.T) {
	t.Run("IPv4", func(t *testing.T) { testTunnelsToServersHosts(t, false) })
	t.Run("IPv6", func(t *testing.T) { testTunnelsToServersHosts(t, true) })
}

func testTunnelsToServersHosts(t *testing.T, six bool) {
	r := newFabric(t, six)
	fabric := newTap(t, r.nodes["x"], "in")
	for _, name := range []string{"r1", "s1", "s2"} {
		r.start(name)
	}
	servers, via := map[string]string{"s1": serverOf(1, six), "s2": serverOf(2, six)}, "10.0.12.2"
	if six {
		via = "2001:db8:12::2"
	}
	testnet.Eventually(t, 10*time.Second, func() bool { _, ok := r.ask("r1", ""); return ok }, "r1")
	r.shares("r1", servers)
	r.operational("r1", 2)
	for name := range servers {
		r.serve(name)
	}
	testnet.Eventually(t, 20*time.Second, func() bool {
		for _, a := range servers {
			answer, _ := r.ask("r1", fmt.Sprintf(`{"step": {"address": %q}}`, a))
			if hops := answer.GetStep().GetHops(); answer.GetStep().GetAction() != "push" || len(hops) != 1 || hops[0].GetTunnel() != a || hops[0].GetVia() != via {
				return false
			}
		}
		return true
	}, "tunnels to both servers")
	for last := 12; last < 20; last++ {
		r.nodes["u"].Address("eth0", fmt.Sprintf("10.1.0.%d/24", last))
	}
	testnet.Eventually(t, 10*time.Second, func() bool {
		_, err := r.nodes["u"].Run("ping", "-c", "1", "-W", "1", tunnelVIP)
		return err == nil
	}, "an answer of the VIP")
	served := map[string]int{}
	for last := 11; last < 19; last++ {
		served[r.upload(fmt.Sprintf("10.1.0.%d", last))]++
	}
	if served["s1"] != 4 || served["s2"] != 4 {
		t.Errorf("users were served %v", served)
	}
	if told := r.packets("r1", "told"); told == 0 {
		t.Error("nobody was told that 1,500 bytes are too many")
	}
	if out, err := r.nodes["u"].Run("ping", "-c", "3", "-i", "0.1", "-W", "2", "-M", "do", "-s", "1420", tunnelVIP); err != nil { // 1,448 bytes
		t.Errorf("as long as fits: %v\n%s", err, out)
	}
	fabric.mu.Lock()
	ports := map[uint16]bool{}
	for user, of := range fabric.ports {
		if len(of) != 1 {
			t.Errorf("user %v has ports %v", user, of)
		}
		for port := range of {
			if ports[port] = true; port < 49152 {
				t.Errorf("user %v has port %d", user, port)
			}
		}
	}
	if fabric.other > 0 || len(fabric.ports) != 8 || len(ports) < 7 {
		t.Errorf("%d users in UDP by ports %v, %d packets otherwise", len(fabric.ports), ports, fabric.other)
	}
	fabric.mu.Unlock()
	for name := range servers {
		if n := r.packets(name, "local"); n < 1000 || n != r.packets(name, "untunneled") {
			t.Errorf("%s took %d packets out of UDP, and %d were for it", name, r.packets(name, "untunneled"), n)
		}
	}
	// tdpd on a server's host restarts, and at the router: what is pinned goes on, and what is learned again is the same.
	flood := r.nodes["u"].Start("ping", "-i", "0.02", "-W", "1", "-q", tunnelVIP)
	for _, name := range []string{"s1", "s2", "r1"} {
		r.daemons[name].Signal(unix.SIGKILL)
		r.daemons[name].Wait()
		r.start(name)
		r.operational(name, map[string]int{"s1": 1, "s2": 1, "r1": 2}[name])
		r.operational("r1", 2)
		if name == "r1" {
			r.shares("r1", servers)
		}
	}
	flood.Signal(unix.SIGINT)
	flood.Wait()
	if out := flood.Output(); !bytes.Contains([]byte(out), []byte(" 0% packet loss")) {
		t.Errorf("while daemons were killed and started:\n%s", out)
	}
	for _, name := range []string{"r1", "s1", "s2"} {
		r.daemons[name].Signal(unix.SIGTERM)
		if err := r.daemons[name].Wait(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, r.daemons[name].Output())
		}
	}
}

// TestNetTunnelOfATree: of r1 - r2 - x - r3 - s the router x knows no labels: from r2 to r3 the tree goes in UDP.
func TestNetTunnelOfATree(t *testing.T) {
	n := testnet.New(t)
	r := &rig{t: t, dir: t.TempDir(), nodes: map[string]*testnet.Node{}, daemons: map[string]*testnet.Process{}, whole: map[string]string{}, caps: ",+bpf"}
	for _, name := range []string{"u", "r1", "r2", "x", "r3", "s"} {
		node := n.Node(name)
		r.nodes[name] = node
		node.Sysctl("net.ipv4.ip_forward", "1")
		node.Sysctl("net.ipv4.conf.all.rp_filter", "0")
		node.Sysctl("net.ipv4.conf.default.rp_filter", "0")
	}
	n.Link(r.nodes["u"], "eth0", "10.1.0.11/24", r.nodes["r1"], "e", "10.1.0.1/24")
	n.Link(r.nodes["r1"], "a", "10.0.12.1/24", r.nodes["r2"], "a", "10.0.12.2/24")
	n.Link(r.nodes["r2"], "b", "10.0.20.2/24", r.nodes["x"], "in", "10.0.20.9/24")
	n.Link(r.nodes["x"], "out", "10.0.30.9/24", r.nodes["r3"], "a", "10.0.30.3/24")
	n.Link(r.nodes["r3"], "c", "10.9.0.3/24", r.nodes["s"], "eth0", "10.9.0.80/24")
	for i, name := range routers {
		r.nodes[name].Address("lo", fmt.Sprintf("%d.%d.%d.%d/32", i+1, i+1, i+1, i+1))
	}
	for _, x := range [][3]string{
		{"u", "0.0.0.0/0", "10.1.0.1"}, {"r1", "10.9.0.0/24", "10.0.12.2"}, {"r1", "2.2.2.2/32", "10.0.12.2"},
		{"r2", "10.9.0.0/24", "10.0.20.9"}, {"r2", "3.3.3.3/32", "10.0.20.9"}, {"r2", "1.1.1.1/32", "10.0.12.1"}, {"r2", "10.1.0.0/24", "10.0.12.1"},
		{"x", "3.3.3.3/32", "10.0.30.3"}, {"x", "2.2.2.2/32", "10.0.20.2"}, {"x", "10.1.0.0/24", "10.0.20.2"},
		{"r3", "2.2.2.2/32", "10.0.30.9"}, {"r3", "10.1.0.0/24", "10.0.30.9"}, {"s", "0.0.0.0/0", "10.9.0.3"},
	} {
		r.nodes[x[0]].Route(x[1], x[2])
	}
	r.nodes["s"].Address("lo", tunnelVIP+"/32")
	if err := errors.Join(r.nodes["u"].WholeChecksums("eth0"), r.nodes["u"].TakesXDP("eth0"), r.nodes["x"].TakesXDP("in"), r.nodes["s"].TakesXDP("eth0")); err != nil {
		t.Fatal(err)
	}
	fabric, bpffs := newTap(t, r.nodes["x"], "in"), n.BPFFS()
	whole := func(id, more, edge string) string {
		return fmt.Sprintf("router_id = %q\n%s\n[servers]\naddresses = [\"10.9.0.80\"]\n[forwarding]\ntables = \"none\"\nfast_path = true\nbpffs = %q\n%s\n", id, more, filepath.Join(bpffs, "r"+id[:1]), edge)
	}
	r.whole["r1"] = whole("1.1.1.1", "interfaces = [\"a\"]\n[hello]\nlink_hold = \"3s\"", "edge = [\"e\"]")
	r.whole["r2"] = whole("2.2.2.2", "interfaces = [\"a\"]\n[hello]\ntargeted_hold = \"3s\"\nlink_hold = \"3s\"\n[[neighbor]]\ntargeted = \"3.3.3.3\"\ntunnel = \"udp\"", "edge = [\"b\"]")
	r.whole["r3"] = whole("3.3.3.3", "interfaces = []\n[hello]\ntargeted_hold = \"3s\"\naccept_targeted = [\"2.2.2.2/32\"]", "edge = [\"a\", \"c\"]\ntunnels_from = [\"2.2.2.2/32\"]")
	for _, name := range routers {
		r.start(name)
	}
	r.operational("r2", 2)
	labels := r.tree()
	if len(labels) != 2 {
		t.Fatalf("labels %v", labels)
	}
	r.serve("s")
	r.shares("r1", map[string]string{"s": "10.9.0.80"})
	testnet.Eventually(t, 10*time.Second, func() bool {
		_, err := r.nodes["u"].Run("ping", "-c", "1", "-W", "1", tunnelVIP)
		return err == nil
	}, "an answer of the VIP")
	r.upload("10.1.0.11")
	pushed, swapped, popped := r.packets("r1", "pushed"), r.packets("r2", "tunneled"), r.packets("r3", "popped")
	if pushed < 700 || r.packets("r2", "told") == 0 || popped != r.packets("r3", "untunneled") || pushed-swapped != r.packets("r2", "too_long") || swapped != popped {
		t.Errorf("%d pushed, %d swapped into UDP, %d told, %d popped", pushed, swapped, r.packets("r2", "told"), popped)
	}
	fabric.mu.Lock()
	defer fabric.mu.Unlock()
	if fabric.other > 0 || len(fabric.ports) != 1 {
		t.Errorf("in UDP %v, %d packets otherwise", fabric.ports, fabric.other)
	}
}
