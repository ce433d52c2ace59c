package labels_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/discovery"
	"github.com/manycast/manycast/tdpd/internal/forwarding"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// The chain: routers 0, 1 and 2, and the server behind router 2. Interface i leads to router i, interface 7 to the server.
const (
	routers  = 3
	toServer = 7
)

var (
	server   = netip.MustParsePrefix("198.51.100.7/32")
	network  = netip.MustParsePrefix("203.0.113.0/24") // of router 2
	network6 = netip.MustParsePrefix("2001:db8:113::/48")
)

// router is one of the chain, with the kernel's tables that follow from what it says.
type router struct {
	l      *labels.Labels
	tables *forwarding.Tables
	kernel kernel.State
	up     map[int]bool
	in     map[int][]wire.Message // by the neighbour
}

// chain is the routers, back to back.
type chain struct {
	*rand.Rand
	t       *testing.T
	cfg     labels.Config
	routers [routers]*router
	now     time.Time
}

func lsr(i int) wire.Identifier { return wire.Identifier{LSR: wire.LSRID{10, 255, 0, byte(i)}} }

// address is that of router i on the link to router j.
func address(i, j int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(min(i, j)), byte(max(i, j)), byte(i)})
}

func newChain(t *testing.T, seed uint64, cfg labels.Config) *chain {
	c := &chain{Rand: rand.New(rand.NewPCG(seed, 3)), t: t, cfg: cfg, now: start}
	for i := range c.routers {
		c.routers[i] = &router{kernel: kernel.State{Labels: map[uint32][]kernel.Hop{}, Prefixes: map[netip.Prefix][]kernel.Hop{}}}
		c.begin(i)
	}
	return c
}

// begin starts router i; what the kernel has is left.
func (c *chain) begin(i int) {
	cfg := c.cfg
	cfg.LSR = lsr(i).LSR
	cfg.First = wire.Label(100 * (i + 1)) // a label names its router
	cfg.Last = cfg.First + 50
	r := c.routers[i]
	r.l, r.tables, r.up, r.in = must(labels.New(cfg)), forwarding.New(), map[int]bool{}, map[int][]wire.Message{}
}

// routes of router i, to all that is behind router 2.
func (c *chain) routes(i int) (all []labels.Route) {
	for _, p := range []netip.Prefix{server, network, network6} {
		r := labels.Route{Prefix: p, NextHops: []labels.NextHop{{Address: address(i+1, i), Interface: fmt.Sprint("eth", i+1), Index: i + 1}}}
		switch {
		case i < routers-1:
		case p == server:
			r.Kind, r.NextHops = labels.Server, []labels.NextHop{{Address: server.Addr(), Interface: "eth7", Index: toServer}}
		default:
			r.Kind, r.NextHops = labels.Attached, nil
		}
		all = append(all, r)
	}
	return all
}

func (c *chain) act(i int, actions []labels.Action) {
	r := c.routers[i]
	for _, a := range actions {
		switch a := a.(type) {
		case labels.Changed:
			c.forward(r, a.FECs)
		case labels.Say:
			j := int(a.Peer.LSR[3])
			m := must(wire.AppendMessage(nil, a.Message)) // it can be sent at all
			if len(m) > 256-10 {
				c.t.Fatalf("%s has %d bytes, too many for the smallest PDU", messageText(a.Message), len(m))
			}
			c.routers[j].in[i] = append(c.routers[j].in[i], a.Message)
		case labels.Recovered:
			r.kernel = r.tables.State()
		}
	}
}

func (c *chain) forward(r *router, fecs []netip.Prefix) {
	var views []labels.View
	var gone []netip.Prefix
	for _, p := range fecs {
		if v, routed := r.l.View(p); routed {
			views = append(views, v)
		} else {
			gone = append(gone, p)
		}
	}
	changes := r.tables.Update(views, gone)
	apply(r.kernel.Labels, changes.Labels)
	apply(r.kernel.Prefixes, changes.Prefixes)
}

func apply[K comparable](to, changes map[K][]kernel.Hop) {
	for k, hops := range changes {
		if hops == nil {
			delete(to, k)
		} else {
			to[k] = hops
		}
	}
}

