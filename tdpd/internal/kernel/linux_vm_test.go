package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"golang.org/x/sys/unix"
)

func push() State {
	s, err := pushState()
	if err != nil {
		panic(err)
	}
	return s
}

// chain sets entries in all nodes.
func (r *rig) chain() (a, b, c *Linux) {
	r.t.Helper()
	a, b, c = r.open(r.a), r.open(r.b), r.open(r.c)
	r.set(r.c, c, popState)
	r.set(r.b, b, func() State { return swapState(300, 1) })
	r.set(r.a, a, push)
	return a, b, c
}

func TestVMChainPushesSwapsAndPops(t *testing.T) {
	r := newRig(t)
	if out, err := r.b.Run("ip", "route", "get", "192.0.2.80"); err == nil {
		t.Fatalf("b could forward without labels: %s", out)
	}
	a, b, _ := r.chain()
	r.ping()
	r.transfer()
	r.flood(func() { // other labels
		for i := range 20 {
			r.set(r.b, b, func() State { return swapState(300+100*uint32(i%2), 1) })
		}
	})
	r.flood(func() { // another link, two, and one again
		for range 5 {
			for _, links := range [][]int{{2}, {1, 2}, {1}, {1, 2}, {2}} {
				r.set(r.b, b, func() State { return swapState(300, links...) })
			}
		}
	})
	r.set(r.b, b, func() State { return swapState(300, 1, 2) })
	for _, want := range []string{"via inet 10.0.1.2", "via inet 10.0.2.2"} {
		if out := r.run(r.b, "ip -f mpls route show 100"); !strings.Contains(out, want) {
			t.Errorf("%s; want %s", out, want)
		}
	}
	r.ping()
	r.flood(func() { // by two links, with one stack of two labels: the inner one is popped in c, too
		for i := range 10 {
			r.do(r.a, func() error {
				s := push()
				if i%2 == 0 {
					for p := range s.Prefixes {
						s.Prefixes[p][0].Labels = append(s.Prefixes[p][0].Labels, 301)
					}
				}
				return a.Set(s)
			})
		}
	})
}

func TestVMTwoPathsShareFlows(t *testing.T) {
	r := newRig(t)
	_, b, _ := r.chain()
	r.set(r.b, b, func() State { return swapState(300, 1, 2) })
	counts := func() (n [2]int) {
		for i := range n {
			fmt.Sscan(r.run(r.b, fmt.Sprintf("awk '/bc%d:/{print $11}' /proc/net/dev", i+1)), &n[i])
		}
		return n
	}
	for i := range 40 {
		r.a.Address("ab", fmt.Sprintf("10.0.0.%d/24", 10+i))
	}
	before := counts()
	for i := range 40 {
		r.run(r.a, fmt.Sprintf("ping -c 1 -W 2 -I 10.0.0.%d 192.0.2.80", 10+i))
	}
	after := counts()
	for i := range after {
		if after[i]-before[i] < 5 {
			t.Errorf("packets by the two links: %v before, %v after", before, after)
		}
	}
}

func TestVMKilledProcessIsTakenOver(t *testing.T) {
	r := newRig(t)
	b, c := r.open(r.b), r.open(r.c)
	r.set(r.c, c, popState)
	r.set(r.b, b, func() State { return swapState(300, 1) })
	start := r.a.Start("env", helperEnv+"="+r.file, os.Args[0])
	testnet.Eventually(t, 10*time.Second, func() bool { return strings.Contains(start.Output(), "\n") }, "the process has set its entries")
	if start.Output() != "ready\n" {
		t.Fatal(start.Output())
	}
	var next *Linux
	r.flood(func() {
		start.Signal(unix.SIGKILL)
		_ = start.Wait()
		monitor := r.a.Start("ip", "monitor", "route")
		time.Sleep(100 * time.Millisecond) // it subscribes
		r.do(r.a, func() (err error) {
			if next, err = Open(Config{PlatformLabels: 1000, Former: r.file}, slog.New(slog.DiscardHandler)); err != nil {
				return err
			}
			found, err := next.Entries()
			if want := push(); err != nil || fmt.Sprint(found.Prefixes) != fmt.Sprint(want.Prefixes) {
				t.Errorf("found %v, %v; want %v", found, err, want)
			}
			return next.Set(push())
		})
		time.Sleep(100 * time.Millisecond) // for what it might hear
		if next.routes.sent != 0 || monitor.Output() != "" {
			t.Errorf("taking over took %d changes: %s", next.routes.sent, monitor.Output())
		}
	})
	r.do(r.a, func() error { return next.Close(false) })
	r.nothing(r.a)
}

// nothing checks that the node is as if nobody had ever set entries.
func (r *rig) nothing(node *testnet.Node) {
	r.t.Helper()
	out := r.run(node, "ip -f mpls route; ip route show proto 1; ip -6 route show proto 1; cat /proc/sys/net/mpls/platform_labels; cat /proc/sys/net/mpls/conf/*/input | sort -u")
	if out != "0\n0" {
		r.t.Errorf("left: %s", out)
	}
}

