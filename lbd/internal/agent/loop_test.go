package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/joiner"
	"github.com/manycast/manycast/lbd/internal/store"
)

// brokenJoiner ends when its link does.
type brokenJoiner struct{ failed chan error }

func (b brokenJoiner) Set(context.Context, []joiner.Membership) error { return nil }
func (b brokenJoiner) Run(context.Context) error                      { return <-b.failed }

// TestLoopEndsWithItsJoiner: an agent whose link is gone ends and takes its registration back, so that others take over.
func TestLoopEndsWithItsJoiner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		all, err := service.Parse([]byte("name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [tcp/80]\npolicy: equal"))
		if err != nil {
			t.Fatal(err)
		}
		services := make(chan []service.Service, 1)
		services <- all
		buckets, link := store.NewMemories(), brokenJoiner{make(chan error)}
		plane := dataplane.NewFakeAgent()
		l := NewLoop(Config{
			Name: "s1", Serve: []string{"web"}, StateDir: t.TempDir(), Services: services,
			Plane: plane, Joiner: link, Buckets: &buckets, Announcer: announce.NewFake(),
			Health: func(ctx context.Context, report func(bool, error)) { report(true, nil); <-ctx.Done() },
			Log:    slog.New(slog.DiscardHandler),
		})
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		time.Sleep(3 * time.Second) // the bubble's clock
		synctest.Wait()
		if _, err := buckets.Servers.Get(ctx, "web.s1"); err != nil {
			t.Fatalf("the server is not registered: %v", err)
		}
		if renewals := plane.Renewals(); renewals < 4 {
			t.Errorf("the plane heard %d times that the agent is alive", renewals)
		}
		link.failed <- joiner.ErrLinkGone
		synctest.Wait()
		select {
		case err := <-ended:
			if !errors.Is(err, joiner.ErrLinkGone) {
				t.Errorf("ended with %v", err)
			}
		default:
			t.Error("goes on without its joiner")
		}
		if _, err := buckets.Servers.Get(ctx, "web.s1"); err == nil {
			t.Error("the server is registered still")
		}
	})
}
