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
}

func (r *recorder) Remote() netip.Addr            { return r.remote }
func (r *recorder) Send(m wire.Message)           { r.sent = append(r.sent, m) }
func (r *recorder) SetMaxPDU(uint16)              {}
func (r *recorder) SetGTSM() error                { r.gtsm = true; return r.fail }
func (r *recorder) SetSecret(secret string) error { r.secret = secret; return r.fail }
func (r *recorder) Close()                        { r.closed = true }

var (
	start = time.Unix(1_700_000_000, 0)
	other = wire.Identifier{LSR: wire.LSRID{9, 9, 9, 9}} // it has the greater address, so it connects
)

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
	r := discovery.Received{Interface: "a", Source: addr("10.0.0.9"), Sender: other, Hello: wire.Hello{
		HelloParameters: wire.HelloParameters{HoldTime: 15, GTSM: !targeted, Targeted: targeted}, IPv4Transport: addr("9.9.9.9"),
	}}
	if targeted {
		r.Source = addr("9.9.9.9")
	}
	s.event(start, transport.Hello{Received: r})
}

// connect has somebody connect and say that it is the other.
func connect(s *Service, c *recorder) {
	s.event(start, transport.Accepted{Conn: c})
	s.event(start, transport.Received{Conn: c, Sender: other, Messages: []transport.Message{{Message: wire.Initialization{
		Head: wire.Head{ID: 1}, SessionParameters: wire.SessionParameters{KeepAliveTime: 30, Receiver: s.Config.ID()},
	}}}})
}

func hasSession(s *Service) bool {
	p := s.peers[other]
	if p == nil {
		return false
	}
	state, _ := p.session.State()
	return state != session.NonExistent
}

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
