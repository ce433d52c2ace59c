package discovery

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

var (
	own    = wire.Identifier{LSR: wire.LSRID{1, 1, 1, 1}}
	peer   = wire.Identifier{LSR: wire.LSRID{2, 2, 2, 2}}
	other  = wire.Identifier{LSR: wire.LSRID{3, 3, 3, 3}}
	start  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	addr   = netip.MustParseAddr
	source = addr("10.0.0.2")
	remote = addr("192.0.2.2")
)

func config() Config {
	return Config{
		ID: own, Transport4: addr("1.1.1.1"), Transport6: addr("2001:db8::1"),
		Accept: func(a netip.Addr) bool { return a == remote },
	}
}

// router is a Discovery with one dual-stack interface.
func router(cfg Config) *Discovery {
	d := New(cfg)
	d.SetInterfaces(start, []Interface{{Name: "eth0", V4: true, V6: true}})
	return d
}

func linkHello(hold uint16) Received {
	return Received{Interface: "eth0", Source: source, Sender: peer, Hello: wire.Hello{
		HelloParameters: wire.HelloParameters{HoldTime: hold}, IPv4Transport: addr("2.2.2.2"),
	}}
}

func targetedHello(from netip.Addr, request bool) Received {
	return Received{Interface: "eth1", Source: from, Sender: peer, Hello: wire.Hello{
		HelloParameters: wire.HelloParameters{HoldTime: 45, Targeted: true, RequestTargeted: request}, IPv4Transport: addr("2.2.2.2"),
	}}
}

// text is actions in few words.
func text(actions []Action) string {
	var out []string
	for _, a := range actions {
		switch a := a.(type) {
		case Send:
			word := fmt.Sprintf("hello %s%v", a.Interface, a.To)
			if a.Hello.RequestTargeted {
				word += " asks"
			}
			out = append(out, word)
		case Up:
			out = append(out, fmt.Sprintf("up %v %v", a.Adjacency.Peer, a.Adjacency.Transport))
		case Changed:
			out = append(out, fmt.Sprintf("changed %v %v", a.Adjacency.Peer, a.Adjacency.Transport))
		case Down:
			out = append(out, fmt.Sprintf("down %v: %v", a.Adjacency.Peer, a.Status))
		}
	}
	return strings.Join(out, ", ")
}

func take(t *testing.T, d *Discovery, now time.Time, r Received) string {
	t.Helper()
	actions, err := d.Hello(now, r)
	if err != nil {
		t.Fatal(err)
	}
	return text(actions)
}

func TestLinkHellosOfBothFamilies(t *testing.T) {
	d := New(config())
	got := text(d.SetInterfaces(start, []Interface{{Name: "eth0", V4: true, V6: true}, {Name: "eth1", V4: true}}))
	if want := "hello eth0224.0.0.2, hello eth0ff02::2, hello eth1224.0.0.2"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	if d.Next() != start.Add(5*time.Second) {
		t.Fatalf("next hellos after %v, want a third of the hold time", d.Next().Sub(start))
	}
	for _, a := range d.Tick(d.Next()) {
		h := a.(Send).Hello
		if h.HoldTime != 15 || h.Targeted || h.IPv4Transport.IsValid() == h.IPv6Transport.IsValid() || h.Preference != wire.PreferIPv6 {
			t.Errorf("%+v", h)
		}
	}
}

func TestAdjacencyComesAndGoes(t *testing.T) {
	d := router(config())
	if got := take(t, d, start, linkHello(9)); got != "up 2.2.2.2:0 2.2.2.2, hello eth0224.0.0.2" {
		t.Fatalf("%s, want the new peer to hear of this router at once", got)
	}
	if d.Next() != start.Add(3*time.Second) {
		t.Errorf("hellos every %v, want a third of the peer's hold time", d.Next().Sub(start))
	}
	at := start.Add(8 * time.Second)
	if got := take(t, d, at, linkHello(9)); got != "" {
		t.Errorf("a renewal said %q", got)
	}
	d.Tick(at.Add(9*time.Second - 1))
	if len(d.Of(peer)) != 1 {
		t.Fatal("gone before its time")
	}
	if got := text(d.Tick(at.Add(9 * time.Second))); !strings.Contains(got, "down 2.2.2.2:0: Hold Timer Expired") {
		t.Fatal(got)
	}
}

