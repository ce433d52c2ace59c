package interop

import (
	"errors"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/rtnl"
)

const (
	churned     = 100_000 - 100   // a neighbor may bind 100,000, and has others
	churnWithin = 2 * time.Minute // each step, until all tables are right
)

// churnedPrefix is one of those that come and go.
func churnedPrefix(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(n >> 16), byte(n >> 8), byte(n)}), 32)
}

// TestVMChurn: 100,000 prefixes come into the kernel of one router, move to another next hop, and go. The session stays, and the tables of
// both ends are right: entries and labels of the one, its bindings at the other. The other one binds explicit null to all: with as
// many labels by one neighbour the kernel would be the slow part (TestVMLabelsPerSecond).
func TestVMChurn(t *testing.T) {
	l := newLine(t, 9, 1)
	l.net.Link(l.nodes[0], "r2", "10.0.2.1/24", l.nodes[1], "l2", "10.0.2.2/24")
	many := func(links ...string) func(*role) {
		return func(r *role) {
			r.Quiet, r.Config.Interfaces, r.Config.Labels.ExplicitNull = true, links, true
			r.Config.Hello.LinkHold = config.Default().Hello.LinkHold // two routers and the churn share one slow CPU
		}
	}
	a, b := l.tdpd(0, many("r", "r2")), l.tdpd(1, many("l", "l2"))
	a.meets(1)
	l.run(1, "ip", "link", "add", "out", "type", "dummy")
	l.run(1, "ip", "link", "set", "out", "up")
	before := [2][2]int{a.counted(), b.counted()}
	// more waits until there are so many more bindings of one's own and of the other's than at first.
	more := func(what string, o *ours, own, others int) {
		t.Helper()
		l.within(churnWithin, func() bool {
			now, first := o.counted(), before[o.at]
			return now[0]-first[0] == own && now[1]-first[1] == others
		}, what, ": bindings of router ", o.at)
	}
	start := time.Now()
	step := func(what string) {
		t.Logf("%s: %v", what, time.Since(start).Round(10*time.Millisecond))
		start = time.Now()
	}
	const add, replace = unix.NLM_F_CREATE | unix.NLM_F_EXCL, unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	first, second := netip.MustParseAddr("10.0.1.2"), netip.MustParseAddr("10.0.2.2")
	l.churn(1, unix.RTM_NEWROUTE, add, netip.Addr{}, "out")
	step("in the other's kernel")
	more("the other has them", b, churned, 0)
	more("the other has them", a, 0, churned)
	step("told")
	for _, x := range []struct {
		what        string
		kind, flags uint16
		via         netip.Addr
		dev         string
		labels      int // a's own
	}{
		{"come", unix.RTM_NEWROUTE, add, first, "r", churned},
		{"move", unix.RTM_NEWROUTE, replace, second, "r2", churned},
		{"go", unix.RTM_DELROUTE, 0, second, "r2", 0},
	} {
		l.churn(0, x.kind, x.flags, x.via, x.dev)
		step(x.what)
		more(x.what, a, x.labels, churned)
		more(x.what, b, churned, x.labels)
		l.within(churnWithin, func() bool { return a.installed(x.via) == [2]int{x.labels, x.labels} }, x.what, ": entries by ", x.via, " and no others")
		step(x.what + ", followed")
	}
	for _, o := range []*ours{a, b} {
		if begun, up := o.sessions(1 - o.at); begun != 1 || !up {
			t.Errorf("router %d: %d sessions, one now: %v", o.at, begun, up)
		}
		o.alive()
	}
}

// churn makes a change of each prefix's route; via is invalid where it is on a link.
func (l *line) churn(at int, kind, flags uint16, via netip.Addr, dev string) {
	l.t.Helper()
	link, err := l.nodes[at].Netlink().LinkByName(dev)
	if err != nil {
		l.t.Fatal(err)
	}
	requests := make([]rtnl.Request, churned)
	for n := range requests {
		requests[n] = rtnl.Request{Type: kind, Flags: flags, Route: rtnl.Route{Prefix: churnedPrefix(n), Metric: metric, Protocol: unix.RTPROT_STATIC,
			Type: unix.RTN_UNICAST, Table: unix.RT_TABLE_MAIN, Hops: []rtnl.Hop{{Via: via, Interface: link.Attrs().Index}}}}
	}
	conn := l.dial(at)
	defer conn.Close()
	if failed, err := conn.Do(requests); err != nil || len(failed) > 0 {
		l.t.Fatal(err, failed)
	}
}

// counted are the bindings of its own, and those of the other one, in the words of a quiet router.
func (o *ours) counted() (n [2]int) {
	lines := o.told("bindings")
	if len(lines) > 0 {
		for i := range n {
			n[i], _ = strconv.Atoi(lines[len(lines)-1][1+i])
		}
	}
	return n
}

// installed counts the router's entries for labels, and for those prefixes, that are by a next hop, with explicit null. Others count -1.
func (o *ours) installed(via netip.Addr) (n [2]int) {
	o.line.t.Helper()
	conn := o.line.dial(o.at)
	defer conn.Close()
	protocols := [2]uint8{kernel.Protocol, uint8(config.Default().Labels.RouteProtocol)}
	for i, family := range []uint8{unix.AF_MPLS, unix.AF_INET} {
		count := func(r rtnl.Route) {
			switch hop := r.Hops[0]; {
			case len(hop.Labels) != 1 || hop.Labels[0] != 0:
			case len(r.Hops) == 1 && hop.Via == via:
				n[i]++
			default:
				n[i]--
			}
		}
		if err := conn.Dump(family, protocols[i], count); err != nil && !errors.Is(err, rtnl.ErrInterrupted) {
			o.line.t.Fatal(err)
		}
	}
	return n
}

// dial opens netlink at a router.
func (l *line) dial(at int) (conn *rtnl.Conn) {
	l.t.Helper()
	if err := l.nodes[at].Do(func() (err error) { conn, err = rtnl.Dial(); return err }); err != nil {
		l.t.Fatal(err)
	}
	return conn
}
