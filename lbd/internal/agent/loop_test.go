package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/joiner"
	"github.com/manycast/manycast/lbd/internal/store"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// brokenJoiner ends when its link does, or the agent.
type brokenJoiner struct{ failed chan error }

func (b brokenJoiner) Set(context.Context, []joiner.Membership) error { return nil }
func (b brokenJoiner) Run(ctx context.Context) error {
	select {
	case err := <-b.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

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

// TestNameOfAnotherServer: an agent does not start beside one at another address that has its name and lives; what a dead one
// left, or an earlier run here, is no hindrance.
func TestNameOfAnotherServer(t *testing.T) {
	for name, test := range map[string]struct {
		address string
		alive   bool
		starts  bool
	}{
		"alive":          {"10.3.2.99", true, false},
		"dead":           {"10.3.2.99", false, true},
		"an earlier run": {"10.3.2.20", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				buckets, plane := store.NewMemories(), dataplane.NewFakeAgent()
				other := newRegistrar(buckets.Servers, &allocv1.Registration{Name: "s1", Address: test.address, BootId: 1},
					func(service.Service) bool { return true }, slog.New(slog.DiscardHandler))
				other.setServices([]service.Service{web})
				other.setHealthy(true)
				others, kill := context.WithCancel(ctx)
				go other.run(others, func(context.Context) bool { return true })
				time.Sleep(time.Second + renewEvery/2) // between two renewals
				if !test.alive {
					kill()
					synctest.Wait()
				}
				services := make(chan []service.Service, 1)
				services <- []service.Service{web}
				l := NewLoop(Config{
					Name: "s1", Address: netip.MustParseAddr("10.3.2.20"), Serve: []string{"web"}, StateDir: t.TempDir(), Services: services,
					Plane: plane, Joiner: brokenJoiner{make(chan error)}, Buckets: &buckets, Announcer: announce.NewFake(),
					Health: func(ctx context.Context, report func(bool, error)) { report(true, nil); <-ctx.Done() },
					Log:    slog.New(slog.DiscardHandler),
				})
				ended := make(chan error, 1)
				go func() { ended <- l.serve(ctx, nil) }()
				time.Sleep(5 * time.Second)
				synctest.Wait()
				select {
				case err := <-ended:
					if test.starts || err == nil || !strings.Contains(err.Error(), test.address) {
						t.Errorf("ended with %v", err)
					}
				default:
					if !test.starts {
						t.Error("started")
					}
				}
				if isSet := len(plane.Sets()) > 0; isSet != test.starts {
					t.Errorf("data plane set: %t", isSet)
				}
				kill()
				cancel()
				time.Sleep(3 * time.Second) // whoever owns users waits for others to take them
			})
		})
	}
}

// closingPlane is one that says when it is closed.
type closingPlane struct {
	*dataplane.FakeAgent
	at chan time.Time
}

func (c closingPlane) Close(keep bool) error {
	c.at <- time.Now()
	return c.FakeAgent.Close(keep)
}

// TestLoopStaysWhileUsersFollow: at a clean stop the data plane is there until users of connections that have left have followed them, and not for
// ever; one that is kept has not to wait.
func TestLoopStaysWhileUsersFollow(t *testing.T) {
	for name, test := range map[string]struct {
		leaves, want time.Duration
		keep         bool
	}{
		"nobody":            {0, 0, false},
		"some":              {2 * time.Second, 2 * time.Second, false},
		"who never follows": {time.Hour, lingerMost, false},
		"kept":              {time.Hour, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				services := make(chan []service.Service, 1)
				services <- nil
				plane := closingPlane{dataplane.NewFakeAgent(), make(chan time.Time, 1)}
				until := time.Now().Add(time.Minute).Add(test.leaves)
				l := NewLoop(Config{
					Name: "s1", StateDir: t.TempDir(), Services: services, Keep: test.keep, Plane: plane, Joiner: brokenJoiner{make(chan error)},
					Leaves: func() bool { return time.Now().Before(until) },
					Health: func(ctx context.Context, report func(bool, error)) { report(true, nil); <-ctx.Done() },
					Log:    slog.New(slog.DiscardHandler),
				})
				ended := make(chan error, 1)
				go func() { ended <- l.Run(ctx) }()
				time.Sleep(time.Minute)
				stopped := time.Now()
				stop()
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
				if stayed := (<-plane.at).Sub(stopped); stayed < test.want || stayed > test.want+lingerLook {
					t.Errorf("the plane stayed for %v, want %v", stayed, test.want)
				}
			})
		})
	}
}
