package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/controltest"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/store"
)

const dynamicService = "name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [udp/80]\nslots: suffix/1\n"

// TestNetStandbyTakesOver: two agents on one link, without a leader and without a bus, serve what they served last. One is stopped
// for a moment: its users go to the other, and stay there while it is fenced. When it is back, it is killed.
func TestNetStandbyTakesOver(t *testing.T) {
	n := testnet.New(t)
	lan, user := n.Node("lan"), n.Node("u")
	n.Link(lan, "u", "", user, "eth0", "10.9.0.100/24")
	user.Route("224.0.0.0/4", "10.9.0.1")
	agents := map[string]*testnet.Process{}
	got := &received{by: map[string]map[uint32]bool{"s1": {}, "s2": {}}}
	for i, name := range []string{"s1", "s2", "s3"} {
		node := n.Node(name)
		n.Link(lan, name, "", node, "eth0", fmt.Sprintf("10.9.0.%d/24", i+1))
		if name != "s3" { // who is heard by both, so that neither thinks that it is cut off
			got.listen(t, node, name)
		}
		agents[name] = node.Start(takeoverAgent(t, n, name, netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}))...)
	}
	lan.Bridge("br0", false, "u", "s1", "s2", "s3")
	got.send(t, user)
	served := func(name string) func() bool { return func() bool { return got.last() == name } }
	testnet.Eventually(t, 15*time.Second, served("s1"), "s1 to serve: it is the owner of even users")

	stopped := time.Now()
	agents["s1"].Signal(syscall.SIGSTOP)
	testnet.Eventually(t, 3*time.Second, served("s2"), "s2 to take over")
	t.Logf("taken over %v after the owner was stopped", time.Since(stopped).Round(time.Millisecond))
	agents["s1"].Signal(syscall.SIGCONT)
	testnet.Eventually(t, 3*time.Second, func() bool { return contains(agents["s1"], "takes nobody until") }, "s1 to be fenced")
	if got.last() != "s2" {
		t.Error("s1 serves though it is fenced")
	}
	testnet.Eventually(t, 10*time.Second, served("s1"), "s1 to come back")

	killed := time.Now()
	agents["s1"].Signal(syscall.SIGKILL)
	testnet.Eventually(t, 3*time.Second, served("s2"), "s2 to take over again")
	t.Logf("taken over %v after the owner was killed", time.Since(killed).Round(time.Millisecond))
	if twice := got.twice(); twice > 0 {
		t.Errorf("%d packets went to both servers", twice)
	}
	for _, name := range []string{"s2", "s3"} {
		agents[name].Signal(syscall.SIGTERM)
		if err := agents[name].Wait(); err != nil {
			t.Errorf("clean stop of %s: %v\n%s", name, err, agents[name].Output())
		}
	}
}

// TestNetConnectionsToAStandbyGoOn: a user connects to who stands in, its owner comes back, and routers bring it there again. Neither knows a leader.
func TestNetConnectionsToAStandbyGoOn(t *testing.T) {
	n := testnet.New(t)
	lan, user := n.Node("lan"), n.Node("u")
	n.Link(lan, "u", "", user, "eth0", "10.9.0.100/24")
	at := netip.MustParseAddrPort("192.0.2.80:80")
	user.Route("192.0.2.80/32", "10.9.0.1")
	nodes, agents := map[string]*testnet.Node{}, map[string]*testnet.Process{}
	for i, name := range []string{"s1", "s2", "s3"} {
		node := n.Node(name)
		n.Link(lan, name, "", node, "eth0", fmt.Sprintf("10.9.0.%d/24", i+1))
		nodes[name] = node
		agents[name] = node.Start(takeoverAgentOf(t, n, name, netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}),
			"name: web\nvip: 192.0.2.80\nmode: tags\nports: [tcp/80]\nslots: suffix/1\nhandover: forward\n")...)
	}
	lan.Bridge("br0", false, "u", "s1", "s2", "s3")
	bring := func(server string) { // as a router does
		var port *net.Interface
		must(t, nodes[server].Do(func() (err error) {
			port, err = net.InterfaceByName("eth0")
			return err
		}))
		_, err := user.Run("ip", "neigh", "replace", "10.9.0.1", "lladdr", port.HardwareAddr.String(), "dev", "eth0", "nud", "permanent")
		must(t, err)
	}
	repeat(t, nodes["s1"], at)
	repeat(t, nodes["s2"], at)
	var c net.Conn
	connects := func(server string) func() bool {
		return func() bool {
			d, err := user.DialContext(t.Context(), "tcp", at.String())
			if err != nil {
				return false
			}
			out, err := nodes[server].Run("ss", "-Htn", "state", "established", "dst", d.LocalAddr().String())
			if err != nil || out == "" {
				d.Close()
				return false
			}
			c = d
			t.Cleanup(func() { d.Close() })
			return true
		}
	}
	bring("s1")
	testnet.Eventually(t, 15*time.Second, connects("s1"), "s1 to serve: it is the owner of even users")
	time.Sleep(time.Second) // who is stopped in the turn in which it begins to serve has told nobody, and no time of its has run out

	agents["s1"].Signal(syscall.SIGSTOP)
	bring("s2")
	time.Sleep(time.Second) // in which it is found to be silent
	testnet.Eventually(t, 10*time.Second, connects("s2"), "s2 to stand in")
	kept := c
	echo := func(when string) {
		t.Helper()
		buf := make([]byte, len(when))
		must(t, kept.SetDeadline(time.Now().Add(5*time.Second)))
		if _, err := io.WriteString(kept, when); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if _, err := io.ReadFull(kept, buf); err != nil || string(buf) != when {
			t.Fatalf("%s: %q, %v", when, buf, err)
		}
	}
	echo("while s2 stands in")

	agents["s1"].Signal(syscall.SIGCONT)
	testnet.Eventually(t, 3*time.Second, func() bool { return contains(agents["s1"], "takes nobody until") }, "s1 to be fenced")
	time.Sleep(7 * time.Second) // and back
	echo("s1 is back")
	bring("s1")
	for i := range 30 { // longer than it is taken for granted that s2 holds something
		echo(fmt.Sprintf("s1 is back, %d", i))
		time.Sleep(500 * time.Millisecond)
	}
	for _, name := range []string{"s1", "s2", "s3"} {
		agents[name].Signal(syscall.SIGTERM)
		if err := agents[name].Wait(); err != nil {
			t.Errorf("clean stop of %s: %v\n%s", name, err, agents[name].Output())
		}
	}
}

