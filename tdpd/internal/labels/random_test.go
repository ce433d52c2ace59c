package labels_test

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/manycast/manycast/tdpd/internal/discovery"
	"github.com/manycast/manycast/tdpd/internal/forwarding"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// bound is a FEC's label.
type bound struct {
	fec   netip.Prefix
	label wire.Label
}

// neighbour is a peer that does as it likes, within the RFCs. Messages to and from it take their time, and may cross.
type neighbour struct {
	id      wire.Identifier
	at      netip.Addr
	up      bool
	has     map[bound]bool // this router's bindings, by which it may send packets
	refused map[bound]bool // released by its own will since it got them
	gave    map[netip.Prefix]wire.Label
	in, out []wire.Message
}

func (n *neighbour) lose() { n.up, n.in, n.out = false, nil, nil }

func (n *neighbour) peer() labels.Peer {
	return labels.Peer{ID: n.id, Adjacencies: []discovery.Adjacency{{Where: discovery.Where{Interface: "eth1", Source: n.at}}}}
}

// read takes the next message of this router.
func (n *neighbour) read() {
	m := n.in[0]
	n.in = n.in[1:]
	switch m := m.(type) {
	case wire.LabelMapping:
		b := bound{m.FEC[0].(wire.Prefix).Prefix, m.Label}
		n.has[b] = true
		delete(n.refused, b)
	case wire.LabelWithdraw:
		delete(n.has, bound{m.FEC[0].(wire.Prefix).Prefix, *m.Label})
		n.out = append(n.out, wire.LabelRelease{FEC: m.FEC, Label: m.Label})
	}
}

// may says whether it may have the binding, or is about to.
func (n *neighbour) may(b bound) bool {
	return n.has[b] || slices.ContainsFunc(n.in, func(m wire.Message) bool {
		mapping, is := m.(wire.LabelMapping)
		return is && b == bound{mapping.FEC[0].(wire.Prefix).Prefix, mapping.Label}
	})
}

// chaos is a Labels among neighbours, with the tables that follow from it.
type chaos struct {
	*rand.Rand
	seed       uint64
	t          *testing.T
	l          *labels.Labels
	tables     *forwarding.Tables
	kernel     *kernel.Fake
	neighbours []*neighbour
	cfg        labels.Config
	routes     map[netip.Prefix]labels.Route
	scarce     bool // there are too few labels at times, and too little room for bindings
	now        time.Time
	// Releases of a neighbour's own will may cross mappings. Which of them came first nobody can tell, so that it is settled by a
	// withdrawal later, if the session lasts.
	crossing bool
	log      []string
}

func newChaos(t *testing.T, seed uint64) *chaos {
	r := rand.New(rand.NewPCG(seed, 2))
	c := &chaos{Rand: r, seed: seed, t: t, now: start, tables: forwarding.New(), kernel: kernel.NewFake(kernel.State{}), crossing: seed%4 == 0,
		scarce: seed%3 == 0, routes: map[netip.Prefix]labels.Route{}}
	c.cfg = labels.Config{
		LSR: wire.LSRID{1, 1, 1, 1}, First: 16, Last: 30, Ordered: r.IntN(2) == 0, LoopDetection: r.IntN(4) == 0,
	}
	if c.scarce {
		c.cfg.Last, c.cfg.MaxBindings = 16+wire.Label(2+r.IntN(8)), 3+r.IntN(4)
		c.cfg.AllBindings = 4 + r.IntN(8)
	}
	c.l = must(labels.New(c.cfg))
	for i := range byte(3) {
		c.neighbours = append(c.neighbours, &neighbour{
			id: wire.Identifier{LSR: wire.LSRID{2, 2, 2, i}}, at: netip.AddrFrom4([4]byte{192, 0, 2, 2 + i}),
			has: map[bound]bool{}, refused: map[bound]bool{}, gave: map[netip.Prefix]wire.Label{},
		})
	}
	return c
}

func (c *chaos) fec() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(c.IntN(5))}), 32)
}

