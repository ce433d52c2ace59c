package director

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/outage"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/store"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

const silence = 250 * time.Millisecond

func allocated() alloc.Allocation {
	return alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: 1}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 1}, Servers: []string{"s1", "s2"},
		Owner: []uint16{0, 1}, Standby: []uint16{1, 0},
	}
}

// TestUsersAreRefusedWhenAllServersAreDead, by what the channel and the bus say, or the bus said to an earlier run.
func TestUsersAreRefusedWhenAllServersAreDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := control.NewHub(50*time.Millisecond, silence)
		join := func(name string, role control.Role) *control.HubMember {
			m := h.Join(control.Member{Name: name, Role: role, Address: netip.MustParseAddr("10.0.0.1")}, nil)
			m.SetStatus(control.Status{OK: true})
			return m
		}
		d1, r1 := join("d1", control.Director), join("r1", control.Router)
		s1, s2 := join("s1", control.Server), join("s2", control.Server)
		all, err := service.Parse([]byte(web))
		if err != nil {
			t.Fatal(err)
		}
		bucket, dir := store.NewMemory(0), t.TempDir()
		plane, stop := startDirector(t, all, d1, bucket, dir)
		state, err := proto.Marshal(&allocv1.State{Committed: alloc.ToProto("web", allocated())})
		if err == nil {
			_, err = bucket.Put(t.Context(), "web", state)
		}
		if err != nil {
			t.Fatal(err)
		}
		want := func(what string, after time.Duration, refused bool) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := plane.Current(); len(got) != 1 || got[0].Refuse != refused {
				t.Errorf("%s: set %+v, want refused %t", what, got, refused)
			}
		}
		want("all are there", 10*time.Second, false)
		s1.Leave()
		want("one is dead", 10*time.Second, false)
		s2.SetStatus(control.Status{Why: "the application does not answer"})
		want("the other's application, too", 50*time.Millisecond, false)
		want("a silence later", silence, true)
		s2.SetStatus(control.Status{OK: true})
		want("one is back", 10*time.Millisecond, false)
		s2.Leave()
		want("both are dead", 2*silence+50*time.Millisecond, true)
		stop()

		bucket.SetAway(true)
		plane, stop = startDirector(t, all, d1, bucket, dir)
		want("restarted without a bus", time.Second, false)
		want("and has listened", outage.ListenFor, true)
		stop()
		r1.Leave()
		d1.Leave()
	})
}

func startDirector(t *testing.T, all []service.Service, c control.Channel, bucket store.Bucket, dir string) (*dataplane.FakeDirector, func()) {
	plane := dataplane.NewFakeDirector()
	l := New(Config{
		Services: store.Static(all), Plane: plane, Keep: true, Log: slog.New(slog.DiscardHandler), Channel: c, Allocations: bucket, StateDir: dir,
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	return plane, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
