package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

// The test binary is a process that sets entries, too, so that there is one to kill. helperEnv tells it where former settings are.
const helperEnv = "MANYCAST_TDPD_KERNEL_TEST_HELPER"

func TestMain(m *testing.M) {
	file := os.Getenv(helperEnv)
	if file == "" {
		os.Exit(m.Run())
	}
	fmt.Println(helper(file))
	select {} // until it is killed
}

func helper(file string) string {
	l, err := Open(Config{PlatformLabels: 1000, Former: file}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err.Error()
	}
	s, err := pushState()
	if err == nil {
		err = l.Set(s)
	}
	if err != nil {
		return err.Error()
	}
	return "ready"
}

// rig is a - b - c, with two links from b to c. c has the addresses that labels lead to; b has no route to them.
type rig struct {
	t       testing.TB
	a, b, c *testnet.Node
	file    string
}

var targets = []netip.Prefix{netip.MustParsePrefix("192.0.2.80/32"), netip.MustParsePrefix("2001:db8::80/128")}

func newRig(t testing.TB) *rig {
	n := testnet.NewMPLS(t)
	r := &rig{t: t, a: n.Node("a"), b: n.Node("b"), c: n.Node("c"), file: filepath.Join(t.TempDir(), "former")}
	for _, node := range []*testnet.Node{r.a, r.b, r.c} {
		for _, s := range []string{"net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
			"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"} {
			key, value, _ := strings.Cut(s, "=")
			node.Sysctl(key, value)
		}
	}
	for i, l := range []struct {
		from, to *testnet.Node
		at, peer string
	}{{r.a, r.b, "ab", "ba"}, {r.b, r.c, "bc1", "cb1"}, {r.b, r.c, "bc2", "cb2"}} {
		n.Link(l.from, l.at, fmt.Sprintf("10.0.%d.1/24", i), l.to, l.peer, fmt.Sprintf("10.0.%d.2/24", i))
		l.from.Address(l.at, fmt.Sprintf("fd00:%d::1/64", i))
		l.to.Address(l.peer, fmt.Sprintf("fd00:%d::2/64", i))
	}
	for _, p := range targets {
		r.c.Address("lo", p.String())
	}
	r.c.Route("10.0.0.0/24", "10.0.1.1")
	r.c.Route("fd00:0::/64", "fd00:1::1")
	return r
}

func index(name string) int {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0
	}
	return i.Index
}

// pushState, of a: labels for the targets. It is made inside the node.
func pushState() (State, error) {
	ab := index("ab")
	if ab == 0 {
		return State{}, errors.New("no interface ab")
	}
	return State{Interfaces: []string{"ab"}, Labels: map[uint32][]Hop{}, Prefixes: map[netip.Prefix][]Hop{
		targets[0]: {{Labels: []uint32{100}, Via: netip.MustParseAddr("10.0.0.2"), Interface: ab}},
		targets[1]: {{Labels: []uint32{200}, Via: netip.MustParseAddr("fd00:0::2"), Interface: ab}},
	}}, nil
}

// swapState, of b: from label 100 and 200 on to c by the numbered links; labels out are base + 1 and base + 2.
func swapState(base uint32, links ...int) State {
	s := State{Interfaces: []string{"ba"}, Labels: map[uint32][]Hop{}}
	for _, i := range links {
		at := index(fmt.Sprintf("bc%d", i))
		s.Labels[100] = append(s.Labels[100], Hop{Labels: []uint32{base + 1}, Via: netip.MustParseAddr(fmt.Sprintf("10.0.%d.2", i)), Interface: at})
		s.Labels[200] = append(s.Labels[200], Hop{Labels: []uint32{base + 2}, Via: netip.MustParseAddr(fmt.Sprintf("fd00:%d::2", i)), Interface: at})
	}
	return s
}

// popState, of c: pops the labels of swapState, for both bases that tests use.
func popState() State {
	s := State{Interfaces: []string{"cb1", "cb2", "lo"}, Labels: map[uint32][]Hop{}}
	for _, base := range []uint32{300, 400} {
		for i := range uint32(2) {
			s.Labels[base+1+i] = []Hop{{Interface: index("lo")}}
		}
	}
	return s
}

func (r *rig) open(node *testnet.Node) *Linux {
	r.t.Helper()
	var l *Linux
	r.do(node, func() (err error) {
		l, err = Open(Config{PlatformLabels: 1000, Former: filepath.Join(r.t.TempDir(), "former")}, slog.New(slog.NewTextHandler(r.t.Output(), nil)))
		return err
	})
	r.t.Cleanup(func() {
		if err := node.Do(func() error { return l.Close(false) }); err != nil {
			r.t.Error(err)
		}
	})
	return l
}

func (r *rig) do(node *testnet.Node, f func() error) {
	r.t.Helper()
	if err := node.Do(f); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) set(node *testnet.Node, l *Linux, s func() State) {
	r.t.Helper()
	r.do(node, func() error { return l.Set(s()) })
}

func (r *rig) run(node *testnet.Node, command string) string {
	r.t.Helper()
	out, err := node.Command(context.Background(), "sh", "-c", command).CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (r *rig) ping() {
	r.t.Helper()
	for _, p := range targets {
		r.run(r.a, fmt.Sprintf("ping -c 3 -i 0.1 -W 2 %v", p.Addr()))
	}
}

// flood pings all targets while f runs, and checks that no answer is missing.
func (r *rig) flood(f func()) {
	r.t.Helper()
	var floods []*testnet.Process
	for _, p := range targets {
		floods = append(floods, r.a.Start("ping", "-i", "0.002", p.Addr().String()))
	}
	more := func() { // of traffic before, and after
		for _, p := range floods {
			answers := func() int { return strings.Count(p.Output(), " bytes from ") }
			had := answers()
			testnet.Eventually(r.t, 20*time.Second, func() bool { return answers() >= had+50 }, "more answers than ", had, " to pings")
		}
	}
	more()
	f()
	more()
	for _, p := range floods {
		p.Signal(os.Interrupt)
		_ = p.Wait()
		var sent, got int
		_, line, _ := strings.Cut(p.Output(), "statistics ---\n")
		if _, err := fmt.Sscanf(line, "%d packets transmitted, %d received", &sent, &got); err != nil || sent < 50 || sent-got > 1 { // one may be on its way at the end
			r.t.Errorf("%v: %s", err, p.Output())
		}
		r.t.Logf("%d pings, %d answers", sent, got)
	}
}

// transfer sends over TCP from a to c, and checks that all comes.
func (r *rig) transfer() {
	r.t.Helper()
	const size = 4 << 20
	for _, p := range targets {
		l, err := r.c.Listen("tcp", netip.AddrPortFrom(p.Addr(), 5000).String())
		if err != nil {
			r.t.Fatal(err)
		}
		got := testnet.Received(l)
		ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
		c, err := r.a.DialContext(ctx, "tcp", l.Addr().String())
		cancel()
		if err != nil {
			r.t.Fatal(err)
		}
		if _, err := c.Write(make([]byte, size)); err != nil {
			r.t.Error(err)
		}
		c.Close()
		if n := <-got; n != size {
			r.t.Errorf("%v: %d bytes came of %d", p.Addr(), n, size)
		}
		l.Close()
	}
}