func TestVMCleanStopLeavesNothingOfOurs(t *testing.T) {
	r := newRig(t)
	r.c.Sysctl("net.mpls.platform_labels", "20")
	r.run(r.c, "ip -f mpls route add 18 dev lo")
	c := r.open(r.c)
	r.set(r.c, c, popState)
	r.run(r.c, "ip -f mpls route add 500 dev lo; ip -f mpls route add 501 dev lo; ip route add 192.0.2.7 via 10.0.1.1 metric 1")

	var err error
	r.do(r.c, func() error {
		s := popState()
		s.Labels[500] = s.Labels[301]
		s.Labels[1000] = s.Labels[301]
		s.Labels[600] = []Hop{{Labels: []uint32{16}, Via: netip.MustParseAddr("10.0.1.1"), Interface: 9999}}
		s.Labels[601] = s.Labels[301]
		s.Prefixes = map[netip.Prefix][]Hop{netip.MustParsePrefix("192.0.2.7/32"): {{Labels: []uint32{16}, Via: netip.MustParseAddr("10.0.1.1"), Interface: index("cb1")}}}
		err = c.Set(s)
		return nil
	})
	var failures Failures
	if !errors.As(err, &failures) || len(failures) != 4 {
		t.Fatalf("failures: %v", err)
	}
	for _, want := range []string{"label 500: somebody else has an entry", "label 1000: beyond net.mpls.platform_labels, which is 1000", "label 600: ",
		"prefix 192.0.2.7/32: somebody else has a route of metric 1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	if others, e := c.Others(); e != nil || !LabelsTaken(err) || fmt.Sprint(others) != "[18 500 501]" {
		t.Errorf("labels of others: %v, %v; taken: %v", others, e, LabelsTaken(err))
	}
	if out := r.run(r.c, "ip -f mpls route show 601"); out == "" {
		t.Error("a right entry among wrong ones is not there")
	}
	// Somebody takes a label that is ours: it is not taken back, and not removed.
	r.run(r.c, "ip -f mpls route replace 302 via inet 10.0.1.1")
	if err := r.c.Do(func() error { return c.Set(popState()) }); err == nil || !strings.Contains(err.Error(), "label 302: somebody else") {
		t.Error(err)
	}
	r.do(r.c, func() error { return c.Close(false) })
	out := r.run(r.c, "ip -f mpls route | cut -d' ' -f1 | sort -n | xargs; ip route show metric 1; cat /proc/sys/net/mpls/platform_labels /proc/sys/net/mpls/conf/cb1/input")
	if want := "18 302 500 501\n192.0.2.7 via 10.0.1.1 dev cb1 \n502\n0"; out != want {
		t.Errorf("left:\n%s\nwant:\n%s", out, want)
	}
}

func TestVMKeepingStopLeavesAll(t *testing.T) {
	r := newRig(t)
	var l *Linux
	r.do(r.c, func() (err error) {
		if l, err = Open(Config{PlatformLabels: 1000, Former: filepath.Join(t.TempDir(), "former")}, slog.New(slog.DiscardHandler)); err != nil {
			return err
		}
		return errors.Join(l.Set(popState()), l.Close(true))
	})
	if out := r.run(r.c, "ip -f mpls route show proto 77 | wc -l; cat /proc/sys/net/mpls/platform_labels"); out != "4\n1000" {
		t.Errorf("left: %s", out)
	}
}

func TestVMChangesByOthersAreNoticed(t *testing.T) {
	r := newRig(t)
	a, b, c := r.chain()
	noticed := func(l *Linux, command string, node *testnet.Node) {
		t.Helper()
		select {
		case <-l.Changed():
		default:
		}
		r.run(node, command)
		select {
		case <-l.Changed():
		case <-time.After(5 * time.Second):
			t.Errorf("%s: not noticed", command)
		}
	}
	noticed(a, "ip link set ab down; ip link set ab up", r.a)
	if out := r.run(r.a, "ip route show proto 1"); out != "" {
		t.Fatalf("the kernel kept the route: %s", out)
	}
	r.a.Address("ab", "fd00:0::1/64") // it went with the link
	r.set(r.a, a, push)
	r.ping()
	noticed(b, "ip -f mpls route del 100", r.b)
	r.set(r.b, b, func() State { return swapState(300, 1) })
	noticed(c, "sysctl -qw net.mpls.platform_labels=100", r.c)
	r.set(r.c, c, popState)
	r.ping()
	noticed(a, "ip route del 192.0.2.80 proto 1", r.a)
	r.set(r.a, a, push)
	r.ping()

	// What others do to what is not ours, and what we do, is no reason.
	time.Sleep(2 * settle)
	select {
	case <-a.Changed():
	default:
	}
	r.run(r.a, "ip route add 198.51.100.0/24 via 10.0.0.2; ip route del 198.51.100.0/24")
	r.run(r.a, "ip link add veth0 type veth peer name veth1; ip link set veth0 up; ip link set veth1 up; ip link del veth0; ip link set ab promisc on")
	r.do(r.a, func() error { return errors.Join(a.Set(State{Interfaces: []string{"ab"}}), a.Set(push())) })
	select {
	case <-a.Changed():
		t.Error("foreign routes, links without routes of ours and own changes are signalled")
	case <-time.After(4 * settle):
	}
}
