package sockets

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// TestNetUnderway: what a neighbor's host has not acknowledged is under way, whoever has connected, though nothing is when its process has yet to read it; what
// is sent to others, or by another port, is none of it.
func TestNetUnderway(t *testing.T) {
	n := testnet.New(t)
	us, far := n.Node("us"), n.Node("far")
	n.Link(us, "a", "10.0.1.1/24", far, "a", "10.0.1.2/24")
	us.Address("a", "2001:db8:1::1/64")
	far.Address("a", "2001:db8:1::2/64")
	neighbors := func(port uint16, all ...string) (d bgp.Desired) {
		d.Port = 179
		for _, a := range all {
			d.Neighbors = append(d.Neighbors, bgp.Neighbor{Address: netip.MustParseAddr(a), Port: port})
		}
		return d
	}
	for name, c := range map[string]struct {
		listens, dials *testnet.Node
		at             string
		is, isNot      bgp.Desired
	}{
		"we connect":        {far, us, "10.0.1.2:179", neighbors(0, "10.0.1.2"), neighbors(0, "10.0.1.3")},
		"it connects":       {us, far, "10.0.1.1:179", neighbors(0, "10.0.1.3", "10.0.1.2"), neighbors(0)},
		"at a port of it":   {far, us, "10.0.1.2:1790", neighbors(1790, "10.0.1.2"), neighbors(0, "10.0.1.2")},
		"IPv6":              {far, us, "[2001:db8:1::2]:179", neighbors(0, "2001:db8:1::2"), neighbors(0, "10.0.1.2")},
		"IPv6, it connects": {us, far, "[2001:db8:1::1]:179", neighbors(0, "2001:db8:1::2"), neighbors(0, "10.0.1.2")},
	} {
		t.Run(name, func(t *testing.T) {
			ours := session(t, c.listens, c.dials, c.at, us)
			underway := func(d bgp.Desired) (is bool) {
				if err := us.Do(func() (err error) { is, err = Underway(d); return err }); err != nil {
					t.Fatal(err)
				}
				return is
			}
			testnet.Eventually(t, 10*time.Second, func() bool { return !underway(c.is) }, "nothing is under way")
			send := func() {
				if _, err := ours.Write([]byte("update")); err != nil {
					t.Fatal(err)
				}
			}
			send()
			testnet.Eventually(t, 10*time.Second, func() bool { return !underway(c.is) }, "it is there, and nobody reads it")
			if out, err := far.Run("nft", `table inet cut { chain in { type filter hook input priority 0; iifname "a" meta l4proto tcp drop; }; }`); err != nil {
				t.Fatal(err, out)
			}
			send()
			if !underway(c.is) || underway(c.isNot) {
				t.Errorf("under way: %v, to others %v", underway(c.is), underway(c.isNot))
			}
			if out, err := far.Run("nft", "delete", "table", "inet", "cut"); err != nil {
				t.Fatal(err, out)
			}
			testnet.Eventually(t, 10*time.Second, func() bool { return !underway(c.is) }, "it has come")
		})
	}
}

// session is our end of a connection.
func session(t *testing.T, listens, dials *testnet.Node, at string, us *testnet.Node) net.Conn {
	t.Helper()
	l, err := listens.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := dials.DialContext(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	if dials == us {
		return dialled
	}
	return accepted
}
