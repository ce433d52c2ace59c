package channel_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/channel"
	"github.com/manycast/manycast/internal/control/controltest"
	"github.com/manycast/manycast/internal/control/transport"
	"github.com/manycast/manycast/internal/keyfile"
)

// node is a member on a LAN, with all that it heard.
type node struct {
	*channel.Channel
	stop func()

	mu     sync.Mutex
	events []control.Event
	beats  int
}

func (n *node) took(kind control.Kind) (bodies []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.events {
		if r, ok := e.(control.Received); ok && r.Kind == kind {
			bodies = append(bodies, r.From.Name+": "+string(r.Body))
		}
	}
	return bodies
}

func (n *node) health(name string) control.Health {
	for _, m := range n.Members() {
		if m.Name == name {
			return m.Health
		}
	}
	return control.Unknown
}

func (n *node) why(name string) string {
	for _, m := range n.Members() {
		if m.Name == name {
			return m.Why
		}
	}
	return ""
}

func start(t *testing.T, lan *transport.LAN, name string, role control.Role, last byte) *node {
	t.Helper()
	a := netip.AddrFrom4([4]byte{10, 0, 0, last})
	return startWith(t, lan.Join(a), name, role, a, 250*time.Millisecond)
}

func startWith(t *testing.T, tr transport.Transport, name string, role control.Role, a netip.Addr, deadAfter time.Duration) *node {
	t.Helper()
	random := rand.NewChaCha8([32]byte{byte(time.Now().UnixNano()), a.As4()[3]})
	c, err := channel.New(channel.Config{
		Identity:  controltest.Identity(name, role, role == control.Director, a, time.Now()),
		Authority: controltest.Authority().Public(), Group: controltest.Group,
		Heartbeat: 50 * time.Millisecond, DeadAfter: deadAfter, FrameMax: 1200, Transport: tr, Random: random,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Channel: c}
	c.SetKeys([]keyfile.Group{controltest.GroupKey(1)})
	c.OnBeat(func() { n.mu.Lock(); n.beats++; n.mu.Unlock() })
	c.Listen(func(e control.Event) { n.mu.Lock(); n.events = append(n.events, e); n.mu.Unlock() })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

func TestMembersMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := transport.NewLAN()
		s1, s2, d1 := start(t, lan, "s1", control.Server, 1), start(t, lan, "s2", control.Server, 2), start(t, lan, "d1", control.Director, 9)
		defer func() { s1.stop(); s2.stop(); d1.stop() }()
		time.Sleep(300 * time.Millisecond)
		for _, n := range []*node{s1, s2, d1} {
			if got := len(n.Members()); got != 2 {
				t.Fatalf("%d others heard after 300 ms", got)
			}
		}
		time.Sleep(5 * time.Second)
		s3 := start(t, lan, "s3", control.Server, 3) // comes late: meets all at once
		defer s3.stop()
		time.Sleep(300 * time.Millisecond)
		if got := len(s3.Members()); got != 3 {
			t.Errorf("%d others heard 300 ms after the start", got)
		}
		if err := d1.Send(control.KindAnnounce, []byte("epoch 1")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		for _, n := range []*node{s1, s2, s3} {
			if got := n.took(control.KindAnnounce); !slices.Equal(got, []string{"d1: epoch 1"}) {
				t.Errorf("took %q", got)
			}
		}
		if got := d1.took(control.KindAnnounce); len(got) != 0 {
			t.Errorf("heard itself: %q", got)
		}
		s1.SetStatus(control.Status{Why: "no answer"})
		time.Sleep(10 * time.Millisecond)
		if h, why := s2.health("s1"), s2.why("s1"); h != control.Unwell || why != "no answer" {
			t.Errorf("s1 is %v: %s", h, why)
		}
		s1.stop()
		time.Sleep(290 * time.Millisecond)
		if h := s2.health("s1"); h != control.Silent {
			t.Errorf("s1 is %v 290 ms after its end", h)
		}
	})
}

// Who is not alive is not heard, and is again when it is.
func TestSpeaksWhileAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := transport.NewLAN()
		s1, s2 := start(t, lan, "s1", control.Server, 1), start(t, lan, "s2", control.Server, 2)
		defer func() { s1.stop(); s2.stop() }()
		var hangs atomic.Bool
		s1.SpeakWhile(func() bool { return !hangs.Load() })
		time.Sleep(2 * time.Second)
		hangs.Store(true)
		time.Sleep(time.Second)
		s1.mu.Lock()
		beats := s1.beats
		s1.mu.Unlock()
		if h := s2.health("s1"); h != control.Silent {
			t.Errorf("s1 is %v while it is not alive", h)
		}
		time.Sleep(time.Second)
		s1.mu.Lock()
		if s1.beats != beats {
			t.Errorf("%d beats while it is not alive", s1.beats-beats)
		}
		s1.mu.Unlock()
		hangs.Store(false)
		time.Sleep(200 * time.Millisecond)
		if h := s2.health("s1"); h != control.Available {
			t.Errorf("s1 is %v when it is alive again", h)
		}
	})
}

