package probe

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/lab/forger"
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

func TestNetPathsAreFollowed(t *testing.T) {
	n := testnet.New(t)
	user, router := n.Node("user"), n.Node("router")
	n.Link(user, "eth0", "10.1.0.1/24", router, "eth0", "10.1.0.254/24")
	user.Route("default", "10.1.0.254")
	p, err := FollowPaths(router.Namespace, "eth0", netip.MustParsePrefix("10.1.0.0/23"), 8466)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort
	from, other := at("10.1.0.1:4000"), at("10.1.2.1:4000")
	sender, err := forger.Open(user.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	send := func(from netip.AddrPort, flags byte, to ...string) {
		for _, to := range to {
			if err := sender.TCP(forger.Segment{From: from, To: at(to), Flags: flags}); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(from, forger.ACK, "10.9.0.9:80") // of one before
	send(from, forger.SYN, "10.9.0.1:80")
	send(from, forger.ACK, "10.9.0.2:80", "10.9.0.2:80", "10.9.0.1:80", "10.9.0.3:81")
	send(other, forger.SYN, "10.9.0.1:80") // is none of those users
	err = router.Do(func() error {
		c, err := net.Dial("udp4", "10.1.0.1:8466")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("moved"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	router.Address("lo", "10.9.0.8/32")
	l, err := router.Listen("tcp4", "10.9.0.8:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := user.DialContext(t.Context(), "tcp4", "10.9.0.8:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	mss := []byte{2, 4, 0x05, 0xb4} // of this link: what else there is, is the kernel's to choose
	if shaken := p.Handshakes(); len(shaken) != 1 || shaken[0].User.String() != c.LocalAddr().String() || shaken[0].Port != 80 ||
		!bytes.HasPrefix(shaken[0].Request, mss) || !bytes.HasPrefix(shaken[0].Answer, mss) {
		t.Errorf("handshakes %+v", shaken)
	}
	a := netip.MustParseAddr
	if got := p.Of(Connection{from, 80}); !slices.Equal(got, []netip.Addr{a("10.9.0.1"), a("10.9.0.2"), a("10.9.0.1")}) {
		t.Errorf("%v", got)
	}
	if got := p.Of(Connection{other, 80}); len(got) != 0 {
		t.Errorf("%v of another", got)
	}
	if all := p.All(); len(all) != 3 {
		t.Errorf("%v", all)
	}
	if m := p.Messages(); len(m) != 1 || string(m[0].Payload) != "moved" || m[0].To != netip.MustParseAddrPort("10.1.0.1:8466") {
		t.Errorf("%+v", m)
	}
}
