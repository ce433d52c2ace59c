package leader_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/service"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"

	"github.com/manycast/manycast/lbd/internal/agent"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/leader"
	"github.com/manycast/manycast/lbd/internal/store"
)

// TestOverTheBus runs a director and two agents over the embedded bus, each with its own role's rights.
func TestOverTheBus(t *testing.T) {
	r := newRig(t)
	admin := store.OnBus(r.connect("admin"))
	services, err := service.Parse([]byte("name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [tcp/80]\npolicy: weighted\n"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, admin.Services, "web", service.ToProto(services[0]))

	r.director("d1")
	s1, s2 := r.agent("s1", 1, healthy).plane, r.agent("s2", 3, healthy).plane
	r.wait("first allocation", func() bool { return accepted(s1) == 64 && accepted(s2) == 192 })

	put(t, admin.Operator, "web.s2", &allocv1.Operator{Drained: true})
	r.wait("drain of s2", func() bool { return accepted(s1) == 256 && accepted(s2) == 0 })

	r.wait("both moves in the history", func() bool {
		e, err := admin.Moves.Get(t.Context(), "web")
		var moves allocv1.Moves
		if err != nil || proto.Unmarshal(e.Value, &moves) != nil || len(moves.Moves) != 2 {
			return false
		}
		m := moves.Moves[1]
		return m.Reason == "s2 is drained" && m.FractionMoved == 0.75 && m.FractionNeeded == 0.75 && m.Epoch.Number == 2
	})

	// The bus restarts: what is executed stays, then everything goes on by itself.
	r.stopBus()
	if accepted(s1) != 256 {
		t.Errorf("s1 accepts %d of 256 without the bus", accepted(s1))
	}
	r.startBus()
	r.wait("the bus to be back", func() bool {
		data, err := proto.Marshal(&allocv1.Operator{})
		if err == nil {
			_, err = admin.Operator.Put(t.Context(), "web.s2", data)
		}
		return err == nil
	})
	r.wait("s2 to be back in the pool", func() bool { return accepted(s1) == 64 && accepted(s2) == 192 })
}

type rig struct {
	t       *testing.T
	listen  string
	data    string
	log     *slog.Logger
	stopBus func()
}

func newRig(t *testing.T) *rig {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	r := &rig{t: t, listen: l.Addr().String(), data: t.TempDir(), log: slog.New(slog.DiscardHandler)}
	r.startBus()
	return r
}

func (r *rig) startBus() {
	srv := bus.NewServer(bus.ServerConfig{Listen: r.listen, DataDir: r.data, Log: r.log})
	r.stopBus = r.start(srv.Run)
	select {
	case <-srv.Ready():
	case <-time.After(20 * time.Second):
		r.t.Fatal("bus not ready")
	}
}

// start runs a task until stop or the end of the test; tasks end in the opposite order.
func (r *rig) start(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}

func (r *rig) connect(role string) *bus.Conn {
	c, err := bus.Connect(bus.Config{URLs: []string{"nats://" + r.listen}, Credentials: bus.CredentialsPath(r.data, role), Name: role, Log: r.log})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	if err := c.WaitConnected(ctx); err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) director(name string) {
	conn := r.connect("director")
	buckets := store.OnBus(conn)
	l, err := leader.NewLoop(leader.Config{
		Name: name, StateDir: r.t.TempDir(), Buckets: buckets, Announcer: announce.NewBus(conn, r.log),
		Services: store.WatchServices(r.t.Context(), buckets.Services, "", r.log), Log: r.log,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.start(l.Run)
}

// healthy is an agent.Health.
func healthy(_ context.Context, report func(bool, error)) { report(true, nil) }

// served is what an agent drives.
type served struct {
	plane  *dataplane.FakeAgent
	joiner *fakeJoiner
}

// joined counts the slots whose users the agent joins for.
func (s served) joined() int {
	n := 0
	for _, m := range s.joiner.current() {
		for i := range 256 {
			if m.Owner.Contains(userOf(i)) {
				n++
			}
		}
	}
	return n
}

func (r *rig) agent(name string, weight int, h agent.Health) served {
	conn := r.connect("agent")
	buckets := store.OnBus(conn)
	s := served{dataplane.NewFakeAgent(), &fakeJoiner{}}
	l := agent.NewLoop(agent.Config{
		Name: name, Address: netip.MustParseAddr("10.0.0.1"), Weight: weight, Serve: []string{"web"}, StateDir: r.t.TempDir(),
		Settle: 10 * time.Millisecond, Keep: true, Plane: s.plane, Joiner: s.joiner, Close: (&connections{}).close,
		Health:   h,
		Services: store.WatchServices(r.t.Context(), buckets.Services, "", r.log),
		Buckets:  &buckets, Announcer: announce.NewBus(conn, r.log), Log: r.log,
	})
	r.start(l.Run)
	return s
}

// wait polls until ok or 15 s have passed.
func (r *rig) wait(what string, ok func() bool) {
	r.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(15 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// accepted counts the slots whose users a plane accepts.
func accepted(plane *dataplane.FakeAgent) int {
	n := 0
	for _, s := range plane.Current() {
		for i := range 256 {
			if s.Accept.Contains(userOf(i)) {
				n++
			}
		}
	}
	return n
}
