package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/testnet"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// TestNetPinnedUsers: three routers, at the last one a director, d, to which the route to the VIP leads, and a server s that owns nobody any
// more. A user with a connection to s is pinned there: its packets go along s' tree from the first router on, and all others by the route. When
// the connection is over nobody is bound any more, and the user goes by the route, too.
func TestNetPinnedUsers(t *testing.T) {
	n := testnet.New(t)
	r := newRigIn(t, n)
	r.nodes["u"], r.nodes["d"] = n.Node("u"), n.Node("d")
	n.Link(r.nodes["u"], "eth0", "10.1.0.11/24", r.nodes["r1"], "e", "10.1.0.1/24")
	n.Link(r.nodes["d"], "eth0", "10.9.1.82/24", r.nodes["r3"], "d", "10.9.1.3/24")
	r.nodes["u"].Address("eth0", "10.1.0.12/24")
	r.nodes["u"].Route("0.0.0.0/0", "10.1.0.1")
	r.nodes["d"].Route("0.0.0.0/0", "10.9.1.3")
	r.nodes["r2"].Route("10.1.0.0/24", "10.0.12.1")
	r.nodes["r3"].Route("10.1.0.0/24", "10.0.23.2")
	for router, via := range map[string]string{"r1": "10.0.12.2", "r2": "10.0.23.3", "r3": "10.9.1.82"} {
		r.nodes[router].Route("192.0.2.80/32", via)
	}
	for _, name := range []string{"s", "d"} {
		r.nodes[name].Address("lo", "192.0.2.80/32")
		r.greets(name)
	}
	if err := errors.Join(r.nodes["u"].WholeChecksums("eth0"), r.nodes["u"].TakesXDP("eth0"), r.nodes["s"].TakesXDP("eth0")); err != nil {
		t.Fatal(err)
	}
	bpffs := n.BPFFS()
	conf := func(name, more string) string {
		return fmt.Sprintf("[forwarding]\ntables = \"none\"\nfast_path = true\nbpffs = %q\n%s", filepath.Join(bpffs, name), more)
	}
	r.caps = ",+bpf"
	r.extra = "[servers]\naddresses = [\"10.9.0.80\"]\n"
	r.of = map[string]string{
		"r1": conf("r1", "edge = [\"e\"]\n[[users.accept]]\nfrom = \"2.2.2.2\"\n"),
		"r2": conf("r2", "[users]\nupstream = [\"1.1.1.1\"]\n[[users.accept]]\nfrom = \"3.3.3.3\"\n"),
		"r3": conf("r3", "[users]\nupstream = [\"2.2.2.2\"]\n"),
	}
	for _, name := range routers {
		r.start(name)
	}
	r.operational("r2", 2)
	r.tree()
	for _, user := range []string{"10.1.0.11", "10.1.0.12"} {
		if got := r.greeting(user); got != "d" {
			t.Fatalf("before: %s is served by %q", user, got)
		}
	}
	r.pin(1, "10.1.0.11")
	testnet.Eventually(t, 10*time.Second, func() bool { return r.steered("r1") == "1.1" }, "a pin at r1")
	testnet.Eventually(t, 10*time.Second, func() bool { return r.greeting("10.1.0.11") == "s" }, "the pinned user at s")
	before := r.packets("r1", "pushed")
	for range 5 {
		if got := r.greeting("10.1.0.11"); got != "s" {
			t.Errorf("the pinned user is served by %q", got)
		}
	}
	if pushed := r.packets("r1", "pushed") - before; pushed < 5*3 {
		t.Errorf("r1 sent %d packets of five connections along the tree", pushed)
	}
	before = r.packets("r1", "pushed")
	if got := r.greeting("10.1.0.12"); got != "d" || r.packets("r1", "pushed") != before {
		t.Errorf("somebody else is served by %q, %d packets along the tree", got, r.packets("r1", "pushed")-before)
	}
	r.pin(2)
	testnet.Eventually(t, 10*time.Second, func() bool { return r.steered("r1") == "" }, "nobody is bound at r1")
	testnet.Eventually(t, 10*time.Second, func() bool { return r.greeting("10.1.0.11") == "d" }, "the user at d")
	for _, name := range routers {
		r.daemons[name].Signal(unix.SIGTERM)
		if err := r.daemons[name].Wait(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, r.daemons[name].Output())
		}
	}
}

// pin says at r3 what a director would that pins users at s, who are t's now; none: it withdraws.
func (r *rig) pin(number uint64, users ...string) {
	r.t.Helper()
	b := &tdpdv1.UserBinding{Service: "web"}
	if len(users) > 0 {
		a := alloc.Allocation{
			Epoch: epoch.Epoch{Term: 1, Number: number}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 1}, Servers: []string{"t"},
			Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.81")}, Owner: []uint16{0, 0}, Standby: []uint16{alloc.None, alloc.None},
		}
		b.Vips, b.Allocation, b.LifetimeMs, b.UsersOnly = [][]byte{{192, 0, 2, 80}}, alloc.ToProto("web", a), 120_000, true
		b.Others = []*tdpdv1.Other{{Name: "s", Address: []byte{10, 9, 0, 80}}}
	}
	for _, u := range users {
		at := netip.MustParseAddr(u).As4()
		b.UserAddresses = append(b.UserAddresses, uint32(at[0])<<24|uint32(at[1])<<16|uint32(at[2])<<8|uint32(at[3]))
		b.UserServers = append(b.UserServers, 1)
	}
	r.say("r3", b)
}

// greets has a node tell its name to whoever connects to the VIP.
func (r *rig) greets(name string) {
	r.t.Helper()
	var l net.Listener
	if err := r.nodes[name].Do(func() (err error) { l, err = net.Listen("tcp", "192.0.2.80:80"); return err }); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name)
			_ = c.Close()
		}
	}()
}

// greeting is who answers a user at the VIP; empty: nobody.
func (r *rig) greeting(user string) (name string) {
	_ = r.nodes["u"].Do(func() error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(user)}, Timeout: 3 * time.Second}
		c, err := d.Dial("tcp", "192.0.2.80:80")
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(3 * time.Second))
		all, err := io.ReadAll(c)
		name = string(all)
		return err
	})
	return name
}
