package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// vipsOfWeb are those that bind names.
var vipsOfWeb = []string{"192.0.2.80", "2001:db8::80"}

// How a router forwards users: by its kernel's tables, or by the fast path, which has the kernel do the rest.
const byKernel, byBoth = "users = \"kernel\"\n", "fast_path = true\n"

func TestVMUsersByMarksAlone(t *testing.T) {
	usersByMarks(t, [3]string{byKernel, byKernel, byKernel}, [3]string{"marked"})
}

func TestVMUsersByMarksThenXDP(t *testing.T) {
	usersByMarks(t, [3]string{byKernel, byBoth, byBoth}, [3]string{"marked", "swapped", "popped"})
}

func TestVMUsersByXDPThenKernel(t *testing.T) {
	usersByMarks(t, [3]string{byBoth, byKernel, byBoth}, [3]string{"pushed", "", "popped"})
}

func TestVMUsersByXDP(t *testing.T) {
	usersByMarks(t, [3]string{byBoth, byBoth, byBoth}, [3]string{"pushed", "swapped", "popped"})
}

func TestVMUsersByMarksBesideXDP(t *testing.T) {
	usersByMarks(t, [3]string{byBoth + byKernel, byBoth, byKernel}, [3]string{"marked", "swapped"})
}

// usersByMarks is told of each router how it forwards, and what its programs count then. Users of both families reach their server along its tree,
// whichever of the kernel and the fast path puts the label on, swaps it and takes it off. The tree is one of IPv4, no router has a route to the
// VIPs, and all daemons have their units' capabilities and CAP_BPF. Where both push, marks are for what the fast path leaves: it has no address of
// IPv6 here to tell of what is too long. Each is a test, for tools/vm to give it a machine: to load the fast path takes one its time.
func usersByMarks(t *testing.T, forwarding, does [3]string) {
	n := testnet.NewMPLS(t)
	r := newRigIn(t, n)
	r.caps = ",+bpf"
	r.usersOfBothFamilies(n)
	r.extra = "[servers]\naddresses = [\"10.9.0.80\"]\n"
	r.of = map[string]string{}
	bpffs := n.BPFFS()
	for i, name := range routers {
		r.of[name] = fmt.Sprintf("[forwarding]\nbpffs = %q\n%s", filepath.Join(bpffs, name), forwarding[i])
	}
	r.of["r1"] += "edge = [\"e\"]\n[users]\nupstream = [\"9.9.9.9\"]\n"
	for _, name := range routers { // one after the other: to load the fast path takes an emulated machine its time
		r.start(name)
		testnet.Eventually(t, 2*time.Minute, func() bool {
			_, ok := r.ask(name, "")
			return ok
		}, name, " answers")
	}
	r.operational("r2", 2)
	r.tree()
	r.bind("r1")
	for _, vip := range vipsOfWeb {
		testnet.Eventually(t, 30*time.Second, func() bool {
			_, err := r.nodes["u"].Run("ping", "-c", "1", "-W", "1", vip)
			return err == nil
		}, "an answer of ", vip)
		r.transfer(vip, 256<<10)
	}
	for i, name := range routers {
		if what := does[i]; what != "" && r.packets(name, what) < 100 {
			t.Errorf("%s has %s but %d packets", name, what, r.packets(name, what))
		}
	}
	if rules := strings.Count(r.run("r1", "sh", "-c", "ip rule; ip -6 rule"), "lookup 77001"); rules != 2 {
		t.Errorf("%d rules lead to the server's tables, want 2", rules)
	}

	// TTL and DSCP as without labels: three routers, three hops. Whose packet is too long, or too old, is told so.
	capture := r.nodes["s"].Start("tcpdump", "-l", "-n", "-v", "-i", "eth0", "icmp[icmptype] == icmp-echo or (icmp6 and ip6[40] == 128)")
	testnet.Eventually(t, 30*time.Second, func() bool { return strings.Contains(capture.Output(), "listening on") }, "the capture")
	for _, vip := range vipsOfWeb {
		r.run("u", "ping", "-c", "3", "-W", "2", "-t", "40", "-Q", "0xb8", vip)
		out, _ := r.nodes["u"].Run("ping", "-c", "1", "-W", "2", "-t", "1", vip)
		if !regexp.MustCompile("Time to live exceeded|Hop limit").MatchString(out) {
			t.Errorf("a TTL of 1 to %s: %s", vip, out)
		}
	}
	testnet.Eventually(t, 10*time.Second, func() bool { // who fails shows what was captured
		out := capture.Output()
		return regexp.MustCompile(`tos 0xb8, ttl 37,`).MatchString(out) && regexp.MustCompile(`class 0xb8, (flowlabel 0x[0-9a-f]+, )?hlim 37,`).MatchString(out)
	}, "packets with TTL 37 and their DSCP")
	r.flushed()
	for vip, size := range map[string]string{vipsOfWeb[0]: "1472", vipsOfWeb[1]: "1452"} { // 1,500 bytes, and a label on top
		out, _ := r.nodes["u"].Run("ping", "-c", "1", "-W", "2", "-M", "do", "-s", size, vip)
		if !regexp.MustCompile(`mtu ?= ?1496`).MatchString(out) {
			t.Errorf("1,500 bytes to %s: %s", vip, out)
		}
	}

	for _, name := range routers {
		r.daemons[name].Signal(unix.SIGTERM)
		if err := r.daemons[name].Wait(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, r.daemons[name].Output())
		}
		if left, err := os.ReadDir(filepath.Join(bpffs, name)); err == nil {
			t.Errorf("%s left %v", name, left)
		}
		if out := r.run(name, "sh", "-c", "ip rule; ip -6 rule; ip route show table all proto 77; ip -6 route show table all proto 77; tc filter show dev a ingress"); strings.Contains(out, "77") {
			t.Errorf("%s has still\n%s", name, out)
		}
	}
	if out := r.run("r1", "tc", "filter", "show", "dev", "e", "ingress"); out != "" {
		t.Errorf("r1 still marks: %s", out)
	}
}