// connect begins the session of i and j; restarted is the one that comes back with what it had, -1: none.
func (c *chain) connect(i, j, restarted int) {
	for _, x := range [][2]int{{i, j}, {j, i}} {
		me, other := x[0], x[1]
		p := labels.Peer{ID: lsr(other), Adjacencies: []discovery.Adjacency{{
			Where:      discovery.Where{Interface: fmt.Sprint("eth", other), Source: address(other, me)},
			Preference: wire.PreferIPv4,
		}}}
		p.Agreed.LoopDetection = c.cfg.LoopDetection
		if restarted == other {
			p.Agreed.Restart = preserving
		}
		c.routers[me].up[other] = true
		c.act(me, c.routers[me].l.Up(c.now, p))
	}
}

// disconnect ends the session; who restarts is waited for, -1: none.
func (c *chain) disconnect(i, j, restarts int) {
	for _, x := range [][2]int{{i, j}, {j, i}} {
		r, other := c.routers[x[0]], x[1]
		delete(r.up, other)
		delete(r.in, other)
		if restarts == other {
			c.act(x[0], r.l.Down(c.now, lsr(other), preserving))
		} else {
			c.act(x[0], r.l.Down(c.now, lsr(other), nil))
		}
	}
}

// deliver delivers one message, any that is next from somebody; false: there is none.
func (c *chain) deliver() bool {
	var ways [][2]int
	for i, r := range c.routers {
		for _, j := range slices.Sorted(maps.Keys(r.in)) {
			if len(r.in[j]) > 0 {
				ways = append(ways, [2]int{i, j})
			}
		}
	}
	if len(ways) == 0 {
		return false
	}
	way := ways[c.IntN(len(ways))]
	r, from := c.routers[way[0]], way[1]
	m := r.in[from][0]
	r.in[from] = r.in[from][1:]
	c.act(way[0], r.l.Message(c.now, lsr(from), m))
	return true
}

func (c *chain) settle() {
	for c.deliver() {
	}
}

// walk follows a packet to the prefix from router 0 through the kernels' tables, and tells how it goes.
func (c *chain) walk(p netip.Prefix) string {
	hops := c.routers[0].kernel.Prefixes[p]
	if hops == nil {
		return "no label"
	}
	var way []string
	for {
		h := hops[0]
		switch {
		case h.Interface == toServer:
			return strings.Join(append(way, "server"), " ")
		case len(h.Labels) == 0:
			return strings.Join(append(way, fmt.Sprint("router ", h.Interface, " without a label")), " ")
		case h.Labels[0] < 16:
			return strings.Join(append(way, fmt.Sprint(h.Labels[0])), " ")
		}
		label := h.Labels[0]
		way = append(way, fmt.Sprint(label))
		if hops = c.routers[h.Interface].kernel.Labels[label]; hops == nil {
			return strings.Join(append(way, "dropped"), " ")
		}
		if len(way) > routers {
			return strings.Join(append(way, "for ever"), " ")
		}
	}
}

// through says what is wrong with the ways; empty: all LSPs are complete.
func (c *chain) through() (wrong string) {
	null := [2]string{"router 2 without a label", "router 2 without a label"}
	if c.cfg.ExplicitNull {
		null = [2]string{"0", "2"}
	}
	for p, end := range map[netip.Prefix]string{server: " server", network: " " + null[0], network6: " " + null[1]} {
		if way := c.walk(p); !strings.HasPrefix(way, "2") || !strings.HasSuffix(way, end) {
			wrong += fmt.Sprintf("%v: %s, want it to end with%s\n", p, way, end)
		}
	}
	return wrong
}

// configs are the ways to decide.
func configs() (all []labels.Config) {
	for n := range 8 {
		all = append(all, labels.Config{Ordered: n&1 != 0, ExplicitNull: n&2 != 0, LoopDetection: n&4 != 0})
	}
	return all
}

