package transport_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/control/transport"
	"github.com/manycast/manycast/internal/testnet"
)

var group = netip.MustParseAddr("239.80.255.1")

// link is a Transport in a node, with what it heard.
type link struct {
	*transport.Link
	heard chan transport.Packet
}

func open(t *testing.T, node *testnet.Node, address string, ifnames ...string) *link {
	t.Helper()
	l := &link{heard: make(chan transport.Packet, 100)}
	err := node.Do(func() (err error) {
		l.Link, err = transport.OpenLink(transport.LinkConfig{
			Group: group, Port: 8463, Address: netip.MustParseAddr(address), Interfaces: ifnames, TTL: 32, Log: slog.New(slog.DiscardHandler),
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Do(func() error { return l.Run(ctx, l.heard) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l
}

// lan is a bridge that snoops, with a host at each of so many ports.
func lan(t *testing.T, hosts int) (net *testnet.Net, bridge *testnet.Node, nodes []*testnet.Node) {
	net = testnet.New(t)
	bridge = net.Node("switch")
	var ports []string
	for i := range hosts {
		h := net.Node(fmt.Sprint("h", i+1))
		port := fmt.Sprint("p", i+1)
		net.Link(h, "eth0", fmt.Sprintf("10.0.0.%d/24", i+1), bridge, port, "")
		nodes, ports = append(nodes, h), append(ports, port)
	}
	bridge.Bridge("br0", false, ports...)
	return net, bridge, nodes
}

func TestNetFramesCrossALAN(t *testing.T) {
	_, _, nodes := lan(t, 2)
	a, b := open(t, nodes[0], "10.0.0.1", "eth0"), open(t, nodes[1], "10.0.0.2", "eth0")
	if err := a.Send([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	select {
	case p := <-b.heard:
		if string(p.Payload) != "hello" || p.Source != netip.MustParseAddr("10.0.0.1") || p.Interface != "eth0" {
			t.Errorf("%+v", p)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("nothing came")
	}
	select {
	case p := <-a.heard:
		t.Errorf("heard itself: %+v", p)
	default:
	}
	// What is no frame of the group: another port, another group, the host itself.
	for _, to := range []string{"239.80.255.1:8464", "239.80.255.2:8463", "10.0.0.2:8463"} {
		err := nodes[0].Do(func() error { return sendUDP(to, "10.0.0.1") })
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Send([]byte("last")); err != nil {
		t.Fatal(err)
	}
	if p := <-b.heard; string(p.Payload) != "last" {
		t.Errorf("%+v", p)
	}
}

// The kernel must not report a membership for the channel: only signed reports count.
func TestNetNoReportOfTheKernels(t *testing.T) {
	_, _, nodes := lan(t, 2)
	var reports atomic.Int32
	eachIGMP(t, nodes[1], "eth0", func() { reports.Add(1) })
	a := open(t, nodes[0], "10.0.0.1", "eth0")
	if err := a.Send([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	before := reports.Load()
	if err := nodes[0].Do(func() error { return joinGroup(group, "10.0.0.1") }); err != nil { // the watcher does see those of a member
		t.Fatal(err)
	}
	testnet.Eventually(t, 5*time.Second, func() bool { return reports.Load() > before })
	if before != 0 {
		t.Errorf("%d reports", before)
	}
}

func TestNetInterfaceGoesAndComes(t *testing.T) {
	_, _, nodes := lan(t, 2)
	a, b := open(t, nodes[0], "10.0.0.1", "eth0"), open(t, nodes[1], "10.0.0.2", "eth0")
	for _, state := range []string{"down", "up"} {
		if _, err := nodes[0].Run("ip", "link", "set", "eth0", state); err != nil {
			t.Fatal(err)
		}
		if err := a.Send([]byte("x")); state == "down" && !errors.Is(err, transport.ErrNowhere) {
			t.Errorf("sent by an interface that is down: %v", err)
		}
	}
	testnet.Eventually(t, 10*time.Second, func() bool {
		a.Send([]byte("again"))
		select {
		case <-b.heard:
			return true
		default:
			return false
		}
	})
	testnet.Eventually(t, 10*time.Second, func() bool {
		b.Send([]byte("and back"))
		select {
		case <-a.heard:
			return true
		default:
			return false
		}
	})
}

func TestNetAddressOfNobody(t *testing.T) {
	_, _, nodes := lan(t, 1)
	a := open(t, nodes[0], "10.9.9.9", "eth0", "eth7")
	if err := a.Send([]byte("x")); !errors.Is(err, transport.ErrNowhere) || !strings.Contains(err.Error(), "10.9.9.9") {
		t.Errorf("%v", err)
	}
}

// Across a router that is not ours and forwards no multicast, a VXLAN device is the link; frames keep the identity's address.
func TestNetFramesCrossAForeignRouter(t *testing.T) {
	net := testnet.New(t)
	a, foreign, b := net.Node("a"), net.Node("foreign"), net.Node("b")
	net.Link(a, "eth0", "10.1.0.2/24", foreign, "left", "10.1.0.1/24")
	net.Link(b, "eth0", "10.2.0.2/24", foreign, "right", "10.2.0.1/24")
	foreign.Sysctl("net.ipv4.ip_forward", "1")
	a.Route("0.0.0.0/0", "10.1.0.1")
	b.Route("0.0.0.0/0", "10.2.0.1")
	for _, end := range []struct {
		node          *testnet.Node
		local, remote string
	}{{a, "10.1.0.2", "10.2.0.2"}, {b, "10.2.0.2", "10.1.0.2"}} {
		for _, argv := range [][]string{
			{"ip", "link", "add", "vx0", "type", "vxlan", "id", "80", "local", end.local, "remote", end.remote, "dstport", "4789"},
			{"ip", "link", "set", "vx0", "up"},
		} {
			if out, err := end.node.Run(argv...); err != nil {
				t.Fatalf("%v: %v\n%s", argv, err, out)
			}
		}
	}
	for _, tt := range []struct {
		ifname string
		cross  bool
		wait   time.Duration
	}{{"eth0", false, 200 * time.Millisecond}, {"vx0", true, 5 * time.Second}} {
		x, y := open(t, a, "10.1.0.2", tt.ifname), open(t, b, "10.2.0.2", tt.ifname)
		for _, size := range []int{1, 1200} {
			if err := x.Send(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			select {
			case p := <-y.heard:
				if !tt.cross || len(p.Payload) != size || p.Source != netip.MustParseAddr("10.1.0.2") || p.Interface != tt.ifname {
					t.Errorf("by %s: %d bytes from %v by %s", tt.ifname, len(p.Payload), p.Source, p.Interface)
				}
			case <-time.After(tt.wait):
				if tt.cross {
					t.Errorf("%d bytes did not come by %s", size, tt.ifname)
				}
			}
		}
	}
}
