package interop

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/config"
)

// Times of hellos: short, that tests are; long enough for a machine with one busy CPU.
const hold = 6 * time.Second

// soon is how long whatever comes about may take.
const soon = 30 * time.Second

// line is routers one behind the other: each has an interface "l" to the one before and "r" to the one behind, of networks
// 10.0.N.0/24 and fd00:N::/64, and an address on lo that all others have routes to.
type line struct {
	t     testing.TB
	net   *testnet.Net
	nodes []*testnet.Node
	ids   []byte
	asked uint32 // message IDs of requests of intruders
}

// newLine makes routers with these ids, which tell who connects to whom.
func newLine(t testing.TB, ids ...byte) *line {
	t.Helper()
	l := &line{t: t, net: testnet.NewMPLS(t), ids: ids}
	for i := range ids {
		node := l.net.Node(string(rune('a' + i)))
		for _, s := range []string{"net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
			"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"} {
			key, value, _ := strings.Cut(s, "=")
			node.Sysctl(key, value)
		}
		l.nodes = append(l.nodes, node)
		node.Address("lo", l.host4(i).String())
		node.Address("lo", l.host6(i).String())
		if i > 0 {
			before := l.nodes[i-1]
			l.net.Link(before, "r", fmt.Sprintf("10.0.%d.1/24", i), node, "l", fmt.Sprintf("10.0.%d.2/24", i))
			before.Address("r", fmt.Sprintf("fd00:%d::1/64", i))
			node.Address("l", fmt.Sprintf("fd00:%d::2/64", i))
		}
	}
	for at := range ids {
		for to := range ids {
			if to != at {
				l.route(at, to, l.host4(to), l.host6(to))
			}
		}
	}
	return l
}

// servers gives the last one addresses of a server, to which all others have routes.
func (l *line) servers() []netip.Addr {
	l.t.Helper()
	all, last := []netip.Addr{netip.MustParseAddr("192.0.2.80"), netip.MustParseAddr("2001:db8::80")}, len(l.nodes)-1
	for _, a := range all {
		p := netip.PrefixFrom(a, a.BitLen())
		l.nodes[last].Address("lo", p.String())
		for at := range last {
			l.route(at, last, p)
		}
	}
	return all
}

// id is a router's id and transport address.
func (l *line) id(i int) netip.Addr      { return netip.AddrFrom4([4]byte{10, 255, 0, l.ids[i]}) }
func (l *line) host4(i int) netip.Prefix { return netip.PrefixFrom(l.id(i), 32) }
func (l *line) host6(i int) netip.Prefix { return netip.PrefixFrom(l.id6(i), 128) }
func (l *line) id6(i int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("fd00:ffff::%d", l.ids[i]))
}