func (c *chaos) fatalf(format string, args ...any) {
	c.t.Helper()
	for _, line := range c.log[max(0, len(c.log)-60):] {
		c.t.Log(line)
	}
	c.t.Fatalf("seed %d: "+format, append([]any{c.seed}, args...)...)
}

// act carries actions out, and looks at each mapping: its label must not be another FEC's for anybody.
func (c *chaos) act(what string, actions []labels.Action) {
	c.t.Helper()
	c.log = append(c.log, what)
	for i, a := range actions {
		c.log = append(c.log, "    "+actionText(a))
		switch a := a.(type) {
		case labels.Changed:
			if i != 0 {
				c.fatalf("changed is action %d", i)
			}
			c.forward(a.FECs)
		case labels.Say:
			c.deliver(a)
		}
	}
}

// forward follows the changes, as the kernel does.
func (c *chaos) forward(fecs []netip.Prefix) {
	c.t.Helper()
	var views []labels.View
	var gone []netip.Prefix
	for _, p := range fecs {
		if v, routed := c.l.View(p); routed {
			views = append(views, v)
		} else {
			gone = append(gone, p)
		}
	}
	if err := c.kernel.Update(c.tables.Update(views, gone)); err != nil {
		c.fatalf("kernel: %v", err)
	}
}

func (c *chaos) deliver(s labels.Say) {
	c.t.Helper()
	for _, n := range c.neighbours {
		if m, is := s.Message.(wire.LabelMapping); is && m.Label >= wire.LabelFirst {
			for fec := range byte(5) {
				b := bound{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, fec}), 32), m.Label}
				if b.fec != m.FEC[0].(wire.Prefix).Prefix && n.may(b) && !c.crossing {
					c.fatalf("%v while %v may have it for %v", messageText(m), n.id, b.fec)
				}
			}
		}
		if n.id == s.Peer {
			if !n.up {
				c.fatalf("%v has no session", n.id)
			}
			n.in = append(n.in, s.Message)
		}
	}
}

var preserving = &wire.FTSession{LearnFromNetwork: true, ReconnectTimeout: time.Minute, RecoveryTime: time.Minute}

// connect begins a session; preserved: the neighbour still has what it had.
func (c *chaos) connect(n *neighbour, preserved bool) {
	p := n.peer()
	if preserved {
		p.Agreed.Restart = preserving
	} else {
		clear(n.has)
	}
	clear(n.refused)
	n.up = true
	c.act(fmt.Sprint(n.id, " up, preserved: ", preserved), c.l.Up(c.now, p))
	for fec, label := range n.gave {
		n.say(wire.LabelMapping{FEC: wire.FEC{wire.Prefix{Prefix: fec}}, Label: label})
	}
}

func (n *neighbour) say(m wire.Message) { n.out = append(n.out, m) }

func (c *chaos) disconnect(n *neighbour) {
	n.lose()
	if c.IntN(2) == 0 {
		c.act(fmt.Sprint(n.id, " restarts"), c.l.Down(c.now, n.id, preserving))
		return
	}
	clear(n.has)
	c.act(fmt.Sprint(n.id, " down"), c.l.Down(c.now, n.id, nil))
}

// step is something that happens.
func (c *chaos) step() {
	n := c.neighbours[c.IntN(len(c.neighbours))]
	switch k := c.IntN(100); {
	case k < 20:
		c.route()
	case k < 23:
		c.now = c.now.Add(time.Duration(c.IntN(40)) * time.Second)
		actions := c.l.Tick(c.now)
		c.forgotten()
		c.act("time passes", actions)
	case !n.up && k < 40:
		preserved := !c.crossing && c.IntN(2) == 0 && slices.ContainsFunc(c.l.Peers(), func(p labels.PeerView) bool { return p.ID == n.id })
		c.connect(n, preserved)
	case !n.up:
	case k < 26:
		c.disconnect(n)
	case k < 50:
		c.speak(n)
	case k < 75 && len(n.in) > 0:
		n.read()
	case len(n.out) > 0:
		c.hear(n)
	}
}

