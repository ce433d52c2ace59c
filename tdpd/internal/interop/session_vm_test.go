package interop

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"
)

// operational waits for the session on both sides.
func operational(l *line, o *ours, f *frr) {
	l.t.Helper()
	o.meets(f.at)
	l.eventually(func() bool { return f.neighbor(o.at).State == "OPERATIONAL" }, "OPERATIONAL in FRR")
}

// TestVMFRRMappings: with either side connecting, mappings go both ways, and each kernel has what follows from them. Where a route goes,
// they are withdrawn; they come back with it.
func TestVMFRRMappings(t *testing.T) {
	for name, x := range map[string]struct {
		ids     []byte
		passive bool // FRR is: its end of the connection is LDP's port
	}{
		"ours active":  {[]byte{9, 1, 5}, true},
		"ours passive": {[]byte{1, 9, 5}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLine(t, x.ids...)
			f, o := l.frr(1, frrConfig{is4: true}), l.tdpd(0)
			operational(l, o, f)
			if n := f.neighbor(0); (n.LocalPort == 646) != x.passive {
				t.Errorf("FRR's side of the connection: %+v", n)
			}
			ofOwnAddresses(l, o, f)
			routesComeAndGo(l, o, f)
		})
	}
}

// ofOwnAddresses: both are egress of their own addresses and bind implicit null; to each other's address both have a route, and a label
// that pops.
func ofOwnAddresses(l *line, o *ours, f *frr) {
	l.t.Helper()
	l.eventually(func() bool { _, remote := f.bindings(0, l.host4(0)); return remote == "imp-null" }, "our implicit null in FRR")
	l.eventually(func() bool { return o.remote(1, l.host4(1)) == "3" }, "FRR's implicit null here")
	var local, remote string
	l.eventually(func() bool {
		local, remote = f.bindings(0, l.host4(1))
		return remote != "" && remote == o.local(l.host4(1))
	}, "our label in FRR")
	if local != "imp-null" {
		l.t.Errorf("FRR's own label of its address: %s", local)
	}
	l.eventually(func() bool { return strings.Contains(l.labelRoute(0, remote), "via inet 10.0.1.2") }, "our entry of ", remote)
	local, _ = f.bindings(0, l.host4(0))
	l.eventually(func() bool { return local != "" && o.remote(1, l.host4(0)) == local }, "FRR's label ", local, " here")
	l.eventually(func() bool { return strings.Contains(l.labelRoute(1, local), "via inet 10.0.1.1") }, "FRR's entry of ", local)
}

// routesComeAndGo: a prefix behind FRR, where nobody speaks LDP.
func routesComeAndGo(l *line, o *ours, f *frr) {
	l.t.Helper()
	p := netip.MustParsePrefix("198.51.100.0/24")
	l.route(1, 2, p)
	l.route(0, 1, p)
	both := func() {
		l.t.Helper()
		l.eventually(func() bool { label := o.remote(1, p); return label != "" && l.labelled(0, p) == label }, "FRR's label on our packets")
		l.eventually(func() bool { _, remote := f.bindings(0, p); return remote != "" && remote == o.local(p) }, "our label in FRR")
	}
	both()
	l.unroute(1, 2, p)
	l.eventually(func() bool { return o.remote(1, p) == "" && l.labelled(0, p) == "" }, "FRR's label is withdrawn")
	l.route(1, 2, p)
	both()
	label := o.local(p)
	l.unroute(0, 1, p)
	l.eventually(func() bool { _, remote := f.bindings(0, p); return remote == "" }, "our label is withdrawn")
	l.eventually(func() bool { return l.labelRoute(0, label) == "" && l.labelled(0, p) == "" }, "our entries are gone")
	l.route(0, 1, p)
	both()
}

