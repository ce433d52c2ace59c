package interop

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// routed is a router with tdpd, the routes of which FRR makes: zebra, ospfd and staticd.
type routed struct {
	*ours
	frr     *frr
	daemons []*testnet.Process
}

// routing starts FRR's daemons and tdpd in one node.
func (l *line) routing(at int) *routed {
	l.t.Helper()
	r := &routed{frr: &frr{line: l, at: at, dir: filepath.Join("/run/frr", l.nodes[at].Name())}}
	own(l.t, r.frr.dir)
	l.t.Cleanup(func() { os.RemoveAll(r.frr.dir) })
	r.ours = l.tdpd(at, func(r *role) { r.Config.Transport6 = l.id6(at) })
	r.startFRR()
	return r
}

// startFRR starts it without static routes. OSPF tells of links and of the addresses on lo.
func (r *routed) startFRR() {
	r.line.t.Helper()
	ospf := "log stdout\ninterface lo\n ip ospf area 0\nexit\n"
	for _, i := range []string{"l", "r"} {
		ospf += "interface " + i + "\n ip ospf area 0\n ip ospf network point-to-point\n ip ospf hello-interval 1\n ip ospf dead-interval 30\nexit\n"
	}
	ospf += fmt.Sprintf("router ospf\n ospf router-id %v\n timers throttle spf 10 20 100\n", r.line.id(r.at))
	zebra := r.frr.start("zebra", "log stdout\n")
	r.daemons = []*testnet.Process{zebra, r.frr.start("staticd", "log stdout\n"), r.frr.start("ospfd", ospf)}
	for _, client := range []string{"static", "ospf"} { // which does not try again what it could not say to zebra
		r.line.eventually(func() bool { return strings.Contains(zebra.Output(), "announce only "+client+" routes") }, "zebra has met ", client)
	}
}

// killFRR leaves its routes in the kernel.
func (r *routed) killFRR() {
	for _, p := range r.daemons {
		p.Signal(unix.SIGKILL)
		_ = p.Wait()
	}
}

// static has staticd make or, with "no ", unmake routes.
func (r *routed) static(lines ...string) {
	r.line.t.Helper()
	if text, status := r.frr.vty("staticd", append([]string{"configure terminal"}, lines...)...); status != 0 {
		r.line.t.Fatalf("%q: %s", lines, text)
	}
}

// TestVMRoutesOfFRR: three in a line, each with tdpd and FRR's zebra, ospfd and staticd in one kernel. Packets get labels wherever FRR brings
// a route, FRR's own routes stay beside, and nothing moves while nothing happens. Where a route goes, its labels go. All is the same
// again after FRR was killed and has come back.
func TestVMRoutesOfFRR(t *testing.T) {
	l := newLine(t, 3, 2, 1)
	for at := range l.nodes {
		for to := range l.nodes {
			if at != to {
				l.unroute(at, to, l.host4(to))
			}
		}
	}
	var all []*routed
	for at := range l.nodes {
		all = append(all, l.routing(at))
	}
	all[0].meets(1)
	all[1].meets(2)

	service := netip.MustParsePrefix("198.51.100.80/32") // comes and goes at the last one, by OSPF
	net4, net6 := netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:51::/48")
	static4 := func(no string, at int) string { return fmt.Sprintf("%sip route %v 10.0.%d.2", no, net4, at+1) }
	static6 := func(no string, at int) string { return fmt.Sprintf("%sipv6 route %v fd00:%d::2", no, net6, at+1) }
	come := func() {
		l.run(2, "ip", "addr", "add", service.String(), "dev", "lo")
		for at := range 2 {
			all[at].static(static4("", at), static6("", at))
		}
	}
	leave := func() {
		l.run(2, "ip", "addr", "del", service.String(), "dev", "lo")
		for at := range 2 {
			all[at].static(static4("no ", at), static6("no ", at))
		}
	}
	there := func(when string) {
		t.Helper()
		l.eventually(func() bool {
			label := all[1].local(service)
			return label != "" && all[0].remote(1, service) == label && l.labelled(0, service) == label && l.madeBy("188", 0, service) &&
				strings.Contains(l.labelRoute(1, label), "via inet 10.0.2.2 dev r") && l.madeBy("188", 1, service)
		}, when, ": labels beside OSPF's route to ", service)
		for _, p := range []netip.Prefix{net4, net6} {
			l.eventually(func() bool {
				label := all[1].local(p)
				return label != "" && l.labelled(0, p) == label && l.madeBy("196", 0, p) && l.madeBy("196", 1, p)
			}, when, ": labels beside the static route to ", p)
		}
		l.reaches(0, service.Addr())
	}
	for round := range 3 {
		come()
		there(fmt.Sprint("round ", round))
		if round == 0 {
			l.nothingMoves(all)
		}
		labels := map[netip.Prefix]string{service: all[1].local(service), net4: all[1].local(net4), net6: all[1].local(net6)}
		leave()
		for p, label := range labels {
			l.eventually(func() bool {
				return l.run(0, "ip", family(p), "route", "show", p.String()) == "" && l.run(1, "ip", family(p), "route", "show", p.String()) == "" &&
					l.labelRoute(1, label) == "" && all[0].remote(1, p) == "" && all[1].local(p) == ""
			}, "nothing is left of ", p)
		}
	}
	come()
	there("before FRR's end")
	for _, r := range all[:2] {
		r.killFRR()
	}
	for at, r := range all[:2] {
		r.startFRR()
		r.static(static4("", at), static6("", at))
	}
	there("after FRR's end")
	l.nothingMoves(all)
	for _, r := range all {
		r.alive()
	}
}

// madeBy says whether a router's kernel has a route of a protocol: 188 is OSPF, 196 staticd, which iproute2 has two numbers for.
func (l *line) madeBy(protocol string, at int, p netip.Prefix) bool {
	l.t.Helper()
	return l.run(at, "ip", family(p), "route", "show", p.String(), "proto", protocol) != ""
}

func family(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "-4"
	}
	return "-6"
}

// nothingMoves watches the kernels' routes for a while in which nobody is told to change anything.
func (l *line) nothingMoves(all []*routed) {
	l.t.Helper()
	time.Sleep(time.Second) // what is on its way
	var monitors []*testnet.Process
	var before []int
	for at, r := range all {
		monitors = append(monitors, l.nodes[at].Start("ip", "monitor", "route"))
		before = append(before, len(r.told("bound", "unbound", "learned", "lost", "session-down")))
	}
	time.Sleep(3 * time.Second)
	for at, m := range monitors {
		m.Signal(unix.SIGTERM)
		_ = m.Wait()
		if m.Output() != "" {
			l.t.Errorf("router %d: routes change by themselves:\n%s", at+1, m.Output())
		}
		if now := len(all[at].told("bound", "unbound", "learned", "lost", "session-down")); now != before[at] {
			l.t.Errorf("router %d: %d events of themselves", at+1, now-before[at])
		}
	}
}
