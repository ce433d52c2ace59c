package neighbors

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

// await reads tables until one is as wanted.
func await(t *testing.T, s Source, what string, want func(Table) bool) Table {
	t.Helper()
	timeout := time.After(10 * time.Second)
	var last Table
	for {
		select {
		case last = <-s.Tables():
			if want(last) {
				return last
			}
		case <-timeout:
			t.Fatalf("%s: there is %+v", what, last)
		}
	}
}

func macOf(t *testing.T, n *testnet.Node, ifname string) (mac net.HardwareAddr, index int) {
	t.Helper()
	if err := n.Do(func() error {
		i, err := net.InterfaceByName(ifname)
		if err == nil {
			mac, index = i.HardwareAddr, i.Index
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return mac, index
}

// What is wanted is resolved without a packet for it, in both families, and another address of a neighbor is told.
func TestNetNeighborsAreResolved(t *testing.T) {
	n := testnet.New(t)
	here, there := n.Node("here"), n.Node("there")
	n.Link(here, "eth0", "10.0.1.1/24", there, "eth0", "10.0.1.2/24")
	here.Address("eth0", "2001:db8::1/64")
	there.Address("eth0", "2001:db8::2/64")
	var s Source
	if err := here.Do(func() (err error) {
		s, err = Open(slog.New(slog.NewTextHandler(t.Output(), nil)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mac, index := macOf(t, here, "eth0")
	theirs, _ := macOf(t, there, "eth0")
	first := await(t, s, "the link", func(t Table) bool { return t.Links[index].Up })
	if l := first.Links[index]; l.Name != "eth0" || l.MAC.String() != mac.String() || l.MTU != 1500 {
		t.Errorf("link %+v", l)
	}
	four, six := Key{index, netip.MustParseAddr("10.0.1.2")}, Key{index, netip.MustParseAddr("2001:db8::2")}
	if first.Neighbors[four] != nil {
		t.Error("the neighbor is known before anybody asked")
	}
	s.Want([]Key{four, six, {index, netip.MustParseAddr("10.0.1.99")}, {99, netip.MustParseAddr("10.0.2.1")}})
	await(t, s, "both families", func(t Table) bool {
		return t.Neighbors[four].String() == theirs.String() && t.Neighbors[six].String() == theirs.String()
	})
	run := func(node *testnet.Node, argv ...string) {
		t.Helper()
		if out, err := node.Run(argv...); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	run(here, "ip", "neigh", "replace", "10.0.1.2", "dev", "eth0", "lladdr", "02:00:00:00:00:77", "nud", "permanent")
	await(t, s, "another address", func(t Table) bool { return t.Neighbors[four].String() == "02:00:00:00:00:77" })
	run(here, "ip", "neigh", "del", "10.0.1.2", "dev", "eth0")
	await(t, s, "asked for again", func(t Table) bool { return t.Neighbors[four].String() == theirs.String() })
	run(here, "ip", "link", "set", "eth0", "mtu", "1400")
	await(t, s, "another MTU", func(t Table) bool { return t.Links[index].MTU == 1400 })
	run(there, "ip", "link", "set", "eth0", "down")
	await(t, s, "no carrier", func(t Table) bool { return !t.Links[index].Up })
	run(there, "ip", "link", "set", "eth0", "up")
	await(t, s, "a carrier again", func(t Table) bool { return t.Links[index].Up })
}