// TestChain: from whatever order of events, all LSPs of the chain are complete in the end; without a route none is.
func TestChain(t *testing.T) {
	for seed := range uint64(160) {
		c := newChain(t, seed, configs()[seed%8])
		for range 60 {
			switch c.IntN(6) {
			case 0:
				i := c.IntN(routers)
				c.act(i, c.routers[i].l.Routes(c.now, c.routes(i), nil))
			case 1:
				i := c.IntN(routers)
				c.act(i, c.routers[i].l.Routes(c.now, nil, []netip.Prefix{server, network, network6}[:c.IntN(4)]))
			case 2:
				if i := c.IntN(routers - 1); c.routers[i].up[i+1] {
					c.disconnect(i, i+1, -1)
				} else {
					c.connect(i, i+1, -1)
				}
			default:
				c.deliver()
			}
		}
		for i, r := range c.routers {
			c.act(i, r.l.Routes(c.now, c.routes(i), nil))
			if i > 0 && !r.up[i-1] {
				c.connect(i-1, i, -1)
			}
		}
		c.settle()
		if wrong := c.through(); wrong != "" {
			t.Fatalf("seed %d: %s", seed, wrong)
		}
		if way := c.walk(server); c.routers[1].kernel.Labels[number(way[:3])] == nil || strings.Count(way, " ") != 2 {
			t.Fatalf("seed %d: %s", seed, way)
		}
		c.act(2, c.routers[2].l.Routes(c.now, nil, []netip.Prefix{server}))
		c.settle()
		if way := c.walk(server); strings.HasSuffix(way, "server") {
			t.Fatalf("seed %d: the server is gone, and reached by %s", seed, way)
		}
	}
}

// TestRestart: each router in turn dies and comes back with what its kernel has. All LSPs are complete all the time, no label
// changes, and what nobody claims is removed when the recovery is over.
func TestRestart(t *testing.T) {
	for seed := range uint64(96) {
		c := newChain(t, seed, configs()[seed%8])
		for i, r := range c.routers {
			c.act(i, r.l.Routes(c.now, c.routes(i), nil))
			if i > 0 {
				c.connect(i-1, i, -1)
			}
		}
		c.settle()
		before := c.walk(server)
		c.restart(int(seed) / 8 % routers)
		if after := c.walk(server); after != before {
			t.Fatalf("seed %d: by %s, before by %s", seed, after, before)
		}
	}
}

func (c *chain) restart(i int) {
	whole := func(when string) {
		c.t.Helper()
		if wrong := c.through(); wrong != "" {
			c.t.Fatalf("router %d restarts, %+v, %s: %s", i, c.cfg, when, wrong)
		}
	}
	r := c.routers[i]
	had := map[netip.Prefix]wire.Label{netip.MustParsePrefix("192.0.2.0/24"): wire.Label(100*(i+1) + 40)} // nobody claims that
	for _, p := range r.l.FECs(netip.Prefix{}, math.MaxInt) {
		had[p] = r.l.Bindings(p).Local
	}
	r.kernel.Labels[uint32(100*(i+1)+40)] = []kernel.Hop{{Interface: 1}}
	neighbours := slices.Sorted(maps.Keys(r.up))
	c.begin(i) // killed: it says nothing more
	for _, j := range neighbours {
		delete(c.routers[j].up, i)
		delete(c.routers[j].in, i)
		c.act(j, c.routers[j].l.Down(c.now, lsr(i), preserving))
		whole("is gone")
	}
	c.now = c.now.Add(10 * time.Second)
	c.act(i, r.l.Restore(c.now, had, nil, time.Minute))
	begun := []func(){func() { c.act(i, r.l.Routes(c.now, c.routes(i), nil)) }}
	for _, j := range neighbours {
		begun = append(begun, func() { c.connect(i, j, i) })
	}
	c.Shuffle(len(begun), func(a, b int) { begun[a], begun[b] = begun[b], begun[a] })
	for _, f := range begun {
		f()
		whole("is back")
		for range c.IntN(4) {
			c.deliver()
			whole("is told")
		}
	}
	for c.deliver() {
		whole("is told")
	}
	if !r.l.Recovering() {
		c.t.Fatal("recovered before its time")
	}
	c.now = c.now.Add(time.Minute)
	for j := range c.routers {
		c.act(j, c.routers[j].l.Tick(c.now))
		whole("has recovered")
	}
	c.settle()
	whole("has recovered")
	if hops := r.kernel.Labels[uint32(100*(i+1)+40)]; hops != nil {
		c.t.Fatal("what nobody claims is not removed")
	}
}
