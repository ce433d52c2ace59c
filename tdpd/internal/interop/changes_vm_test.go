package interop

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

var behind = netip.MustParsePrefix("198.51.100.0/24")

// changing is us beside FRR, with a prefix behind FRR.
func changing(t *testing.T) (l *line, o *ours, f *frr, settled func(when, ours, theirs string)) {
	l = newLine(t, 9, 1, 5)
	l.route(1, 2, behind)
	l.route(0, 1, behind)
	f, o = l.frr(1, frrConfig{is4: true}), l.tdpd(0)
	// settled waits until each side's packets to the other one's take the other one's label by that address.
	settled = func(when, ours, theirs string) {
		t.Helper()
		l.eventually(func() bool {
			label := o.remote(1, behind)
			return label != "" && l.labelled(0, behind) == label && strings.Contains(l.run(0, "ip", "route", "show", behind.String(), "proto", "1"), "via "+ours+" ")
		}, when, ": our packets take FRR's label by ", ours)
		l.eventually(func() bool {
			local, remote := f.bindings(0, l.host4(0))
			return local != "" && remote == "imp-null" && strings.Contains(l.labelRoute(1, local), "via inet "+theirs+" ")
		}, when, ": FRR's label for our address leads to ", theirs)
	}
	operational(l, o, f)
	settled("at first", "10.0.1.2", "10.0.1.1")
	return l, o, f, settled
}

// TestVMInterfaceFlaps: a link goes and comes, at either end.
func TestVMInterfaceFlaps(t *testing.T) {
	l, o, f, settled := changing(t)
	for _, end := range []struct {
		at    int
		iface string
	}{{0, "r"}, {1, "l"}} {
		before, _ := o.sessions(1)
		for _, down := range []time.Duration{0, 10 * time.Millisecond, 300 * time.Millisecond} {
			l.run(end.at, "ip", "link", "set", "dev", end.iface, "down")
			time.Sleep(down)
			l.run(end.at, "ip", "link", "set", "dev", end.iface, "up")
		}
		l.route(1, 0, l.host4(0)) // the kernel drops them with the link
		l.route(0, 1, l.host4(1), behind)
		l.eventually(func() bool { now, up := o.sessions(1); return now > before && up }, "a session after the last flap")
		operational(l, o, f)
		settled("flapped", "10.0.1.2", "10.0.1.1")
	}
	o.alive()
}

// TestVMInterfaceMadeAnew: a link that is deleted and made anew under its name, whose kernel knows nothing of labels then. Both sides are ours:
// FRR's ldpd does not greet on it again.
func TestVMInterfaceMadeAnew(t *testing.T) {
	l := newLine(t, 9, 5, 1)
	routed := func() {
		t.Helper()
		l.route(1, 0, l.host4(0))
		l.route(0, 1, l.host4(1), l.host4(2))
	}
	a, b, c := l.tdpd(0), l.tdpd(1), l.tdpd(2)
	b.meets(0)
	c.meets(1)
	labelled := func(when string) {
		t.Helper()
		l.eventually(func() bool {
			label := a.remote(1, l.host4(2))
			return label != "" && label == b.local(l.host4(2)) && l.labelled(0, l.host4(2)) == label
		}, when, ": packets take the neighbour's label")
		l.reaches(0, l.id(2))
	}
	labelled("at first")
	l.run(0, "ip", "link", "del", "r")
	for _, o := range []*ours{a, b} {
		with := 1 - o.at
		l.eventually(func() bool { _, up := o.sessions(with); return !up }, "the session ends with the link")
	}
	l.net.Link(l.nodes[0], "r", "10.0.1.1/24", l.nodes[1], "l", "10.0.1.2/24")
	routed()
	l.eventually(func() bool { begun, up := a.sessions(1); return begun == 2 && up }, "another session")
	labelled("made anew")
	a.alive()
	b.alive()
}

// TestVMAddressChanges: addresses of a link's ends change. The session is with others, and goes on when it is ours; FRR ends it for its own,
// and it comes back.
func TestVMAddressChanges(t *testing.T) {
	l, o, _, settled := changing(t)
	for at, x := range []struct {
		iface, former, next string
		routed              []string // by it
		ours, theirs        string   // next hops then
	}{
		{"r", "10.0.1.1", "10.0.1.11", []string{l.host4(0).String()}, "10.0.1.2", "10.0.1.11"},
		{"l", "10.0.1.2", "10.0.1.22", []string{l.host4(1).String(), "198.51.100.0/24"}, "10.0.1.22", "10.0.1.11"},
	} {
		l.run(at, "sysctl", "-qw", "net.ipv4.conf."+x.iface+".promote_secondaries=1") // or they go with the first
		l.run(at, "ip", "addr", "add", x.next+"/24", "dev", x.iface)
		reroute := func() {
			for _, p := range x.routed {
				l.run(1-at, "ip", "route", "replace", p, "via", x.next, "metric", "20")
			}
		}
		reroute()
		settled("an address more", x.ours, x.theirs)
		l.run(at, "ip", "addr", "del", x.former+"/24", "dev", x.iface)
		settled("one less", x.ours, x.theirs)
		if at == 0 {
			time.Sleep(hold + time.Second) // hellos come from the new one
			settled("later", x.ours, x.theirs)
		}
		if begun, up := o.sessions(1); !up || at == 0 && begun != 1 {
			t.Errorf("%s in place of %s: %d sessions, one now: %v", x.next, x.former, begun, up)
		}
	}
	o.alive()
}