// TestVMFRRFamilies: sessions over IPv6, for IPv6; over either family for both (RFC 7552).
func TestVMFRRFamilies(t *testing.T) {
	for name, x := range map[string]struct {
		is4    bool
		prefer string // and the session is over it
		ids    []byte
	}{
		"IPv6, ours active":        {false, "ipv6", []byte{9, 1}},
		"IPv6, ours passive":       {false, "ipv6", []byte{1, 9}},
		"dual-stack":               {true, "ipv6", []byte{1, 9}},
		"dual-stack, prefers IPv4": {true, "ipv4", []byte{9, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLine(t, x.ids...)
			c := frrConfig{is4: x.is4, is6: true}
			if x.prefer == "ipv4" {
				c.global = " dual-stack transport-connection prefer ipv4\n"
			}
			f := l.frr(1, c)
			o := l.tdpd(0, func(r *role) {
				r.Config.Transport6, r.Config.Prefer = l.id6(0), x.prefer
				if !x.is4 {
					r.Config.Transport4 = netip.Addr{}
				}
			})
			operational(l, o, f)
			want := l.id6(0)
			if x.prefer == "ipv4" {
				want = l.id(0)
			}
			if n := f.neighbor(0); n.Remote != want.String() {
				t.Errorf("the session is over %+v, want %v", n, want)
			}
			mine, theirs := []netip.Prefix{l.host6(0)}, []netip.Prefix{l.host6(1)}
			if x.is4 {
				mine, theirs = append(mine, l.host4(0)), append(theirs, l.host4(1))
			}
			for i, p := range mine {
				l.eventually(func() bool { _, remote := f.bindings(0, p); return remote == "imp-null" }, "our implicit null of ", p, " in FRR")
				l.eventually(func() bool { return o.remote(1, theirs[i]) == "3" }, "FRR's implicit null of ", theirs[i], " here")
				via, _ := l.towards(0, 1, p.Addr().Is4())
				l.eventually(func() bool {
					return o.local(theirs[i]) != "" && strings.Contains(l.labelRoute(0, o.local(theirs[i])), via.String())
				}, "our entry for ", theirs[i])
				via, _ = l.towards(1, 0, p.Addr().Is4())
				l.eventually(func() bool { return strings.Contains(l.labelRoute(1, o.remote(1, p)), via.String()) }, "FRR's entry for ", p)
			}
		})
	}
}

// TestVMFRRSecrets: TCP MD5 in both roles and families. With another secret there is no session.
func TestVMFRRSecrets(t *testing.T) {
	for name, x := range map[string]struct {
		ids []byte
		is6 bool
	}{
		"ours active":        {[]byte{9, 1}, false},
		"ours passive":       {[]byte{1, 9}, false},
		"ours active, IPv6":  {[]byte{9, 1}, true},
		"ours passive, IPv6": {[]byte{1, 9}, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLine(t, x.ids...)
			id := l.id(0).String()
			f := l.frr(1, frrConfig{is4: !x.is6, is6: x.is6, global: " neighbor " + id + " password wrong\n"})
			o := l.tdpd(0, func(r *role) {
				r.Secrets = map[string]string{l.id(1).String(): "tell-nobody"}
				if x.is6 {
					r.Config.Transport6, r.Config.Transport4 = l.id6(0), netip.Addr{}
				}
			})
			l.eventually(func() bool {
				return strings.Contains(f.ldpd.Output(), "nbr_new") && strings.Contains(o.Output(), "adjacency is up")
			}, "they hear each other")
			time.Sleep(2 * time.Second)
			if _, up := o.sessions(1); up || f.neighbor(0).State == "OPERATIONAL" {
				t.Fatal("a session with different secrets")
			}
			f.configure("neighbor " + id + " password tell-nobody")
			operational(l, o, f)
			if n := f.neighbor(0); n.Authentication != "TCP MD5 Signature" {
				t.Errorf("%+v", n)
			}
		})
	}
}

