package service

import (
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/discovery"
	"github.com/manycast/manycast/tdpd/internal/journal"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/session"
	"github.com/manycast/manycast/tdpd/internal/transport"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// recorder is a connection that notes what is done to it.
type recorder struct {
	remote netip.Addr
	fail   error // to protect it
	sent   []wire.Message
	secret string
	gtsm   bool
	closed bool
	most   int // messages that may wait
}

func (r *recorder) Remote() netip.Addr            { return r.remote }
func (r *recorder) Send(m wire.Message)           { r.sent = append(r.sent, m) }
func (r *recorder) SetMaxPDU(uint16)              {}
func (r *recorder) SetMaxQueue(n int)             { r.most = n }
func (r *recorder) SetGTSM() error                { r.gtsm = true; return r.fail }
func (r *recorder) SetSecret(secret string) error { r.secret = secret; return r.fail }
func (r *recorder) Close()                        { r.closed = true }

var (
	start = time.Unix(1_700_000_000, 0)
	other = wire.Identifier{LSR: wire.LSRID{9, 9, 9, 9}} // it has the greater address, so it connects
)

// notes is a Network that notes secrets and opens recorders.
type notes struct {
	transport.Network
	secrets map[netip.Addr]string
	opened  []*recorder
	with    []transport.Options
}

func (n *notes) SetSecret(peer netip.Addr, secret string) error {
	n.secrets[peer] = secret
	return nil
}

func (n *notes) Connect(o transport.Options) transport.Conn {
	c := &recorder{remote: o.Peer}
	n.opened, n.with = append(n.opened, c), append(n.with, o)
	return c
}

// noting has a Service's network note.
func noting(n *notes) func(*Options) {
	return func(o *Options) { n.Network, n.secrets, o.Network = o.Network, map[netip.Addr]string{}, n }
}

// passive is a Service on one link that has not run.
func passive(t testing.TB, change func(*Options)) *Service {
	t.Helper()
	cfg := config.Default()
	cfg.RouterID, cfg.Transport4, cfg.Interfaces = addr("1.1.1.1"), addr("1.1.1.1"), []string{"a"}
	cfg.Neighbors = []config.Neighbor{{Targeted: addr("9.9.9.9")}}
	j, err := journal.Open(filepath.Join(t.TempDir(), "labels"), "boot")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Config: cfg, Network: transport.NewFabric().Router(cfg.ID(), cfg.Transport4), Kernel: kernel.NewFake(kernel.State{}), Journal: j, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.discovered(start, s.discovery.SetInterfaces(start, []discovery.Interface{{Name: "a", V4: true}}))
	s.discovered(start, s.discovery.SetTargets(start, cfg.Targets()))
	return s
}

// greet has the other's hello come.
func greet(s *Service, targeted bool) {
	hear(s, func(r *discovery.Received) {
		if targeted {
			r.Source, r.Hello.GTSM, r.Hello.Targeted = addr("9.9.9.9"), false, true
		}
	})
}

// hear has a hello come that is the other's, on the link, but for the change.
func hear(s *Service, change func(*discovery.Received)) {
	r := discovery.Received{Interface: "a", Source: addr("10.0.0.9"), Sender: other, Hello: wire.Hello{
		HelloParameters: wire.HelloParameters{HoldTime: 15, GTSM: true}, IPv4Transport: addr("9.9.9.9"),
	}}
	change(&r)
	s.event(start, transport.Hello{Received: r})
}

// connect has somebody connect and say that it is the other.
func connect(s *Service, c *recorder) {
	s.event(start, transport.Accepted{Conn: c})
	say(s, c, initialization(s.Config.ID()))
}

// initialization is the other's, for that receiver.
func initialization(receiver wire.Identifier) wire.Initialization {
	return wire.Initialization{Head: wire.Head{ID: 1}, SessionParameters: wire.SessionParameters{KeepAliveTime: 30, Receiver: receiver}}
}

// say has the other say something.
func say(s *Service, c *recorder, messages ...wire.Message) {
	r := transport.Received{Conn: c, Sender: other}
	for _, m := range messages {
		r.Messages = append(r.Messages, transport.Message{Message: m})
	}
	s.event(start, r)
}

// operational brings the session with the other up.
func operational(t *testing.T, s *Service, c *recorder) {
	t.Helper()
	connect(s, c)
	say(s, c, wire.KeepAlive{})
	if state := stateOf(s); state != session.Operational {
		t.Fatalf("the session is %v: %+v", state, c)
	}
}

func stateOf(s *Service) session.State {
	p := s.peers[other]
	if p == nil {
		return session.NonExistent
	}
	state, _ := p.session.State()
	return state
}

func hasSession(s *Service) bool { return stateOf(s) != session.NonExistent }

// refusedFor is the status of the notification that a connection was refused with.
func refusedFor(c *recorder) wire.StatusCode {
	if len(c.sent) == 1 && c.closed {
		if n, ok := c.sent[0].(wire.Notification); ok {
			return n.Status.Code
		}
	}
	return 0
}

// TestWhoConnectsFirstIsProtected: hello or connection first, the session is held to the secret and to the link; where that fails
// there is none.
func TestWhoConnectsFirstIsProtected(t *testing.T) {
	secret := func(o *Options) { o.Secrets = map[netip.Addr]string{addr("9.9.9.9"): "tell nobody"} }
	for name, order := range map[string]func(*Service, *recorder){
		"hello first":      func(s *Service, c *recorder) { greet(s, false); connect(s, c) },
		"connection first": func(s *Service, c *recorder) { connect(s, c); greet(s, false) },
	} {
		t.Run(name, func(t *testing.T) {
			s, c := passive(t, secret), &recorder{remote: addr("9.9.9.9")}
			order(s, c)
			if !hasSession(s) || c.secret != "tell nobody" || !c.gtsm || c.closed {
				t.Errorf("session %v, %+v", hasSession(s), c)
			}
			s, c = passive(t, secret), &recorder{remote: addr("9.9.9.9"), fail: errors.New("no MD5 here")}
			order(s, c)
			if hasSession(s) || refusedFor(c) != wire.StatusShutdown {
				t.Errorf("what cannot be protected is a session: %v, %+v", hasSession(s), c)
			}
		})
	}
}

// TestStrangers: who sends no hellos is told so, after a while; so is who connects from elsewhere.
func TestStrangers(t *testing.T) {
	s := passive(t, nil)
	silent, elsewhere := &recorder{remote: addr("9.9.9.9")}, &recorder{remote: addr("8.8.8.8")}
	connect(s, silent)
	s.tick(start.Add(firstWithin))
	if refusedFor(silent) != wire.StatusRejectedNoHello {
		t.Errorf("no hello: %+v", silent)
	}
	greet(s, false)
	connect(s, elsewhere)
	s.tick(start.Add(firstWithin))
	if hasSession(s) || refusedFor(elsewhere) != wire.StatusRejectedNoHello || s.counters.Strangers != 2 {
		t.Errorf("from elsewhere: session %v, %+v, %+v", hasSession(s), elsewhere, s.counters)
	}
}

// TestAnotherAdjacencyLeavesTheSession: targeted hellos beside those of the link are no reason to end it, though they cannot have GTSM.
func TestAnotherAdjacencyLeavesTheSession(t *testing.T) {
	s, c := passive(t, nil), &recorder{remote: addr("9.9.9.9")}
	greet(s, false)
	connect(s, c)
	p := s.peers[other]
	greet(s, true)
	if len(s.discovery.Of(other)) != 2 || s.peers[other] != p || c.closed {
		t.Errorf("adjacencies %v, the same peer %v, closed %v", s.discovery.Of(other), s.peers[other] == p, c.closed)
	}
}

// TestClear ends a session, which may come back; of nobody there is none to clear.
func TestClear(t *testing.T) {
	s, c := passive(t, nil), &recorder{remote: addr("9.9.9.9")}
	if err := s.Clear(start, other); !errors.Is(err, ErrNoPeer) {
		t.Errorf("nobody's: %v", err)
	}
	greet(s, false)
	connect(s, c)
	if err := s.Clear(start, other); err != nil || !c.closed || hasSession(s) {
		t.Errorf("%v, closed %v, session %v", err, c.closed, hasSession(s))
	}
	again := &recorder{remote: addr("9.9.9.9")}
	connect(s, again)
	if !hasSession(s) || again.closed {
		t.Error("it does not come back")
	}
}

// TestClearWhileConnecting leaves no connection behind that nobody would ever close.
func TestClearWhileConnecting(t *testing.T) {
	n := &notes{}
	s := passive(t, noting(n))
	least := wire.Identifier{LSR: wire.LSRID{1, 0, 0, 9}} // it has the smaller address: we connect
	hear(s, func(r *discovery.Received) { r.Sender, r.Hello.IPv4Transport = least, addr("1.0.0.9") })
	if err := s.Clear(start, least); err != nil || len(n.opened) != 2 {
		t.Fatalf("%v, connections %v", err, n.opened)
	}
	if !n.opened[0].closed || n.opened[1].closed || s.peers[least].conn != n.opened[1] {
		t.Errorf("closed: %v and %v", n.opened[0].closed, n.opened[1].closed)
	}
	late := &recorder{}
	s.event(start, transport.Connected{Conn: late})
	if !late.closed {
		t.Error("a connection that is nobody's goes on")
	}
}

// TestSecretOfAnAddress: what anybody says of a neighbor's address does not take its secret away; the neighbor's own end does.
func TestSecretOfAnAddress(t *testing.T) {
	n := &notes{}
	s := passive(t, func(o *Options) {
		noting(n)(o)
		o.Secrets = map[netip.Addr]string{addr("9.9.9.9"): "tell nobody"}
	})
	greet(s, false)
	hear(s, func(r *discovery.Received) { r.Sender.LSR, r.Source = wire.LSRID{8, 8, 8, 8}, addr("10.0.0.8") })
	if len(s.peers) != 1 || n.secrets[addr("9.9.9.9")] != "tell nobody" {
		t.Errorf("another one says that the address is its own: %d peers, secrets %v", len(s.peers), n.secrets)
	}
	s.tick(start.Add(15 * time.Second))
	if len(s.peers) != 0 || n.secrets[addr("9.9.9.9")] != "" {
		t.Errorf("gone: %d peers, secrets %v", len(s.peers), n.secrets)
	}
}

// TestGTSMIsOfASession: each session is held to what the peer's hellos want when it begins (RFC 6720), the one that there is to what
// was agreed. One that is being opened when they change begins anew.
func TestGTSMIsOfASession(t *testing.T) {
	says := func(s *Service, gtsm bool) { hear(s, func(r *discovery.Received) { r.Hello.GTSM = gtsm }) }
	to := prefix("9.9.9.9/32")
	for _, before := range []bool{true, false} {
		s := passive(t, nil)
		says(s, before)
		first, second := &recorder{remote: addr("9.9.9.9")}, &recorder{remote: addr("9.9.9.9")}
		operational(t, s, first)
		says(s, !before)
		if first.gtsm != before || first.closed || s.plain[to] != before {
			t.Errorf("GTSM %v, while the session is up: %+v, packets without labels: %v", before, first, s.plain)
		}
		s.event(start, transport.Closed{Conn: first})
		if s.plain[to] == before {
			t.Errorf("GTSM %v before, packets without labels: %v", before, s.plain)
		}
		operational(t, s, second)
		if second.gtsm == before {
			t.Errorf("GTSM %v before, the next session: %+v", before, second)
		}

		opening := &recorder{remote: addr("9.9.9.9")}
		s = passive(t, nil)
		says(s, before)
		connect(s, opening)
		says(s, !before)
		if opening.gtsm != before || !opening.closed || hasSession(s) {
			t.Errorf("GTSM %v, while it is being opened: %+v", before, opening)
		}
	}
}

// TestGTSMWhileConnecting: the connection that is being opened with the old setting is given up for one with the new.
func TestGTSMWhileConnecting(t *testing.T) {
	n := &notes{}
	s := passive(t, noting(n))
	for _, gtsm := range []bool{true, false} {
		hear(s, func(r *discovery.Received) {
			r.Sender.LSR, r.Hello.IPv4Transport, r.Hello.GTSM = wire.LSRID{1, 0, 0, 9}, addr("1.0.0.9"), gtsm
		})
	}
	if len(n.opened) != 2 || !n.with[0].GTSM || n.with[1].GTSM || !n.opened[0].closed || n.opened[1].closed {
		t.Errorf("%+v", n.with)
	}
}

// TestWhatReplacesASession: a new connection of the peer's does if it begins with an Initialization for this router, and nothing else.
func TestWhatReplacesASession(t *testing.T) {
	for name, x := range map[string]struct {
		say      []wire.Message
		wrong    *wire.Error // in place of it
		status   wire.StatusCode
		replaces bool
	}{
		"a KeepAlive":                       {say: []wire.Message{wire.KeepAlive{}}, status: wire.StatusShutdown},
		"an Initialization for another one": {say: []wire.Message{initialization(other)}, status: wire.StatusRejectedNoHello},
		"an error":                          {wrong: &wire.Error{Status: wire.StatusRejectedBadKeepAliveTime}, status: wire.StatusRejectedBadKeepAliveTime},
		"an Initialization":                 {say: []wire.Message{initialization(wire.Identifier{LSR: wire.LSRID{1, 1, 1, 1}})}, replaces: true},
		"what is to be ignored, and an Initialization": {
			say: []wire.Message{wire.UnknownMessage{MessageType: 0x3f00}, initialization(wire.Identifier{LSR: wire.LSRID{1, 1, 1, 1}})}, replaces: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, c, next := passive(t, nil), &recorder{remote: addr("9.9.9.9")}, &recorder{remote: addr("9.9.9.9")}
			greet(s, false)
			operational(t, s, c)
			s.event(start, transport.Accepted{Conn: next})
			if x.wrong != nil {
				s.event(start, transport.Received{Conn: next, Sender: other, Messages: []transport.Message{{Err: x.wrong}}})
			} else {
				say(s, next, x.say...)
			}
			if c.closed != x.replaces || next.closed == x.replaces || !x.replaces && (stateOf(s) != session.Operational || refusedFor(next) != x.status) {
				t.Errorf("the session is %v, closed %v; the new connection %+v", stateOf(s), c.closed, next)
			}
		})
	}
}

