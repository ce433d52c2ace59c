package probe

import (
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

func TestNetEveryPacketIsSeenOnce(t *testing.T) {
	n := testnet.New(t)
	user, server := n.Node("user"), n.Node("server")
	n.Link(user, "eth0", "10.0.0.1/24", server, "eth0", "10.0.0.9/24")
	user.Address("eth0", "10.0.0.2/24")
	user.Route("default", "10.0.0.9")
	group := netip.MustParseAddr("239.1.2.3")
	users := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
	c, err := Listen(server.Namespace, "eth0", group)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	f, err := Send(user.Namespace, users, netip.AddrPortFrom(group, 9), time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, 5*time.Second, func() bool { return time.Since(began) > 50*time.Millisecond })
	sent, err := f.Stop()
	if err != nil || sent < 40 {
		t.Fatalf("%d packets sent: %v", sent, err)
	}
	got, err := c.Stop() // veth delivers before the send returns
	if err != nil || uint64(len(got)) != sent {
		t.Fatalf("%d packets came of %d: %v", len(got), sent, err)
	}
	for i, a := range got {
		if a.Number != uint64(i) || a.User != users[i%2] || a.At.Before(began) || a.At.After(time.Now()) {
			t.Errorf("packet %d: %+v", i, a)
		}
	}
}