// usersOfBothFamilies adds a node u with users before r1, and the VIPs at s.
func (r *rig) usersOfBothFamilies(n *testnet.Net) {
	r.t.Helper()
	r.nodes["u"] = n.Node("u")
	n.Link(r.nodes["u"], "eth0", "10.1.0.11/24", r.nodes["r1"], "e", "10.1.0.1/24")
	r.nodes["u"].Route("0.0.0.0/0", "10.1.0.1")
	r.run("r2", "ip", "route", "add", "10.1.0.0/24", "via", "10.0.12.1", "metric", "20")
	r.run("r3", "ip", "route", "add", "10.1.0.0/24", "via", "10.0.23.2", "metric", "20")
	r.nodes["s"].Address("lo", "192.0.2.80/32")
	r.ipv6()
	ends := [][2]string{{"u", "eth0"}, {"r1", "e"}, {"r1", "a"}, {"r2", "a"}, {"r2", "b"}, {"r3", "a"}, {"r3", "c"}, {"s", "eth0"}}
	for _, x := range ends { // users' packets take labels one way, answers the other
		node := r.nodes[x[0]]
		if err := errors.Join(node.WholeChecksums(x[1]), node.TakesXDP(x[1])); err != nil {
			r.t.Fatal(err)
		}
	}
}

// flushed has the user forget what it was told of long packets.
func (r *rig) flushed() {
	r.t.Helper()
	r.run("u", "ip", "route", "flush", "cache")
	r.run("u", "ip", "-6", "route", "flush", "cache")
}

// transfer sends bytes from the user to a VIP.
func (r *rig) transfer(vip string, size int64) {
	r.t.Helper()
	address := netip.AddrPortFrom(netip.MustParseAddr(vip), 80).String()
	l, err := r.nodes["s"].Listen("tcp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	defer l.Close()
	got := testnet.Received(l)
	err = r.nodes["u"].Do(func() error {
		c, err := net.DialTimeout("tcp", address, 20*time.Second)
		if err == nil {
			err = c.SetDeadline(time.Now().Add(time.Minute))
		}
		if err != nil {
			return err
		}
		_, err = c.Write(make([]byte, size))
		return errors.Join(err, c.Close())
	})
	if err != nil {
		r.t.Fatalf("to %s: %v", vip, err)
	}
	select {
	case n := <-got:
		if n != size {
			r.t.Errorf("%d bytes came to %s, of %d", n, vip, size)
		}
	case <-time.After(time.Minute):
		r.t.Errorf("not all bytes come to %s", vip)
	}
}