// TestManyStrangers: whoever keeps connections open and says nothing takes a few places, and none that a neighbor needs.
func TestManyStrangers(t *testing.T) {
	s, now := passive(t, nil), start
	var all []*recorder
	open := func(from netip.Addr) *recorder {
		c := &recorder{remote: from}
		s.event(now, transport.Accepted{Conn: c})
		now, all = now.Add(time.Millisecond), append(all, c)
		return c
	}
	closed := func() (n int) {
		for _, c := range all {
			if c.closed {
				n++
			}
		}
		return n
	}
	for range strangersOfOne + 3 {
		open(addr("8.8.8.8"))
	}
	if closed() != 3 || !all[2].closed || len(s.strangers) != strangersOfOne {
		t.Fatalf("of one address: %d closed, %d wait", closed(), len(s.strangers))
	}
	greet(s, false)
	early := open(addr("9.9.9.9"))
	for from := addr("7.0.0.1"); len(s.strangers) < strangersMost; from = from.Next() {
		open(from)
	}
	before := closed()
	if c := open(addr("6.6.6.6")); !c.closed || closed() != before+1 {
		t.Errorf("nobody knows it and there is no place: %+v, %d closed", c, closed()-before)
	}
	c := open(addr("9.9.9.9"))
	if c.closed || early.closed || closed() != before+2 || !all[3].closed {
		t.Errorf("a neighbor takes the place of who has waited longest: %+v, %d closed", c, closed()-before)
	}
	say(s, c, initialization(s.Config.ID()))
	if !hasSession(s) {
		t.Error("the neighbor has no session")
	}
}

// TestDualStackNoncompliance: whose hellos of both families do not say what it prefers has no session, and is told why if it had one.
func TestDualStackNoncompliance(t *testing.T) {
	s := passive(t, func(o *Options) { o.Config.Transport6, o.Config.Prefer = addr("2001:db8::1"), "ipv4" })
	s.discovered(start, s.discovery.SetInterfaces(start, []discovery.Interface{{Name: "a", V4: true, V6: true}}))
	c := &recorder{remote: addr("9.9.9.9")}
	greet(s, false)
	operational(t, s, c)
	hear(s, func(r *discovery.Received) {
		r.Source, r.Hello.IPv4Transport, r.Hello.IPv6Transport = addr("fe80::9"), netip.Addr{}, addr("2001:db8::9")
	})
	if n, is := c.sent[len(c.sent)-1].(wire.Notification); hasSession(s) || !c.closed || !is || n.Status.Code != wire.StatusDualStackNoncompliance {
		t.Errorf("session %v, closed %v, last %v", hasSession(s), c.closed, c.sent[len(c.sent)-1])
	}
}
