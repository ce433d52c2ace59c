package interop

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// restarts has short times of a graceful restart: they are agreed in the session, so all say the same.
func restarts(r *role) {
	r.Config.Restart.Reconnect, r.Config.Restart.Recovery = 20*time.Second, 5*time.Second
}

// entries are a router's own in the kernel, as ip shows them.
func (o *ours) entries() string {
	o.line.t.Helper()
	return o.line.run(o.at, "sh", "-c", "ip -f mpls route show proto 77; ip -4 route show proto 1; ip -6 route show proto 1")
}

// restart kills the process, lets time pass, does what else is to happen meanwhile, and starts it again.
func (o *ours) restart(away time.Duration, meanwhile func()) {
	o.line.t.Helper()
	before := o.entries()
	o.Signal(unix.SIGKILL)
	_ = o.Wait()
	time.Sleep(away)
	if after := o.entries(); after != before {
		o.line.t.Errorf("the kernel has\n%s\nwithout the process; with it it had\n%s", after, before)
	}
	meanwhile()
	o.start()
}

// TestVMKilledAmongOurs: three in a line, and traffic from the first one to the server that the last one is. Each is killed in turn and
// comes back. No packet is lost, labels stay the same, and what is of the past goes when the restart is over.
func TestVMKilledAmongOurs(t *testing.T) {
	l := newLine(t, 3, 2, 1)
	server := l.servers()[0]
	p, past := netip.PrefixFrom(server, 32), netip.MustParsePrefix("198.51.100.0/24")
	var all []*ours
	for i := range 3 {
		all = append(all, l.tdpd(i, restarts, func(r *role) {
			r.Config.Labels.First = 1000 * (i + 1)
			if i == 2 {
				r.Config.Servers.Addresses = []netip.Addr{server}
			}
		}))
	}
	all[0].meets(1)
	all[1].meets(2)
	for i, o := range all {
		for at := range 2 { // behind the last one of those with a label for it
			l.route(at, at+1, past)
		}
		l.eventually(func() bool {
			return l.labelled(0, p) != "" && l.labelled(0, p) == all[1].local(p) && l.labelled(1, p) == all[2].local(p) && all[1].local(past) != ""
		}, "labels to the server")
		was, stale := o.local(p), o.local(past)
		f := l.flood(0, 2, server)
		o.restart(time.Second, func() { l.unroute(min(i, 1), min(i, 1)+1, past) })
		o.meets(max(i-1, 1-i))
		l.eventually(func() bool { return strings.Contains(o.Output(), "ready") }, "it is ready")
		l.eventually(func() bool { return o.local(p) == was }, "the label ", was, " again")
		if stale != "" && i < 2 {
			l.eventually(func() bool { return l.labelRoute(i, stale) == "" }, "the stale entry of ", stale, " goes")
		}
		if i == 1 {
			l.eventually(func() bool { return l.labelled(0, past) == "" }, "the stale label at the neighbour goes")
		}
		if r := f.end(); r.lost > 0 || r.unanswered > 0 {
			t.Errorf("router %d killed: %v", i+1, r)
		} else {
			t.Logf("router %d killed: %v", i+1, r)
		}
	}
}

// TestVMKilledBesideFRR: FRR has no graceful restart and gives up what it has of a neighbour at once. Our entries stay, so what goes through
// us into FRR is not interrupted; what comes from FRR is until it has our labels again.
func TestVMKilledBesideFRR(t *testing.T) {
	for name, x := range map[string]struct {
		ids    []byte
		killed int
		most   time.Duration // of an outage both ways; for 1 second the process is away
	}{
		"first router":              {[]byte{9, 5, 1}, 0, 12 * time.Second},
		"last router, FRR connects": {[]byte{9, 5, 1}, 2, 12 * time.Second},
		"last router, we connect":   {[]byte{1, 5, 9}, 2, 12 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLine(t, x.ids...)
			server := l.servers()[0]
			p := netip.PrefixFrom(server, 32)
			middle := l.frr(1, frrConfig{is4: true})
			all := map[int]*ours{0: l.tdpd(0, restarts), 2: l.tdpd(2, restarts, func(r *role) { r.Config.Servers.Addresses = []netip.Addr{server} })}
			for _, o := range all {
				operational(l, o, middle)
			}
			l.eventually(func() bool {
				local, remote := middle.bindings(2, p)
				return remote != "" && remote == all[2].local(p) && local != "" && l.labelled(0, p) == local
			}, "labels to the server")
			o := all[x.killed]
			label := o.local(p)
			f := l.flood(0, 2, server)
			o.restart(time.Second, func() {})
			operational(l, o, middle)
			l.eventually(func() bool { return o.local(p) == label }, "the label ", label, " again")
			l.eventually(func() bool { _, remote := middle.bindings(x.killed, p); return remote == label }, "FRR has it again")
			l.reaches(0, server)
			r := f.end()
			t.Logf("%v", r)
			if r.outage > x.most || x.killed == 0 && r.lost > 0 {
				t.Errorf("%v, want an outage of at most %v", r, x.most)
			}
		})
	}
}
