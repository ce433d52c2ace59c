package stray

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

// server is one with everything around it but a kernel.
type server struct {
	*Loop
	plane  *dataplane.FakeAgent
	member *control.HubMember
	stop   func()
}

func startServer(t *testing.T, hub *control.Hub, i, n int) *server {
	s := &server{plane: dataplane.NewFakeAgent()}
	s.member = hub.Join(control.Member{Name: nameOf(i), Role: control.Server, Address: addressOf(i)}, nil)
	s.member.SetStatus(control.Status{OK: true})
	s.Loop = New(Config{Name: nameOf(i), Channel: s.member, Plane: s.plane, Log: slog.New(slog.DiscardHandler)})
	s.Set(views(n))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		s.member.Leave()
	}
	return s
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestServersFindAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := control.NewHub(50*time.Millisecond, 250*time.Millisecond)
		s1, s2, s3 := startServer(t, hub, 0, 3), startServer(t, hub, 1, 3), startServer(t, hub, 2, 3)
		defer s1.stop()
		defer s3.stop()
		pass(200 * time.Millisecond)
		s2.plane.SetKnown(flowOf(1), true)
		s3.plane.SetKnown(flowOf(2), true)
		lost := 0
		hub.Lose(func(_, _ string, kind control.Kind) bool { // the first words both ways
			lost++
			return lost <= 2 || kind == control.KindHolder && lost <= 5
		})
		s1.plane.Stray(strayOf(1))
		pass(150 * time.Millisecond)
		hub.Lose(nil)
		s1.plane.Stray(strayOf(2))
		s1.plane.Stray(strayOf(3))
		pass(300 * time.Millisecond)
		for i, want := range map[int]dataplane.Gate{1: {Lead: addressOf(1)}, 2: {Lead: addressOf(2)}, 3: {}} {
			if got := s1.plane.Gate(flowOf(i)); got != want {
				t.Errorf("flow %d: %+v, want %+v", i, got, want)
			}
		}
		if s3, s1 := len(s3.plane.Injected()), len(s1.plane.Injected()); s3 != 1 || s1 != 1 {
			t.Errorf("%d packets went up where their connection is, %d where it is nobody's", s3, s1)
		}

		s3.plane.SetKnown(flowOf(2), false)
		pass(1200 * time.Millisecond)
		if got := s1.plane.Gate(flowOf(2)); got.Lead.IsValid() {
			t.Errorf("the entry outlives its connection: %+v", got)
		}
		s2.stop()
		pass(500 * time.Millisecond)
		if c := s1.Counters(); s1.plane.Gates() != 0 || c.Led != 0 || c.Found != 2 || c.GivenUp != 1 || c.Failed != 0 || c.Malformed != 0 {
			t.Errorf("%d entries, %+v", s1.plane.Gates(), c)
		}
	})
}

// TestHostileWordsAreCounted: what is no word, and a server that answers for everything it hears of.
func TestHostileWordsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := control.NewHub(50*time.Millisecond, 250*time.Millisecond)
		s1 := startServer(t, hub, 0, 2)
		defer s1.stop()
		evil := hub.Join(control.Member{Name: "evil", Role: control.Server, Address: addressOf(9)}, nil)
		defer evil.Leave()
		evil.SetStatus(control.Status{OK: true})
		pass(200 * time.Millisecond)
		s1.plane.SetKnown(flowOf(2), true)
		for _, kind := range []control.Kind{control.KindStray, control.KindHolder} {
			if err := evil.Send(kind, []byte{0xff, 1, 2}); err != nil {
				t.Fatal(err)
			}
		}
		body, err := EncodeAsks([]Ask{ask(1, 2)})
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			_ = evil.Send(control.KindStray, body) // the hub sends
		}
		s1.plane.Stray(strayOf(1))
		pass(time.Millisecond)
		if body, err = EncodeHoldings([]Holding{holds(1)}); err != nil {
			t.Fatal(err)
		}
		_ = evil.Send(control.KindHolder, body) // the hub sends
		pass(100 * time.Millisecond)
		c := s1.Counters()
		if s1.plane.Gates() != 0 || len(s1.plane.Injected()) != 0 || c.Malformed != 2 || c.Foreign != 1 || c.Holder.Foreign != 10 {
			t.Errorf("%d entries, %d packets, %+v", s1.plane.Gates(), len(s1.plane.Injected()), c)
		}
	})
}