// TestVMFRRGTSM: where both want it all of the session's packets have 255 hops (RFC 6720); it stays away where one side does not.
func TestVMFRRGTSM(t *testing.T) {
	for name, x := range map[string]struct {
		frr  string
		ours bool
		ids  []byte
		all  bool
	}{
		"both, ours active":  {"", true, []byte{9, 1}, true},
		"both, ours passive": {"", true, []byte{1, 9}, true},
		"ours alone":         {"  ttl-security disable\n", true, []byte{9, 1}, false},
		"FRR alone":          {"", false, []byte{1, 9}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLine(t, x.ids...)
			capture := l.capture(0, "r", "-v", "tcp port 646 and tcp[tcpflags] & tcp-push != 0")
			f := l.frr(1, frrConfig{is4: true, v4: x.frr})
			o := l.tdpd(0, func(r *role) { r.Config.Hello.GTSM = x.ours })
			operational(l, o, f)
			ofOwnAddresses(l, o, f)
			if !x.all {
				return
			}
			l.eventually(func() bool { return strings.Count(capture.Output(), "ttl ") > 3 }, "packets in the capture")
			for _, m := range regexp.MustCompile(`ttl (\d+)`).FindAllStringSubmatch(capture.Output(), -1) {
				if m[1] != "255" {
					t.Errorf("a packet with %s hops:\n%s", m[1], capture.Output())
				}
			}
		})
	}
}

// TestVMFRRGTSMChanges: a neighbor that ceases to want it ends its session, and has one without; where it wants it again likewise. Both
// go on for longer than their keepalive time.
func TestVMFRRGTSMChanges(t *testing.T) {
	const keepAlive = 4 * time.Second
	for name, ids := range map[string][]byte{"ours active": {9, 1}, "ours passive": {1, 9}} {
		t.Run(name, func(t *testing.T) {
			l := newLine(t, ids...)
			f := l.frr(1, frrConfig{is4: true})
			o := l.tdpd(0, func(r *role) { r.Config.Session.KeepAlive = keepAlive })
			operational(l, o, f)
			for _, command := range []string{"ttl-security disable", "no ttl-security disable"} {
				before, _ := o.sessions(1)
				f.configure("address-family ipv4", command)
				l.eventually(func() bool { now, up := o.sessions(1); return now > before && up }, "a session after ", command)
				operational(l, o, f)
				begun, _ := o.sessions(1)
				time.Sleep(keepAlive + keepAlive/2)
				if now, up := o.sessions(1); now != begun || !up {
					t.Errorf("%s: %d sessions, then %d, one now: %v", command, begun, now, up)
				}
			}
			o.alive()
		})
	}
}

// TestVMSessionsOutliveTheirLabels: where an address that sessions are with has a label, it costs packets a hop, and GTSM takes those with
// all 255 alone. So sessions must not travel by labels; they go on for longer than their keepalive time.
func TestVMSessionsOutliveTheirLabels(t *testing.T) {
	const keepAlive = 4 * time.Second
	for name, x := range map[string]struct {
		frr    *frrConfig // nil: ours
		server bool
	}{
		"explicit null of FRR's":              {frr: &frrConfig{is4: true, v4: "  label local advertise explicit-null\n"}},
		"ours, and a server's tree ends here": {server: true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLine(t, 1, 9)
			change := func(r *role) {
				r.Config.Session.KeepAlive, r.Config.Labels.ExplicitNull = keepAlive, true
				if x.server {
					r.Config.Servers.Addresses = []netip.Addr{l.id(0)}
				}
			}
			a := l.tdpd(0, change)
			if x.frr != nil {
				l.frr(1, *x.frr)
			} else {
				l.tdpd(1, change)
			}
			a.meets(1)
			l.eventually(func() bool { return a.remote(1, l.host4(1)) != "" }, "labels are there")
			time.Sleep(keepAlive + keepAlive/2)
			if begun, up := a.sessions(1); begun != 1 || !up {
				t.Errorf("%d sessions, one now: %v", begun, up)
			}
		})
	}
}