// TestHoldTimes: the smaller proposal holds, 0 is the default, 65535 is for ever.
func TestHoldTimes(t *testing.T) {
	for _, x := range []struct {
		own      time.Duration
		proposed uint16
		want     time.Duration
	}{
		{15 * time.Second, 9, 9 * time.Second},
		{15 * time.Second, 60, 15 * time.Second},
		{60 * time.Second, wire.HoldTimeDefault, 15 * time.Second},
		{15 * time.Second, wire.HoldTimeInfinite, 15 * time.Second},
		{Infinite, wire.HoldTimeInfinite, Infinite},
		{Infinite, 20, 20 * time.Second},
	} {
		cfg := config()
		cfg.LinkHold = x.own
		d := router(cfg)
		take(t, d, start, linkHello(x.proposed))
		if a := d.Adjacencies()[0]; a.Hold != x.want || a.Until.IsZero() != (x.want == Infinite) {
			t.Errorf("%v and %d: held for %v until %v, want %v", x.own, x.proposed, a.Hold, a.Until, x.want)
		}
	}
}

// TestRefusals: what makes no adjacency, and why.
func TestRefusals(t *testing.T) {
	for want, change := range map[Reason]func(*Received){
		Own:          func(r *Received) { r.Sender = own },
		PlatformWide: func(r *Received) { r.Sender.Space = 1 },
		NoInterface:  func(r *Received) { r.Interface = "eth9" },
		BadTransport: func(r *Received) { r.Hello.IPv4Transport = addr("224.0.0.2") },
		Conflict: func(r *Received) {
			r.Source = addr("10.0.0.3")
			r.Interface = "eth1"
			r.Hello.IPv4Transport = addr("9.9.9.9")
		},
		NotAccepted: func(r *Received) { *r = targetedHello(addr("192.0.2.9"), true) },
		NotAsked:    func(r *Received) { *r = targetedHello(remote, false) },
		TooMany:     func(r *Received) { r.Sender = other; r.Hello.IPv4Transport = addr("3.3.3.3") },
	} {
		cfg := config()
		cfg.MaxAdjacencies = 1
		d := New(cfg)
		d.SetInterfaces(start, []Interface{{Name: "eth0", V4: true}, {Name: "eth1", V4: true}})
		take(t, d, start, linkHello(15))
		r := linkHello(15)
		change(&r)
		_, err := d.Hello(start, r)
		var got Reason
		if !errors.As(err, &got) || got != want || d.Refused()[want] != 1 || len(d.Adjacencies()) != 1 {
			t.Errorf("%v: %v, counted %v", want, err, d.Refused())
		}
	}
	v6 := linkHello(15)
	v6.Source, v6.Hello.IPv6Transport = addr("fe80::2"), addr("2001:db8::2")
	for what, change := range map[string]func(*Received){
		"a link's transport address, told":   func(r *Received) { r.Hello.IPv6Transport = addr("fe80::2") },
		"a link's transport address, untold": func(r *Received) { r.Hello.IPv6Transport = netip.Addr{} },
		"targeted, from a link's address":    func(r *Received) { r.Hello.Targeted, r.Hello.RequestTargeted = true, true },
	} {
		cfg := config()
		cfg.Accept = func(netip.Addr) bool { return true }
		r := v6
		change(&r)
		if _, err := router(cfg).Hello(start, r); !errors.Is(err, BadTransport) {
			t.Errorf("%s: %v", what, err)
		}
	}
	cfg := config()
	cfg.Transport6 = netip.Addr{}
	if _, err := router(cfg).Hello(start, v6); !errors.Is(err, NoTransport) {
		t.Errorf("IPv6 without a transport address: %v", err)
	}
}