// towards is the next hop of one router on the way to another one.
func (l *line) towards(at, to int, is4 bool) (via netip.Addr, dev string) {
	n, end, dev := at+1, 2, "r"
	if to < at {
		n, end, dev = at, 1, "l"
	}
	if is4 {
		return netip.AddrFrom4([4]byte{10, 0, byte(n), byte(end)}), dev
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:%d::%d", n, end)), dev
}

// metric is that of routes: one without would win against those with labels.
const metric = 20

// route has one router send packets to prefixes towards another one.
func (l *line) route(at, to int, prefixes ...netip.Prefix) {
	l.t.Helper()
	l.routes(at, to, (*netlink.Handle).RouteReplace, prefixes)
}

func (l *line) unroute(at, to int, prefixes ...netip.Prefix) {
	l.t.Helper()
	l.routes(at, to, (*netlink.Handle).RouteDel, prefixes)
}

func (l *line) routes(at, to int, do func(*netlink.Handle, *netlink.Route) error, prefixes []netip.Prefix) {
	l.t.Helper()
	nl := l.nodes[at].Netlink()
	for _, p := range prefixes {
		via, dev := l.towards(at, to, p.Addr().Is4())
		link, err := nl.LinkByName(dev)
		if err != nil {
			l.t.Fatal(err)
		}
		dst := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
		if err := do(nl, &netlink.Route{Dst: dst, Gw: via.AsSlice(), LinkIndex: link.Attrs().Index, Priority: metric}); err != nil {
			l.t.Fatalf("route %v via %v dev %s: %v", p, via, dev, err)
		}
	}
}

func (l *line) run(at int, argv ...string) string {
	l.t.Helper()
	out, err := l.nodes[at].Run(argv...)
	if err != nil {
		l.t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return out
}

// labelRoute is what a router's kernel does to packets with a label, as ip shows it; empty: nothing.
func (l *line) labelRoute(at int, label string) string {
	l.t.Helper()
	return strings.TrimSpace(l.run(at, "ip", "-f", "mpls", "route", "show", label))
}

// labelled are the labels that a router's kernel puts on packets to a prefix, by each next hop; empty: none.
func (l *line) labelled(at int, p netip.Prefix) string {
	l.t.Helper()
	family := "-4"
	if p.Addr().Is6() {
		family = "-6"
	}
	var found []string
	for _, m := range regexp.MustCompile(`encap mpls +([0-9/]+)`).FindAllStringSubmatch(l.run(at, "ip", family, "route", "show", p.String(), "proto", "1"), -1) {
		found = append(found, m[1])
	}
	return strings.Join(found, " ")
}

func (l *line) eventually(cond func() bool, what ...any) {
	l.t.Helper()
	l.within(soon, cond, what...)
}

func (l *line) within(d time.Duration, cond func() bool, what ...any) {
	l.t.Helper()
	for deadline := time.Now().Add(d); !cond(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatalf("not within %v: %s", d, fmt.Sprint(what...))
		}
	}
}

// capture starts tcpdump at an interface.
func (l *line) capture(at int, iface string, args ...string) *testnet.Process {
	l.t.Helper()
	p := l.nodes[at].Start(append([]string{"tcpdump", "-l", "-n", "-B", "16384", "-i", iface}, args...)...)
	l.eventually(func() bool { return strings.Contains(p.Output(), "listening on") }, "the capture begins")
	return p
}

// ours is a router with tdpd's service.
type ours struct {
	*testnet.Process
	line *line
	at   int
	role role
}

// tdpd starts it.
func (l *line) tdpd(at int, change ...func(*role)) *ours {
	l.t.Helper()
	cfg := config.Default()
	cfg.Name, cfg.RouterID, cfg.Transport4 = l.nodes[at].Name(), l.id(at), l.id(at)
	cfg.StateDir = filepath.Join(l.t.TempDir(), "tdpd")
	cfg.Hello.LinkHold = hold
	cfg.Labels.Last = 300_000 // the kernel allocates memory for all of them
	if at > 0 {
		cfg.Interfaces = append(cfg.Interfaces, "l")
	}
	if at < len(l.nodes)-1 {
		cfg.Interfaces = append(cfg.Interfaces, "r")
	}
	o := &ours{line: l, at: at, role: role{Config: cfg}}
	for _, f := range change {
		f(&o.role)
	}
	if err := o.role.Config.Check(); err != nil {
		l.t.Fatal(err)
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	o.start()
	return o
}

// start starts the process, at first or again.
func (o *ours) start() {
	o.line.t.Helper()
	text, err := json.Marshal(o.role)
	if err != nil {
		o.line.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		o.line.t.Fatal(err)
	}
	o.Process = o.line.nodes[o.at].Start("env", roleEnv+"="+string(text), self)
}

// told are the lines with what happened, of which the first word is one of these.
func (o *ours) told(words ...string) (lines [][]string) {
	for text := range strings.Lines(o.Output()) {
		if f := strings.Fields(text); len(f) > 0 && slices.Contains(words, f[0]) {
			lines = append(lines, f)
		}
	}
	return lines
}

// sessions counts how many began with a router, and whether there is one.
func (o *ours) sessions(with int) (begun int, up bool) {
	for _, f := range o.told("session-up", "session-down") {
		if f[1] == o.line.id(with).String()+":0" {
			if up = f[0] == "session-up"; up {
				begun++
			}
		}
	}
	return begun, up
}

// remote is the label that another router has bound to a prefix; empty: none.
func (o *ours) remote(of int, p netip.Prefix) (label string) {
	for _, f := range o.told("learned", "lost") {
		if f[1] == o.line.id(of).String()+":0" && f[2] == p.String() {
			label = ""
			if f[0] == "learned" {
				label = f[3]
			}
		}
	}
	return label
}

// local is the label that the router has bound to a prefix; empty: none.
func (o *ours) local(p netip.Prefix) (label string) {
	for _, f := range o.told("bound", "unbound") {
		if f[2] == p.String() {
			label = ""
			if f[0] == "bound" {
				label = f[3]
			}
		}
	}
	return label
}

// meets waits for the session with another router.
func (o *ours) meets(with int) {
	o.line.t.Helper()
	o.line.eventually(func() bool { _, up := o.sessions(with); return up }, o.line.id(o.at), " has a session with ", o.line.id(with))
}