// forgotten neighbours have waited too long to come back, and so have lost what they had.
func (c *chaos) forgotten() {
	for _, n := range c.neighbours {
		if !slices.ContainsFunc(c.l.Peers(), func(p labels.PeerView) bool { return p.ID == n.id }) {
			clear(n.has)
		}
	}
}

func (c *chaos) hear(n *neighbour) {
	m := n.out[0]
	n.out = n.out[1:]
	c.act(fmt.Sprint("from ", n.id, " ", messageText(m)), c.l.Message(c.now, n.id, m))
}

func (c *chaos) route() {
	p := c.fec()
	r := labels.Route{Prefix: p, Kind: []labels.Kind{labels.Transit, labels.Transit, labels.Attached, labels.Server}[c.IntN(4)]}
	for range c.IntN(3) {
		r.NextHops = append(r.NextHops, labels.NextHop{Address: c.neighbours[c.IntN(3)].at, Interface: "eth1", Index: 1})
	}
	if c.IntN(3) == 0 {
		delete(c.routes, p)
		c.act(fmt.Sprint("gone ", p), c.l.Routes(c.now, nil, []netip.Prefix{p}))
		return
	}
	c.routes[p] = r
	c.act(fmt.Sprint("route ", r), c.l.Routes(c.now, []labels.Route{r}, nil))
}

// speak has the neighbour say something of its own.
func (c *chaos) speak(n *neighbour) {
	p := c.fec()
	fec := wire.FEC{wire.Prefix{Prefix: p}}
	switch c.IntN(4) {
	case 0:
		n.gave[p] = wire.Label(1000 + c.IntN(3))
		n.say(wire.LabelMapping{FEC: fec, Label: n.gave[p]})
	case 1:
		if label, gave := n.gave[p]; gave {
			delete(n.gave, p)
			n.say(wire.LabelWithdraw{FEC: fec, Label: &label})
		}
	case 2:
		n.say(wire.LabelRequest{Head: wire.Head{ID: c.Uint32N(100)}, FEC: fec})
	case 3:
		c.release(n, p)
	}
}

func (c *chaos) release(n *neighbour, p netip.Prefix) {
	for !c.crossing && len(n.in) > 0 {
		n.read()
	}
	for _, b := range slices.SortedFunc(maps.Keys(n.has), func(a, b bound) int { return cmp.Compare(a.label, b.label) }) {
		if b.fec == p {
			delete(n.has, b)
			n.refused[b] = true
			n.say(wire.LabelRelease{FEC: wire.FEC{wire.Prefix{Prefix: p}}, Label: &b.label})
		}
	}
	for !c.crossing && len(n.out) > 0 {
		c.hear(n)
	}
}

// agree compares the tables with what was advertised.
func (c *chaos) agree() {
	c.t.Helper()
	c.forwarded()
	owners := map[wire.Label]netip.Prefix{}
	for _, p := range c.l.FECs(netip.Prefix{}, math.MaxInt) {
		b := c.l.Bindings(p)
		if b.Local != labels.NoLabel && b.Local >= wire.LabelFirst {
			if m, is := c.tables.Incoming(b.Local); !is || m.FEC != p {
				c.fatalf("%v is bound to %v, but %v comes in as %v", p, b.Local, b.Local, m)
			}
		}
		for _, s := range append(b.Sent, labels.Binding{Label: b.Local}) {
			if owner, used := owners[s.Label]; used && owner != p && s.Label >= wire.LabelFirst && s.Label != labels.NoLabel {
				c.fatalf("%v is of %v and %v", s.Label, owner, p)
			}
			owners[s.Label] = p
			if s.Peer != (wire.Identifier{}) && !s.Leaves && s.Label != b.Local {
				c.fatalf("%v advertises %v, and has %v", p, s.Label, b.Local)
			}
		}
	}
}

