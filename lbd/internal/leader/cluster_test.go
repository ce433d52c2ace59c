package leader_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/service"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"

	"github.com/manycast/manycast/lbd/internal/agent"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/joiner"
	"github.com/manycast/manycast/lbd/internal/leader"
	"github.com/manycast/manycast/lbd/internal/store"
)

// cluster is directors and agents on a bus in memory, on the fake clock of testing/synctest.
type cluster struct {
	t       *testing.T
	buckets store.Buckets
	channel *announce.Fake
	agents  map[string]*server
	hasKey  func() bool   // nil: always
	late    time.Duration // keys and the first probe of agents take that long
	older   bool          // agents know no fixed portions
	stall   time.Duration // directors are not run for so long after an announcement
	log     *slog.Logger
}

// server is an agent with what it drives.
type server struct {
	plane  *dataplane.FakeAgent
	joiner *fakeJoiner
	conns  *connections
	state  string
	health func(healthy bool, why error)
	stop   func()
}

type fakeJoiner struct {
	mu   sync.Mutex
	want []joiner.Membership
}

func (f *fakeJoiner) Set(_ context.Context, want []joiner.Membership) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.want = want
	return nil
}

func (f *fakeJoiner) Run(ctx context.Context) error { <-ctx.Done(); return nil }

func (f *fakeJoiner) current() []joiner.Membership {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.want
}

// connections are the users connected to a server.
type connections struct {
	mu    sync.Mutex
	users map[netip.Addr]bool
}

func (c *connections) close(_ context.Context, _ netip.Addr, _ []dataplane.Port, lost func(netip.AddrPort) bool, _ dataplane.Ending) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for user := range c.users {
		if lost(netip.AddrPortFrom(user, 4711)) {
			delete(c.users, user)
			n++
		}
	}
	return n, nil
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{
		t: t, buckets: store.NewMemories(), channel: announce.NewFake(), agents: map[string]*server{},
		log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
	c.apply("policy: equal")
	return c
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s %s", time.Now().Format("05.000"), b)
	return len(b), nil
}

var _ io.Writer = testWriter{}

// apply writes the service "web" with more settings.
func (c *cluster) apply(settings string) {
	services, err := service.Parse([]byte("name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [tcp/80]\n" + settings))
	if err != nil {
		c.t.Fatal(err)
	}
	put(c.t, c.buckets.Services, "web", service.ToProto(services[0]))
}

func put(t *testing.T, b store.Bucket, key string, m proto.Message) {
	t.Helper()
	data, err := proto.Marshal(m)
	if err == nil {
		_, err = b.Put(t.Context(), key, data)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// director starts a director; stop ends it like kill -9 when the lease is left, see the Leases bucket.
func (c *cluster) director(name string) (stop func()) {
	ctx, cancel := context.WithCancel(c.t.Context())
	dir := c.t.TempDir()
	l, err := leader.NewLoop(leader.Config{
		Name: name, StateDir: dir, Buckets: c.buckets, Announcer: stalling{c.channel, c.stall},
		Services: store.WatchServices(ctx, c.buckets.Services, dir+"/services.yaml", c.log), Log: c.log.With("director", name),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return c.run(ctx, cancel, l.Run)
}

func (c *cluster) run(ctx context.Context, cancel func(), run func(context.Context) error) (stop func()) {
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			c.t.Error(err)
		}
	})
}

// server starts an agent; state is its directory of an earlier run or empty.
func (c *cluster) server(name string, weight int, keep bool) *server {
	s := c.agents[name]
	if s == nil {
		s = &server{conns: &connections{users: map[netip.Addr]bool{}}, state: c.t.TempDir()}
		c.agents[name] = s
	}
	s.plane, s.joiner = dataplane.NewFakeAgent(), &fakeJoiner{}
	ctx, cancel := context.WithCancel(c.t.Context())
	log := c.log.With("agent", name)
	late, keysRead, started := c.late, make(chan struct{}), time.Now()
	time.AfterFunc(late, func() { close(keysRead) })
	buckets, announcer := c.buckets, announce.Announcer(c.channel)
	if c.older {
		buckets.Allocations, announcer = older{buckets.Allocations}, deafTo{announcer}
	}
	l := agent.NewLoop(agent.Config{
		Name: name, Address: netip.MustParseAddr("10.0.0.1"), Weight: weight, Serve: []string{"web"}, StateDir: s.state,
		HasKey: func(netip.Addr) bool { return time.Since(started) >= late && (c.hasKey == nil || c.hasKey()) }, KeysRead: keysRead,
		Settle: 100 * time.Millisecond, Keep: keep, Plane: s.plane, Joiner: s.joiner, Close: s.conns.close,
		Health: func(ctx context.Context, report func(bool, error)) {
			time.Sleep(late)
			report(true, nil)
			s.health = report
			<-ctx.Done()
		},
		Services: store.WatchServices(ctx, c.buckets.Services, s.state+"/services.yaml", log),
		Buckets:  &buckets, Announcer: announcer, Log: log,
	})
	s.stop = c.run(ctx, cancel, l.Run)
	return s
}

// servers starts s1, s2 and so on.
func (c *cluster) servers(weights ...int) {
	for i, w := range weights {
		c.server(fmt.Sprintf("s%d", i+1), w, true)
	}
}

func (c *cluster) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// connect connects every user to the server that accepts it.
func (c *cluster) connect() {
	for i := range 256 {
		user := userOf(i)
		if s := c.agents[c.owner(user)]; s != nil {
			s.conns.users[user] = true
		}
	}
}

func userOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}) }

