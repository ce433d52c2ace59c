package routes

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

// watched is a node with a neighbour, and a Table of what its Watcher tells.
type watched struct {
	t     *testing.T
	node  *testnet.Node
	l     *Linux
	table Table
}

func watch(t *testing.T) *watched {
	n := testnet.New(t)
	w := &watched{t: t, node: n.Node("a")}
	b := n.Node("b")
	n.Link(w.node, "eth0", "10.0.0.1/24", b, "eth0", "10.0.0.2/24")
	n.Link(w.node, "eth1", "10.0.1.1/24", b, "eth1", "10.0.1.2/24")
	w.run("ip -6 addr add fd00::1/64 dev eth0 nodad")
	w.run("ip route add 192.0.2.0/24 via 10.0.0.2 metric 20")
	if err := w.node.Do(func() (err error) {
		w.l, err = Open(77, slog.New(slog.NewTextHandler(t.Output(), nil)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *watched) run(command string) {
	w.t.Helper()
	if out, err := w.node.Run("sh", "-c", command); err != nil {
		w.t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// until applies what is told until the condition holds.
func (w *watched) until(what string, cond func() bool) {
	w.t.Helper()
	timeout := time.After(20 * time.Second)
	for !cond() {
		select {
		case c := <-w.l.Changes():
			w.table.Apply(c)
		case <-timeout:
			w.t.Fatalf("not seen: %s", what)
		}
	}
}

func (w *watched) hops(prefix string) string {
	r := w.table.Routes[netip.MustParsePrefix(prefix)]
	if r == nil {
		return ""
	}
	var vias []string
	for _, h := range r.Hops {
		vias = append(vias, h.Via.String())
	}
	return fmt.Sprintf("%d%v", r.Metric, vias)
}

func TestNetRoutesAndInterfacesAreTold(t *testing.T) {
	w := watch(t)
	w.until("all there is", func() bool { return w.hops("192.0.2.0/24") == "20[10.0.0.2]" && w.hops("10.0.0.0/24") != "" })
	if ifindex, ok := w.table.OnLink(netip.MustParseAddr("10.0.0.77")); !ok || w.table.Interfaces[ifindex].Name != "eth0" {
		t.Errorf("10.0.0.77 is on link by %d, %v", ifindex, ok)
	}
	if _, ok := w.table.OnLink(netip.MustParseAddr("192.0.2.1")); ok {
		t.Error("192.0.2.1 is behind a router, not on a link")
	}
	w.run("ip route add 192.0.2.0/24 via 10.0.0.2 metric 1 proto 77; ip route replace 192.0.2.0/24 metric 20 nexthop via 10.0.0.2 nexthop via 10.0.1.2")
	w.until("two hops, and not ours", func() bool { return w.hops("192.0.2.0/24") == "20[10.0.0.2 10.0.1.2]" })
	w.run("ip -6 route add 2001:db8::/32 via fd00::2; ip -6 route append 2001:db8::/32 via fd00::3")
	w.until("two hops of IPv6", func() bool { return w.hops("2001:db8::/32") == "1024[fd00::2 fd00::3]" })
	w.run("ip -6 route del 2001:db8::/32 via fd00::2")
	w.until("one hop of IPv6", func() bool { return w.hops("2001:db8::/32") == "1024[fd00::3]" })
	w.run("ip route add 198.51.100.0/24 via 10.0.0.2 metric 20; ip link set eth0 down")
	w.until("what went with the link", func() bool {
		return w.hops("198.51.100.0/24") == "" && w.hops("10.0.0.0/24") == "" && w.hops("2001:db8::/32") == ""
	})
	for _, i := range w.table.Interfaces {
		if i.Name == "eth0" && i.Up {
			t.Error("eth0 is up")
		}
	}
	w.run("ip link set eth0 up; ip addr add 10.7.0.1/24 dev eth0")
	w.until("the link, and its addresses", func() bool {
		for _, i := range w.table.Interfaces {
			if i.Name == "eth0" && i.Up && strings.Contains(fmt.Sprint(i.Addresses), "10.7.0.1/24") {
				return w.hops("10.7.0.0/24") != ""
			}
		}
		return false
	})
}

// TestNetChurnIsFollowed changes ten thousand routes while nobody takes what is told.
func TestNetChurnIsFollowed(t *testing.T) {
	const count = 10000
	w := watch(t)
	w.until("all there is", func() bool { return w.hops("192.0.2.0/24") != "" })
	var add, replace, del strings.Builder
	for i := range count {
		p := netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 0})
		fmt.Fprintf(&add, "route add %v/24 via 10.0.0.2 metric 20\n", p)
		fmt.Fprintf(&replace, "route replace %v/24 via 10.0.1.2 metric 20\n", p)
		if i%2 == 0 {
			fmt.Fprintf(&del, "route del %v/24 metric 20\n", p)
		}
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"add": add.String(), "replace": replace.String(), "del": del.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	w.run(fmt.Sprintf("cd %s && ip -batch add && ip -batch replace && ip -batch del", dir))
	t.Logf("%d changes in %v", count*5/2, time.Since(start))
	right := func() bool {
		n := 0
		for p, r := range w.table.Routes {
			if p.Bits() == 24 && p.Addr().As4()[0] == 20 && r.Hops[0].Via == netip.MustParseAddr("10.0.1.2") {
				n++
			}
		}
		return n == count/2 && w.hops("20.0.0.0/24") == "" && w.hops("20.0.1.0/24") == "20[10.0.1.2]"
	}
	start = time.Now()
	w.until("the routes at the end", right)
	t.Logf("told %v after the last one", time.Since(start))
}