// TestPeerChanges: its transport address, which its only adjacency follows, and what else it says of itself; RFC 5036 has it say so by a
// new configuration sequence number.
func TestPeerChanges(t *testing.T) {
	d := router(config())
	take(t, d, start, linkHello(15))
	r := linkHello(15)
	r.Hello.IPv4Transport = addr("2.2.2.3")
	if got := take(t, d, start, r); got != "changed 2.2.2.2:0 2.2.2.3" {
		t.Error(got)
	}
	r.Hello.GTSM = true
	if got := take(t, d, start, r); got != "changed 2.2.2.2:0 2.2.2.3" {
		t.Errorf("it wants GTSM: %q", got)
	}
	sequence := uint32(7)
	r.Hello.ConfigSequence = &sequence
	if got := take(t, d, start, r); got != "changed 2.2.2.2:0 2.2.2.3" {
		t.Error(got)
	}
}

// TestOneTransportAddress: two routers cannot have one, for a session's secret and its packets' hops go by it. Whoever comes second waits
// until the first one is gone, which may be the same router under its former id.
func TestOneTransportAddress(t *testing.T) {
	d := router(config())
	take(t, d, start, linkHello(15))
	r := linkHello(15)
	r.Sender, r.Source = other, addr("10.0.0.3")
	if actions, err := d.Hello(start, r); !errors.Is(err, Conflict) || len(actions) > 0 {
		t.Errorf("another router with that address: %s, %v", text(actions), err)
	}
	r.Hello.IPv4Transport = addr("3.3.3.3")
	take(t, d, start, r)
	r.Hello.IPv4Transport = addr("2.2.2.2")
	if actions, err := d.Hello(start, r); !errors.Is(err, Conflict) || len(actions) > 0 {
		t.Errorf("another router takes that address: %s, %v", text(actions), err)
	}
	later := start.Add(15 * time.Second)
	d.Tick(later)
	if got := take(t, d, later, r); got != "up 3.3.3.3:0 2.2.2.2, hello eth0224.0.0.2" {
		t.Errorf("when the first one is gone: %q", got)
	}
}

func TestTargeted(t *testing.T) {
	d := router(config())
	if got := text(d.SetTargets(start, []netip.Addr{source})); got != "hello 10.0.0.2 asks" {
		t.Fatalf("a configured target: %q", got)
	}
	if got := take(t, d, start, targetedHello(source, false)); got != "up 2.2.2.2:0 2.2.2.2" {
		t.Errorf("its answer: %q", got)
	}
	// Somebody else asks, and is answered as long as it does.
	if got := take(t, d, start, targetedHello(remote, true)); got != "hello 192.0.2.2, up 2.2.2.2:0 2.2.2.2" {
		t.Errorf("who asks and may: %q", got)
	}
	if got := text(d.Tick(start.Add(45 * time.Second))); strings.Count(got, "Hold Timer Expired") != 2 || strings.Contains(got, "hello 192.0.2.2") {
		t.Errorf("when both are silent: %q", got)
	}
	d.SetTargets(start.Add(46*time.Second), nil)
	if got := text(d.Tick(start.Add(time.Hour))); got != "hello eth0224.0.0.2, hello eth0ff02::2" {
		t.Errorf("without targets: %q", got)
	}
}

// TestOneTargetLess ends its adjacency at once: nobody here wants it.
func TestOneTargetLess(t *testing.T) {
	d := router(config())
	d.SetTargets(start, []netip.Addr{source, remote})
	take(t, d, start, targetedHello(source, false))
	take(t, d, start, targetedHello(remote, false))
	if got := text(d.SetTargets(start, nil)); got != "down 2.2.2.2:0: Shutdown" || len(d.Of(peer)) != 1 {
		t.Errorf("%q, left %v; who is accepted stays while it asks", got, d.Of(peer))
	}
}

