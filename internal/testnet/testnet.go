// Package testnet gives a test its own network of namespaces, cleaned up when the test ends. Names hold the process id, so
// packages test side by side. A test that cannot have its network fails; it is never skipped.
package testnet

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/netns"
	"golang.org/x/sys/unix"
)

const prefix = "mct"

var networks atomic.Int64 // makes names unique in this process

// Net is one test's network.
type Net struct {
	t     testing.TB
	id    string
	nodes map[string]*Node
}

// Node is a namespace of the network. Its addresses of IPv6 are of use at once: nobody looks for others who have them, which takes two seconds.
type Node struct {
	*netns.Namespace
	t testing.TB
}

// New fails the test at once where namespaces cannot be made.
func New(t testing.TB) *Net {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces and has to run as root: sudo make test-net (unit tests alone: make test-unit)")
	}
	sweep()
	return &Net{t: t, id: fmt.Sprintf("%s%d-%d-", prefix, os.Getpid(), networks.Add(1)), nodes: map[string]*Node{}}
}

// sweep deletes what test processes that were killed left behind.
func sweep() {
	names, _ := netns.List(prefix)
	for _, name := range slices.DeleteFunc(names, inUse) {
		_ = netns.Delete(name) // best effort: another test may be at it, too
	}
	sweepGroups()
}

// inUse says of a name whether the test process that has it lives, or that no test has it.
func inUse(name string) bool {
	pid, _, ok := strings.Cut(strings.TrimPrefix(name, prefix), "-")
	if !ok || strings.Trim(pid, "0123456789") != "" {
		return true
	}
	_, err := os.Stat("/proc/" + pid)
	return err == nil
}

// Node returns the node of that name; the first call makes it.
func (n *Net) Node(name string) *Node {
	n.t.Helper()
	if node, ok := n.nodes[name]; ok {
		return node
	}
	ns, err := netns.Create(n.id + name)
	if err != nil {
		n.t.Fatalf("node %s: %v (network namespaces need CAP_SYS_ADMIN and CAP_NET_ADMIN)", name, err)
	}
	node := &Node{Namespace: ns, t: n.t}
	n.nodes[name] = node
	n.t.Cleanup(func() { node.remove() })
	node.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	return node
}

// remove kills what still runs inside, by process id, and deletes the namespace.
func (n *Node) remove() {
	pids, _ := n.Processes()
	for _, pid := range pids {
		if pid != os.Getpid() {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended by itself
		}
	}
	if err := netns.Delete(n.Name()); err != nil {
		n.t.Errorf("remove node: %v", err)
	}
	n.Close()
}

// Link joins two nodes by a pair of interfaces that are up. Addresses carry their prefix length, "10.0.0.1/24"; empty: none.
func (n *Net) Link(a *Node, ifa, addrA string, b *Node, ifb, addrB string) {
	n.t.Helper()
	n.must(a.Veth(ifa, b.Namespace, ifb))
	n.must(a.Up(ifa))
	n.must(b.Up(ifb))
	a.Address(ifa, addrA)
	b.Address(ifb, addrB)
}

func (n *Net) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// Address adds an address with its prefix length; an empty one is none.
func (n *Node) Address(ifname, prefix string) {
	n.t.Helper()
	if prefix == "" {
		return
	}
	p, err := netip.ParsePrefix(prefix)
	if err == nil {
		err = n.Namespace.Address(ifname, p)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// Bridge makes a bridge that is up, with the given interfaces of the node as its ports.
func (n *Node) Bridge(name string, snooping bool, ports ...string) {
	n.t.Helper()
	if err := n.Namespace.Bridge(name, snooping); err != nil {
		n.t.Fatal(err)
	}
	for _, p := range ports {
		if err := n.Port(name, p); err != nil {
			n.t.Fatal(err)
		}
	}
}

// Route adds a route; dst is a prefix or "default"; via is a gateway's address or an interface's name.
func (n *Node) Route(dst, via string) {
	n.t.Helper()
	if dst == "default" {
		dst = "0.0.0.0/0"
	}
	p, err := netip.ParsePrefix(dst)
	if err != nil {
		n.t.Fatal(err)
	}
	if gw, e := netip.ParseAddr(via); e == nil {
		err = n.Namespace.Route(p, gw, "")
	} else {
		err = n.Namespace.Route(p, netip.Addr{}, via)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// Sysctl sets a key, "net.ipv4.ip_forward".
func (n *Node) Sysctl(key, value string) {
	n.t.Helper()
	if err := n.Namespace.Sysctl(key, value); err != nil {
		n.t.Fatal(err)
	}
}

// BPFFS mounts a bpffs in the test's temporary directory and returns its path.
func (n *Net) BPFFS() string {
	n.t.Helper()
	path := filepath.Join(n.t.TempDir(), "bpf")
	n.must(os.Mkdir(path, 0o700))
	if err := unix.Mount("bpf", path, "bpf", 0, "mode=0700"); err != nil {
		n.t.Fatalf("mount bpffs: %v (needs CAP_SYS_ADMIN and a kernel with BPF)", err)
	}
	n.t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			n.t.Errorf("unmount bpffs: %v", err)
		}
	})
	return path
}

// Eventually waits until cond holds and fails the test when it does not within that time; what goes into the message.
func Eventually(t testing.TB, within time.Duration, cond func() bool, what ...any) {
	t.Helper()
	for deadline := time.Now().Add(within); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, fmt.Sprint(what...))
		}
	}
}
