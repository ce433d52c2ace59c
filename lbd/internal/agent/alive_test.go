package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/joiner"
	"github.com/manycast/manycast/lbd/internal/store"
)

// hangingJoiner takes what is set when it is let to.
type hangingJoiner struct {
	brokenJoiner
	free chan struct{}
}

func (h hangingJoiner) Set(context.Context, []joiner.Membership) error {
	<-h.free
	return nil
}

// mute is a channel on which nobody else is.
type mute struct{ control.Channel }

func (mute) Silence() time.Duration                   { return 250 * time.Millisecond }
func (mute) Listen(func(control.Event)) (stop func()) { return func() {} }
func (mute) SetStatus(control.Status)                 {}

// TestAliveWhileTheLoopTurns: an agent whose loop hangs is not alive, however idle it is alive else; also before it has begun.
func TestAliveWhileTheLoopTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		buckets, j := store.NewMemories(), hangingJoiner{brokenJoiner{make(chan error)}, make(chan struct{}, 1)}
		j.free <- struct{}{}
		services := make(chan []service.Service, 2)
		services <- []service.Service{web}
		l := NewLoop(Config{
			Name: "s1", Serve: []string{"web", "dns"}, StateDir: t.TempDir(), Services: services, Channel: mute{}, Keep: true,
			Plane: dataplane.NewFakeAgent(), Joiner: j, Buckets: &buckets, Announcer: announce.NewFake(),
			Health: func(ctx context.Context, _ func(bool, error)) { <-ctx.Done() },
			Pause:  func(time.Duration) error { return nil },
			Log:    slog.New(slog.DiscardHandler),
		})
		if !l.Alive() {
			t.Error("not alive before it begins")
		}
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		for range 50 {
			time.Sleep(100 * time.Millisecond)
			if !l.Alive() {
				t.Fatal("not alive while it turns")
			}
		}
		other := web
		other.Name, other.VIP, other.Group = "dns", netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("239.80.80.53")
		services <- []service.Service{web, other}
		time.Sleep(240 * time.Millisecond)
		if !l.Alive() {
			t.Error("not alive before dead_after is over")
		}
		time.Sleep(60 * time.Millisecond)
		if l.Alive() {
			t.Error("alive while its loop hangs")
		}
		j.free <- struct{}{}
		synctest.Wait()
		if !l.Alive() {
			t.Error("not alive when it turns again")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