// calm has all neighbours up and everything said, and time pass until nothing is stale.
func (c *chaos) calm() {
	for _, n := range c.neighbours {
		if !n.up {
			c.connect(n, false)
		}
	}
	c.quiet()
	c.now = c.now.Add(3 * time.Minute)
	c.act("time passes", c.l.Tick(c.now))
	c.quiet()
}

func (c *chaos) quiet() {
	for range 10_000 {
		busy := false
		for _, n := range c.neighbours {
			if len(n.in) > 0 {
				n.read()
				busy = true
			}
			if len(n.out) > 0 {
				c.hear(n)
				busy = true
			}
		}
		if !busy {
			return
		}
	}
	c.fatalf("there is no end to it")
}

// told: every neighbour has what this router has bound, unless it does not want it, and nothing else.
func (c *chaos) told() {
	c.t.Helper()
	for _, n := range c.neighbours {
		for _, p := range c.l.FECs(netip.Prefix{}, math.MaxInt) {
			b := bound{p, c.l.Bindings(p).Local}
			if b.label != labels.NoLabel && !n.has[b] && !n.refused[b] {
				c.fatalf("%v does not know of %v", n.id, b)
			}
		}
		for b := range n.has {
			if c.l.Bindings(b.fec).Local != b.label {
				c.fatalf("%v still has %v", n.id, b)
			}
		}
	}
}

var seeds = flag.Int("seeds", 100, "how many courses of events TestChaos has")

var realLabel = regexp.MustCompile(`^(transit|server) \d+`)

// afresh: whatever came before, it comes out as if nothing had, the numbers of this router's own labels apart.
func (c *chaos) afresh() {
	c.t.Helper()
	if c.scarce { // then it depends on who came first
		return
	}
	fresh := must(labels.New(c.cfg))
	for _, n := range c.neighbours {
		fresh.Up(c.now, n.peer())
		for fec, label := range n.gave {
			fresh.Message(c.now, n.id, wire.LabelMapping{FEC: wire.FEC{wire.Prefix{Prefix: fec}}, Label: label})
		}
	}
	for _, r := range c.routes {
		fresh.Routes(c.now, []labels.Route{r}, nil)
	}
	for p := range c.routes {
		got, want := realLabel.ReplaceAllString(viewText(c.l, p), "$1 some"), realLabel.ReplaceAllString(viewText(fresh, p), "$1 some")
		if got != want {
			c.fatalf("%v: %s, want %s", p, got, want)
		}
	}
}

// forwarded: nobody forgot to tell that a FEC's forwarding changed.
func (c *chaos) forwarded() {
	c.t.Helper()
	tables := forwarding.New()
	for p := range c.routes {
		v, _ := c.l.View(p)
		tables.Update([]labels.View{v}, nil)
	}
	if d := gocmp.Diff(c.kernel.State(), tables.State(), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty()); d != "" {
		c.fatalf("the kernel has not what is to hold: %s", d)
	}
}

// TestChaos: whatever neighbours do, and in whatever order, no label is two FECs' at once for anybody, the tables agree with what was
// advertised, all are told in the end, and when there is no route any more no label is used.
func TestChaos(t *testing.T) {
	for seed := range uint64(*seeds) {
		c := newChaos(t, seed)
		for range 300 {
			c.step()
			c.agree()
		}
		c.calm()
		c.told()
		c.afresh()
		var all []netip.Prefix
		for fec := range byte(5) {
			all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, fec}), 32))
		}
		clear(c.routes)
		c.act("no route any more", c.l.Routes(c.now, nil, all))
		c.quiet()
		c.told()
		c.agree()
		if s := c.l.Stats(); s.FECs != 0 || s.Used != 0 || s.Waiting != 0 {
			c.fatalf("%+v is left", s)
		}
		for _, p := range c.l.FECs(netip.Prefix{}, math.MaxInt) {
			if len(c.l.Bindings(p).Remote) == 0 {
				c.fatalf("%v is not forgotten", p)
			}
		}
		if s := c.kernel.State(); len(s.Labels)+len(s.Prefixes) > 0 {
			c.fatalf("the kernel still has %v", s)
		}
	}
}