func (c *cluster) owner(user netip.Addr) string {
	for name, s := range c.agents {
		if current := s.plane.Current(); len(current) == 1 && current[0].Accept.Contains(user) {
			return name
		}
	}
	return ""
}

// shares checks that each user has exactly one of these servers, and joins and data plane agree; it returns the shares.
func (c *cluster) shares(among ...string) map[string]int {
	c.t.Helper()
	shares := map[string]int{}
	for i := range 256 {
		var owners []string
		for _, name := range among {
			s := c.agents[name]
			accepts := false
			for _, a := range s.plane.Current() {
				accepts = accepts || a.Accept.Contains(userOf(i))
			}
			joins := false
			for _, m := range s.joiner.current() {
				joins = joins || m.Owner.Contains(userOf(i))
			}
			if accepts != joins {
				c.t.Errorf("user %d: %s accepts %v, joins %v", i, name, accepts, joins)
			}
			if accepts {
				owners = append(owners, name)
			}
		}
		if len(owners) != 1 {
			c.t.Fatalf("user %d is served by %v", i, owners)
		}
		shares[owners[0]]++
	}
	return shares
}

// moves are the moves of "web", oldest first; each moved what it had to, and all agents finished it.
func (c *cluster) moves() []*allocv1.Move {
	c.t.Helper()
	moves := c.history()
	for _, m := range moves {
		if m.FractionMoved != m.FractionNeeded || len(m.Missing) > 0 {
			c.t.Errorf("move %v", m)
		}
	}
	return moves
}

func (c *cluster) history() []*allocv1.Move {
	c.t.Helper()
	e, err := c.buckets.Moves.Get(c.t.Context(), "web")
	if err != nil {
		return nil
	}
	var p allocv1.Moves
	if err := proto.Unmarshal(e.Value, &p); err != nil {
		c.t.Fatal(err)
	}
	return p.Moves
}

func (c *cluster) wantMoves(reasons ...string) []*allocv1.Move {
	c.t.Helper()
	moves := c.moves()
	var got []string
	for _, m := range moves {
		got = append(got, m.Reason)
	}
	if !slices.Equal(got, reasons) {
		c.t.Fatalf("moves %q, want %q", got, reasons)
	}
	return moves
}

// end stops all that runs.
func (c *cluster) end(stops ...func()) {
	for _, s := range c.agents {
		s.stop()
	}
	for _, stop := range stops {
		stop()
	}
	synctest.Wait()
}