// One way alone is lost: who hears nobody says so, and who is not heard is silent.
func TestOneWayLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := transport.NewLAN()
		s1, s2, s3 := start(t, lan, "s1", control.Server, 1), start(t, lan, "s2", control.Server, 2), start(t, lan, "s3", control.Server, 3)
		defer func() { s1.stop(); s2.stop(); s3.stop() }()
		time.Sleep(2 * time.Second)
		first := netip.AddrFrom4([4]byte{10, 0, 0, 1})
		lan.Lose(func(_, to netip.Addr) bool { return to == first })
		time.Sleep(400 * time.Millisecond)
		if h, why := s2.health("s1"), s2.why("s1"); h != control.Unwell || why != "hears nobody" {
			t.Errorf("deaf: %v %q", h, why)
		}
		lan.Lose(nil)
		time.Sleep(400 * time.Millisecond)
		if h := s2.health("s1"); h != control.Available {
			t.Errorf("hears again: %v", h)
		}
		lan.Lose(func(from, _ netip.Addr) bool { return from == first })
		time.Sleep(400 * time.Millisecond)
		if a, b, c := s2.health("s1"), s3.health("s1"), s1.health("s2"); a != control.Silent || b != control.Silent || c != control.Available {
			t.Errorf("mute: %v %v, and hears %v", a, b, c)
		}
	})
}

// A tenth of all frames lost, three in a row each time: nobody is taken for silent.
func TestLossIsNoDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := transport.NewLAN()
		nodes := []*node{start(t, lan, "s1", control.Server, 1), start(t, lan, "s2", control.Server, 2), start(t, lan, "d1", control.Director, 9)}
		defer func() {
			for _, n := range nodes {
				n.stop()
			}
		}()
		time.Sleep(2 * time.Second)
		frames, lost := make(map[[2]netip.Addr]int), 0
		lan.Lose(func(from, to netip.Addr) bool { // one at a time: the LAN calls it under its lock
			frames[[2]netip.Addr{from, to}]++
			if frames[[2]netip.Addr{from, to}]%30 < 3 {
				lost++
				return true
			}
			return false
		})
		time.Sleep(time.Minute)
		lan.Lose(nil)
		if lost < 500 {
			t.Fatalf("%d frames lost: the test does not test", lost)
		}
		for _, n := range nodes {
			n.mu.Lock()
			for _, e := range n.events {
				if c, ok := e.(control.Changed); ok && c.Member.Health != control.Available {
					t.Errorf("%s is taken for %v", c.Member.Name, c.Member.Health)
				}
			}
			n.mu.Unlock()
		}
	})
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := transport.NewLAN()
		s1, s2 := start(t, lan, "s1", control.Server, 1), start(t, lan, "s2", control.Server, 2)
		defer s2.stop()
		time.Sleep(2 * time.Second)
		if err := s1.Pause(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		s1.stop()
		time.Sleep(3 * time.Second)
		if h := s2.health("s1"); h != control.Available {
			t.Errorf("within its pause: %v", h)
		}
		again := start(t, lan, "s1", control.Server, 1)
		defer again.stop()
		time.Sleep(time.Second)
		if h := s2.health("s1"); h != control.Available {
			t.Errorf("back: %v", h)
		}
		s2.mu.Lock()
		defer s2.mu.Unlock()
		for _, e := range s2.events {
			if c, ok := e.(control.Changed); ok && c.Member.Health == control.Silent {
				t.Errorf("silent: %+v", c.Member)
			}
		}
	})
}

// A heartbeat that could not leave is none.
func TestBeatsThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s1 := start(t, transport.NewLAN(), "s1", control.Server, 1)
		time.Sleep(time.Second + time.Millisecond)
		s1.mu.Lock()
		beats := s1.beats
		s1.mu.Unlock()
		if beats < 19 || beats > 22 {
			t.Errorf("%d beats in a second", beats)
		}
		s1.SetKeys(nil)
		time.Sleep(time.Second)
		s1.mu.Lock()
		if s1.beats > beats+1 {
			t.Errorf("%d beats without a key", s1.beats-beats)
		}
		s1.mu.Unlock()
		if err := s1.Send(control.KindDone, nil); err == nil {
			t.Error("sent without a key")
		}
		s1.stop()
	})
}

func TestOwnCertificate(t *testing.T) {
	a := netip.MustParseAddr("10.0.0.1")
	_, err := channel.New(channel.Config{
		Identity:  controltest.Identity("s1", control.Server, false, a, time.Now().Add(-3*time.Hour)),
		Authority: controltest.Authority().Public(), Group: controltest.Group, Random: controltest.Random(1),
	})
	if err == nil {
		t.Error("an expired certificate will do")
	}
}

// Who only listens hears all, and nobody hears of it.
func TestListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := transport.NewLAN()
		s1, s2 := start(t, lan, "s1", control.Server, 1), start(t, lan, "s2", control.Server, 2)
		defer func() { s1.stop(); s2.stop() }()
		c, err := channel.New(channel.Config{
			Name: "r1", Authority: controltest.Authority().Public(), Group: controltest.Group, DeadAfter: 250 * time.Millisecond,
			Transport: lan.Join(netip.AddrFrom4([4]byte{10, 0, 0, 7})), Random: controltest.Random(1), Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		c.SetKeys([]keyfile.Group{controltest.GroupKey(1)})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		listener := &node{Channel: c}
		time.Sleep(2 * time.Second)
		if a, b := listener.health("s1"), listener.health("s2"); a != control.Available || b != control.Available {
			t.Errorf("heard: s1 %v, s2 %v", a, b)
		}
		s1.SetStatus(control.Status{Why: "no answer"})
		s2.stop()
		time.Sleep(300 * time.Millisecond)
		if a, b := listener.health("s1"), listener.health("s2"); a != control.Unwell || b != control.Silent {
			t.Errorf("s1 says that it is unwell, s2 is gone: %v, %v", a, b)
		}
		if n := len(s1.Members()); n != 1 {
			t.Errorf("%d others are heard of, want s2 alone", n)
		}
		if err := errors.Join(c.Send(control.KindDone, nil), c.Pause(time.Second)); !errors.Is(err, channel.ErrListens) || c.Counters().Sent != 0 {
			t.Errorf("said: %v, %d frames", err, c.Counters().Sent)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
