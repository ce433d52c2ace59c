package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/store"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// TestLoadsAreTold: what is measured goes into reports and registrations, and costs the bus nothing: registrations are renewed as often as
// before. Who measures knows the service and the servers that have a part in it.
func TestLoadsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		hub := control.NewHub(50*time.Millisecond, 250*time.Millisecond)
		self := hub.Join(control.Member{Name: "s1", Role: control.Server, Address: netip.MustParseAddr("10.9.0.1")}, nil)
		far := hub.Join(control.Member{Name: "s2", Role: control.Server}, nil)
		heard := make(chan control.Event, 1000)
		defer far.Listen(func(e control.Event) { heard <- e })()
		buckets, serving := store.NewMemories(), func() []Serving { return nil }
		l := NewLoop(Config{
			Name: "s1", Address: netip.MustParseAddr("10.9.0.1"), Serve: []string{"web"}, StateDir: t.TempDir(), Services: store.Static([]service.Service{web}),
			Plane: dataplane.NewFakeAgent(), Joiner: brokenJoiner{make(chan error)}, Buckets: &buckets, Announcer: announce.NewFake(),
			Channel: self, Close: func(context.Context, netip.Addr, []dataplane.Port, func(netip.AddrPort) bool, dataplane.Ending) (int, error) {
				return 0, nil
			},
			Health: func(ctx context.Context, report func(bool, error)) { report(true, nil); <-ctx.Done() },
			Measure: func(ctx context.Context, s func() []Serving, report func(map[string]alloc.Load)) {
				serving = s
				<-time.After(5 * time.Second)
				report(map[string]alloc.Load{"web": {Connections: 7, CPU: 0.5}, "dns": {Connections: 1}})
				<-ctx.Done()
			},
			Log: slog.New(slog.DiscardHandler),
		})
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		registered := func() (*allocv1.Registration, uint64) {
			e, err := buckets.Servers.Get(ctx, "web.s1")
			var p allocv1.Registration
			if err != nil || proto.Unmarshal(e.Value, &p) != nil {
				t.Fatalf("registration: %v", err)
			}
			return &p, e.Revision
		}
		data, err := store.EncodeState("web", store.State{Committed: allocation(1, s1, s2)})
		if err == nil {
			_, err = buckets.Allocations.Put(ctx, "web", data)
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(4250 * time.Millisecond)
		p, before := registered()
		if p.GetLoad() != nil {
			t.Errorf("registered with a load that nobody knows: %v", p.GetLoad())
		}
		time.Sleep(4 * time.Second)
		p, after := registered()
		if p.GetLoad().GetConnections() != 7 || p.GetLoad().GetCpu() != 0.5 {
			t.Errorf("registered with %v", p.GetLoad())
		}
		if after-before != 8 {
			t.Errorf("%d writes in 4 s, want 8", after-before)
		}
		got := serving()
		if len(got) != 1 || got[0].Name != "web" || !slices.Equal(got[0].Servers, []string{"s1", "s2"}) {
			t.Errorf("serving %+v", got)
		}
		var reported alloc.Load
		for len(heard) > 0 {
			if c, ok := (<-heard).(control.Changed); ok && c.Member.Name == "s1" {
				reported = c.Member.Loads["web"]
			}
		}
		if reported.Connections != 7 {
			t.Errorf("reported %+v", reported)
		}
		cancel()
		time.Sleep(3 * time.Second)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		self.Leave()
		far.Leave()
	})
}