// repeat answers each connection with all that it says.
func repeat(t *testing.T, node *testnet.Node, at netip.AddrPort) {
	t.Helper()
	serveWhenThere(t, node, at, func(c net.Conn) { _, _ = io.Copy(c, c) })
}

// takeoverAgent is the command line of an agent that knows services and allocation from an earlier run: its bus is away.
func takeoverAgent(t *testing.T, n *testnet.Net, name string, address netip.Addr) []string {
	return takeoverAgentOf(t, n, name, address, dynamicService)
}

// takeoverAllocation is what agents know from an earlier run: even users are s1's, odd ones s2's.
func takeoverAllocation() alloc.Allocation {
	return alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: 1}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 1}, Servers: []string{"s1", "s2"},
		Owner: []uint16{0, 1}, Standby: []uint16{1, 0}, Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")},
	}
}

func takeoverAgentOf(t *testing.T, n *testnet.Net, name string, address netip.Addr, services string) []string {
	dir, now := t.TempDir(), time.Now()
	keys := filepath.Join(dir, "groups")
	must(t, os.Mkdir(keys, 0o700))
	web := keyfile.Group{Name: "web.example.", Address: netip.MustParseAddr("239.80.80.80"), Private: ed25519.NewKeyFromSeed(make([]byte, 32))}
	for _, g := range append(serviceKeys(), web, controltest.GroupKey(1)) {
		must(t, keyfile.WriteGroup(filepath.Join(keys, g.FileName()), g, false))
	}
	identity, authority := filepath.Join(dir, "identity.key"), filepath.Join(dir, "authority.key")
	must(t, keyfile.WriteIdentity(identity, controltest.Identity(name, control.Server, false, address, now), false))
	must(t, keyfile.WriteAuthority(authority, controltest.Authority(), false))
	_, err := bus.NATSConfig(dir) // makes credentials
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "services.yaml"), []byte(services), 0o600))
	must(t, store.Shelf{Dir: dir}.Keep("web", takeoverAllocation()))
	config := fmt.Sprintf(`name = %q
interface = "eth0"
bpffs = %q
state_dir = %q
serve = ["web"]
[keys]
dir = %q
member = ""
[bus]
urls = ["nats://127.0.0.1:1"]
credentials = %q
[control]
group = %q
identity = %q
authority = %q
[handover]
socket = %q
`, name, filepath.Join(n.BPFFS(), name), dir, keys, bus.CredentialsPath(dir, "agent"), controltest.Group, identity, authority+".pub", filepath.Join(dir, "migrate.sock"))
	file := filepath.Join(dir, "agent.toml")
	must(t, os.WriteFile(file, []byte(config), 0o600))
	self, err := os.Executable()
	must(t, err)
	return []string{"env", asLBD + "=1", self, "agent", "--config", file}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func contains(p *testnet.Process, text string) bool {
	return strings.Contains(p.Output(), text)
}

// received are the numbers of the packets that each server's application got.
type received struct {
	mu     sync.Mutex
	by     map[string]map[uint32]bool
	newest string
}

func (r *received) listen(t *testing.T, node *testnet.Node, name string) {
	var conn net.PacketConn
	must(t, node.Do(func() (err error) {
		conn, err = net.ListenPacket("udp4", "0.0.0.0:80")
		return err
	}))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 64)
		for {
			size, _, err := conn.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			var number uint32
			if _, err := fmt.Sscan(string(buf[:size]), &number); err != nil {
				continue
			}
			r.mu.Lock()
			r.by[name][number], r.newest = true, name
			r.mu.Unlock()
		}
	}()
	t.Cleanup(func() { conn.Close(); <-ended })
}

// send sends numbered packets to the group until the test ends.
func (r *received) send(t *testing.T, user *testnet.Node) {
	var conn net.Conn
	must(t, user.Do(func() (err error) {
		conn, err = net.Dial("udp4", "239.80.80.80:80")
		return err
	}))
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for number := uint32(1); ; number++ {
			_, _ = fmt.Fprint(conn, number) // whoever gets it shows
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-ended; conn.Close() })
}

func (r *received) last() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest
}

func (r *received) twice() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for number := range r.by["s1"] {
		if r.by["s2"][number] {
			n++
		}
	}
	return n
}
