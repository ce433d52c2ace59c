package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/testnet"
)

// asLBD makes the test's binary lbd itself.
const asLBD = "MANYCAST_TEST_AS_LBD"

func TestMain(m *testing.M) {
	if os.Getenv(asLBD) != "" {
		if err := command(os.Stderr).ExecuteContext(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "lbd:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const services = `
name: web
vip: 192.0.2.80
group: 239.80.80.80
ports: [tcp/80]
servers:
  - {name: s1, address: 10.9.0.2, portions: [0.0.0.0/0.0.0.1], deny: [10.1.0.4]}
  - {name: s2, address: 10.9.0.3, portions: [0.0.0.1/0.0.0.1, 10.1.0.4]}
`

// TestNetAgentServesStaticPortions runs the agent as a process of its own, without a bus: it joins, owns the VIP, and leaves
// nothing behind.
func TestNetAgentServesStaticPortions(t *testing.T) {
	n := testnet.New(t)
	router, server := n.Node("r"), n.Node("s1")
	n.Link(router, "down", "10.9.0.1/24", server, "eth0", "10.9.0.2/24")
	reports := listen(t, router, "down")
	bpffs := filepath.Join(n.BPFFS(), "agent")
	argv := lbd(t, "agent", fmt.Sprintf("name = \"s1\"\ninterface = \"eth0\"\nbpffs = %q\nstate_dir = %q\n[keys]\nunsigned = true\n", bpffs, t.TempDir()))

	agent := server.Start(argv...)
	testnet.Eventually(t, 10*time.Second, func() bool {
		return slices.ContainsFunc(reports.joins(), func(s join.Signed) bool {
			return !s.Leave && s.Group == netip.MustParseAddr("239.80.80.80") && s.Requester == netip.MustParseAddr("10.9.0.2") &&
				s.Owner.Contains(netip.MustParseAddr("10.1.0.2")) && !s.Owner.Contains(netip.MustParseAddr("10.1.0.3")) &&
				slices.Equal(s.Owner.Deny, []portion.Portion{portion.MustParse("10.1.0.4")})
		})
	}, "a join with the portions of the file")
	if out, err := server.Run("ip", "-4", "addr", "show", "dev", "lo"); err != nil || !strings.Contains(out, "192.0.2.80/32") {
		t.Errorf("no VIP on lo: %v\n%s", err, out)
	}

	second, err := server.Run(argv...)
	if err == nil || !strings.Contains(second, "in use by another daemon") {
		t.Errorf("a second agent: %v\n%s", err, second)
	}

	agent.Signal(syscall.SIGTERM)
	if err := agent.Wait(); err != nil {
		t.Fatalf("clean stop: %v\n%s", err, agent.Output())
	}
	testnet.Eventually(t, 5*time.Second, func() bool {
		return slices.ContainsFunc(reports.joins(), func(s join.Signed) bool { return s.Leave })
	}, "a leave")
	if out, err := server.Run("ip", "-4", "addr", "show", "dev", "lo"); err != nil || strings.Contains(out, "192.0.2.80") {
		t.Errorf("the VIP is still there: %v\n%s", err, out)
	}
	if left, err := os.ReadDir(bpffs); err == nil && len(left) > 0 {
		t.Errorf("pins are left: %v", left)
	}
}

// TestNetUnhealthyAgentLeaves: without a bus, too, a failing application takes its server out of its groups, and back.
func TestNetUnhealthyAgentLeaves(t *testing.T) {
	n := testnet.New(t)
	router, server := n.Node("r"), n.Node("s1")
	n.Link(router, "down", "10.9.0.1/24", server, "eth0", "10.9.0.2/24")
	reports := listen(t, router, "down")
	app := filepath.Join(t.TempDir(), "application")
	last := func(leave bool) func() bool {
		return func() bool {
			all := reports.joins()
			return len(all) > 0 && all[len(all)-1].Leave == leave
		}
	}
	agent := server.Start(lbd(t, "agent", fmt.Sprintf("name = \"s1\"\ninterface = \"eth0\"\nbpffs = %q\nstate_dir = %q\n[keys]\nunsigned = true\n"+
		"[health]\ntype = \"command\"\ntarget = \"test -e %s\"\ninterval = \"50ms\"\nfailures = 2\nsuccesses = 2\n",
		filepath.Join(n.BPFFS(), "agent"), t.TempDir(), app))...)
	testnet.Eventually(t, 10*time.Second, func() bool { return strings.Contains(agent.Output(), "unhealthy") }, "a verdict")
	if all := reports.joins(); len(all) > 0 {
		t.Errorf("joins though its application has not been there: %+v", all)
	}
	for range 2 {
		if err := os.WriteFile(app, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		testnet.Eventually(t, 5*time.Second, last(false), "a join")
		if err := os.Remove(app); err != nil {
			t.Fatal(err)
		}
		testnet.Eventually(t, 5*time.Second, last(true), "a leave")
	}
	agent.Signal(syscall.SIGTERM)
	if err := agent.Wait(); err != nil {
		t.Fatalf("clean stop: %v\n%s", err, agent.Output())
	}
}

// TestNetDirectorStartsAndStops runs the director as a process of its own.
func TestNetDirectorStartsAndStops(t *testing.T) {
	n := testnet.New(t)
	user, edge := n.Node("u"), n.Node("d")
	n.Link(user, "eth0", "10.9.1.2/24", edge, "users", "10.9.1.1/24")
	bpffs := filepath.Join(n.BPFFS(), "director")
	argv := lbd(t, "director", fmt.Sprintf("name = \"d1\"\ninterfaces = [\"users\"]\nbpffs = %q\nstate_dir = %q\n", bpffs, t.TempDir()))
	director := edge.Start(argv...)
	testnet.Eventually(t, 10*time.Second, func() bool { return strings.Contains(director.Output(), "msg=ready") }, "ready")
	if pins, err := os.ReadDir(bpffs); err != nil || len(pins) == 0 {
		t.Errorf("nothing is pinned: %v", err)
	}
	director.Signal(syscall.SIGTERM)
	if err := director.Wait(); err != nil {
		t.Fatalf("clean stop: %v\n%s", err, director.Output())
	}
	if left, err := os.ReadDir(bpffs); err == nil && len(left) > 0 {
		t.Errorf("pins are left: %v", left)
	}
}

// lbd returns the command line of lbd with that configuration, with the static services.
func lbd(t *testing.T, role, config string) []string {
	dir := t.TempDir()
	file, pool := filepath.Join(dir, role+".toml"), filepath.Join(dir, "services.yaml")
	if role == "agent" {
		config += fmt.Sprintf("[handover]\nsocket = %q\n", filepath.Join(dir, "migrate.sock"))
	}
	for path, text := range map[string]string{file: fmt.Sprintf("services = %q\n", pool) + config, pool: services} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{"env", asLBD + "=1", self, role, "--config", file}
}

// heard collects the extended joins that reach an interface.
type heard struct {
	mu  sync.Mutex
	all []join.Signed
}

func (h *heard) joins() []join.Signed {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all)
}

func listen(t *testing.T, node *testnet.Node, ifname string) *heard {
	var conn net.PacketConn
	err := node.Do(func() error {
		c, err := net.ListenPacket("ip4:igmp", "0.0.0.0")
		if err != nil {
			return err
		}
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		conn = c
		return ipv4.NewPacketConn(c).JoinGroup(ifi, &net.IPAddr{IP: net.IPv4(224, 0, 0, 22)})
	})
	if err != nil {
		t.Fatal(err)
	}
	h := &heard{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.read(conn)
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	return h
}

func (h *heard) read(conn net.PacketConn) {
	buf := make([]byte, 65536)
	for {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		m, err := igmp.Parse(slices.Clone(buf[:n]))
		if err != nil {
			continue
		}
		if r, ok := m.(igmp.Report); ok {
			if joins, err := join.FromReport(r); err == nil {
				h.mu.Lock()
				h.all = append(h.all, joins...)
				h.mu.Unlock()
			}
		}
	}
}