func TestInterfaceGoes(t *testing.T) {
	d := router(config())
	take(t, d, start, linkHello(15))
	v6 := linkHello(15)
	v6.Source, v6.Hello.IPv6Transport = addr("fe80::2"), addr("2001:db8::2")
	take(t, d, start, v6)
	if got := text(d.SetInterfaces(start, []Interface{{Name: "eth0", V6: true}})); got != "down 2.2.2.2:0: Shutdown" {
		t.Errorf("without IPv4: %q", got)
	}
	if got := text(d.SetInterfaces(start, nil)); got != "down 2.2.2.2:0: Shutdown" || !d.Next().IsZero() {
		t.Errorf("without the interface: %q", got)
	}
}

// TestPreference: who wants sessions over the other family is no peer of a dual-stack router, and ceases to be one (RFC 7552 section
// 6.1.1).
func TestPreference(t *testing.T) {
	hello := func(p wire.TransportPreference) Received {
		h := linkHello(15)
		h.Hello.Preference = p
		return h
	}
	d := router(config())
	take(t, d, start, hello(wire.PreferIPv6))
	actions, err := d.Hello(start, hello(wire.PreferIPv4))
	if got := text(actions); !errors.Is(err, Preference) || got != "down 2.2.2.2:0: Transport Connection Mismatch" {
		t.Errorf("%s, %v", got, err)
	}
	unknown := &wire.Error{Status: wire.StatusTransportConnectionMismatch}
	wrong := func(r Received) string { r.Hello = wire.Hello{}; return text(d.Unusable(r, unknown)) } // nothing is known of it
	take(t, d, start, hello(wire.PreferIPv6))
	if got := text(d.Unusable(hello(0), &wire.Error{Status: wire.StatusBadTLVLength})); got != "" {
		t.Errorf("a hello that was cut short: %s", got)
	}
	other := hello(0)
	other.Source = remote
	if got := wrong(other); got != "" {
		t.Errorf("from somewhere else: %s", got)
	}
	if got := wrong(hello(0)); got != "down 2.2.2.2:0: Transport Connection Mismatch" {
		t.Errorf("of an unknown preference: %s", got)
	}
	cfg := config()
	cfg.Transport6 = netip.Addr{}
	d = router(cfg)
	take(t, d, start, hello(wire.PreferIPv4))
	if got := wrong(hello(0)); got != "" {
		t.Errorf("at a router of one family, which has no preference: %s", got)
	}
}

// TestPreferenceOfOneAdjacency: a refused hello ends the adjacency that it would have renewed, and no other: a targeted one, which may
// come from anywhere, none of a link.
func TestPreferenceOfOneAdjacency(t *testing.T) {
	d := New(config())
	d.SetInterfaces(start, []Interface{{Name: "eth0", V4: true}, {Name: "eth1", V4: true}})
	first, second := linkHello(15), linkHello(15)
	second.Interface = "eth1" // of a peer with one address on both
	take(t, d, start, first)
	take(t, d, start, second)
	forged := targetedHello(source, true)
	forged.Hello.Preference = wire.PreferIPv4
	if actions, err := d.Hello(start, forged); text(actions) != "" || !errors.Is(err, NotAccepted) {
		t.Errorf("targeted, by nobody who may: %q, %v", text(actions), err)
	}
	d.SetTargets(start, []netip.Addr{source})
	if actions, err := d.Hello(start, forged); text(actions) != "" || !errors.Is(err, Preference) {
		t.Errorf("targeted: %q, %v", text(actions), err)
	}
	second.Hello.Preference = wire.PreferIPv4
	if actions, _ := d.Hello(start, second); text(actions) != "down 2.2.2.2:0: Transport Connection Mismatch" || d.Of(peer)[0].Interface != "eth0" {
		t.Errorf("on one link of two: %q, left %v", text(actions), d.Of(peer))
	}
}
