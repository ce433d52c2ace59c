package leader_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"

	"github.com/manycast/manycast/lbd/internal/agent"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/leader"
	"github.com/manycast/manycast/lbd/internal/store"
)

// network is servers on two links, a router and directors that hear each other on a control channel, each with its own way to the
// bus, on the fake clock of testing/synctest.
type network struct {
	t       *testing.T
	hub     medium
	buckets store.Buckets
	servers map[string]*netServer
	router  *netRouter
	log     *slog.Logger
	stops   []func()
	terms   map[string]uint64 // highest of each server

	watched map[int]*watch // by user
	twice   time.Duration  // the longest that a user was served by two
	nobody  time.Duration  // or by nobody
}

// watch is since when a user has been served by two, or by nobody.
type watch struct{ twice, nobody time.Time }

const (
	netHeartbeat = 50 * time.Millisecond
	netSilence   = 250 * time.Millisecond
	netSettle    = 100 * time.Millisecond
	sampleEvery  = 5 * time.Millisecond
	netUsers     = 16
)

var (
	netGroup = netip.MustParseAddr("239.80.80.80")
	allNames = []string{"d1", "d2", "r1", "s1", "s2", "s3", "s4"}
)

// netServer is an agent with what it drives.
type netServer struct {
	link   string
	member memberOf
	bus    store.Buckets
	plane  *dataplane.FakeAgent
	joiner *fakeJoiner
	state  string
	down   bool // its link is
	leaves bool // at a stop, for good
	health func(healthy bool, why error)
	stop   func()
}

// netRouter hears who is silent, and forwards by joins.
type netRouter struct {
	member memberOf
	mu     sync.Mutex
	health map[string]control.Health
}

func newNetwork(t *testing.T, m medium, settings string) *network {
	n := &network{
		t: t, hub: m, buckets: store.NewMemories(), servers: map[string]*netServer{},
		log: testLog(t), terms: map[string]uint64{}, watched: map[int]*watch{},
	}
	n.apply(settings)
	n.router = &netRouter{health: map[string]control.Health{}, member: n.hub.join(control.Member{Name: "r1", Role: control.Router}, nil)}
	n.router.member.SetStatus(control.Status{OK: true})
	n.router.member.Listen(func(e control.Event) {
		if c, ok := e.(control.Changed); ok {
			n.router.mu.Lock()
			defer n.router.mu.Unlock()
			n.router.health[c.Member.Name] = c.Member.Health
		}
	})
	n.stops = append(n.stops, n.router.member.Leave)
	return n
}

// apply writes the service "web" with more settings.
func (n *network) apply(settings string) {
	n.t.Helper()
	services, err := service.Parse([]byte("name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [tcp/80]\nslots: suffix/4\n" + settings))
	if err != nil {
		n.t.Fatal(err)
	}
	put(n.t, n.buckets.Services, "web", service.ToProto(services[0]))
}

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(testWriter{t}, nil)) }

// client is another client's way to the bus.
func (n *network) client() store.Buckets {
	of := func(b store.Bucket) store.Bucket { return b.(*store.Memory).Client() }
	b := n.buckets
	return store.Buckets{
		Services: of(b.Services), Servers: of(b.Servers), Operator: of(b.Operator), Allocations: of(b.Allocations),
		Leases: of(b.Leases), Moves: of(b.Moves), Keys: of(b.Keys),
	}
}

func away(b store.Buckets, isAway bool) {
	for _, bucket := range []store.Bucket{b.Services, b.Servers, b.Operator, b.Allocations, b.Leases, b.Moves, b.Keys} {
		bucket.(*store.Memory).SetAway(isAway)
	}
}

// director starts one that may lead, and returns its way to the bus.
func (n *network) director(name string) store.Buckets {
	member := n.hub.join(control.Member{Name: name, Role: control.Director, Leader: true}, nil)
	member.SetStatus(control.Status{OK: true})
	b, dir, log := n.client(), n.t.TempDir(), n.log.With("director", name)
	ctx, cancel := context.WithCancel(n.t.Context())
	l, err := leader.NewLoop(leader.Config{
		Name: name, StateDir: dir, Buckets: b, Announcer: announce.NewControl(member, log), Channel: member,
		Services: store.WatchServices(ctx, b.Services, "", log), Log: log,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	stop := n.run(ctx, cancel, l.Run)
	n.stops = append(n.stops, func() { stop(); member.Leave() })
	return b
}

func (n *network) run(ctx context.Context, cancel func(), run func(context.Context) error) (stop func()) {
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			n.t.Error(err)
		}
	})
}

// server starts an agent, s1 and s2 on one link, s3 and s4 on another; with lead it may lead, too. After a stop it is the next one of
// its name.
func (n *network) server(name string, lead bool) *netServer {
	number := int(name[1] - '0')
	prefix := netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", (number+1)/2))
	s := n.servers[name]
	if s == nil {
		s = &netServer{link: prefix.String(), bus: n.client(), plane: dataplane.NewMortalAgent(netSilence - netHeartbeat), state: n.t.TempDir()}
		n.servers[name] = s
	} else {
		s.plane.Restart()
	}
	s.joiner, s.down = &fakeJoiner{}, false
	a := prefix.Addr().As4()
	a[3] = byte(number)
	address := netip.AddrFrom4(a)
	var loop *agent.Loop
	s.member = n.hub.join(control.Member{Name: name, Role: control.Server, Leader: lead, Address: address}, func() { loop.Beat() })
	ctx, cancel := context.WithCancel(n.t.Context())
	log := n.log.With("agent", name)
	announcer := announce.NewControl(s.member, log)
	loop = agent.NewLoop(agent.Config{
		Name: name, Address: address, Link: prefix, Weight: 1, Serve: []string{"web"}, StateDir: s.state, Settle: netSettle,
		Keep: !s.leaves, Channel: s.member, Pause: s.member.Pause, Plane: s.plane, Joiner: s.joiner,
		Close: (&connections{users: map[netip.Addr]bool{}}).close,
		Health: func(ctx context.Context, report func(bool, error)) {
			s.health = report
			report(true, nil)
			<-ctx.Done()
		},
		Services: store.WatchServices(ctx, s.bus.Services, s.state+"/services.yaml", log), Buckets: &s.bus, Announcer: announcer, Log: log,
	})
	stopLeader := func() {}
	if lead {
		l, err := leader.NewLoop(leader.Config{
			Name: name, StateDir: n.t.TempDir(), Buckets: s.bus, Announcer: announcer, Channel: s.member, Server: name,
			Services: store.WatchServices(ctx, s.bus.Services, "", log), Log: log,
		})
		if err != nil {
			n.t.Fatal(err)
		}
		stopLeader = n.run(ctx, cancel, l.Run)
	}
	stopAgent := n.run(ctx, cancel, loop.Run)
	s.stop = sync.OnceFunc(func() {
		stopAgent()
		stopLeader()
		if s.leaves {
			time.Sleep(netHeartbeat) // a daemon's channel ends after the last word
		}
		s.member.Leave()
	})
	return s
}

// kill ends a server as a power loss does: nothing leaves it any more, and nobody is told.
func (n *network) kill(name string) {
	n.isolate(name, true, true)
	n.servers[name].member.Mute(true)
	n.servers[name].down = true
	n.wait(netSilence - netHeartbeat) // its data plane goes on, for nobody
	n.servers[name].stop()
	n.isolate(name, false, false)
}

// isolate cuts a member off: what it sends, what it would hear.
func (n *network) isolate(name string, out, in bool) {
	for _, other := range allNames {
		n.hub.Cut(name, other, out)
		n.hub.Cut(other, name, in)
	}
}

// wait lets time pass and watches whom users reach.
func (n *network) wait(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(sampleEvery)
		synctest.Wait()
		n.sample()
	}
}

func (n *network) sample() {
	now := time.Now()
	for i := range netUsers {
		w := n.watched[i]
		if w == nil {
			w = &watch{}
			n.watched[i] = w
		}
		servers := n.servedBy(userOf(i))
		lasts(now, &w.twice, &n.twice, len(servers) > 1)
		lasts(now, &w.nobody, &n.nobody, len(servers) == 0)
	}
	for name, s := range n.servers {
		for _, m := range s.joiner.current() {
			if m.Epoch.Term < n.terms[name] {
				n.t.Fatalf("%s went back from term %d to %v", name, n.terms[name], m.Epoch)
			}
			n.terms[name] = m.Epoch.Term
		}
	}
}

// lasts keeps how long something has lasted, and the longest of it.
func lasts(now time.Time, since *time.Time, longest *time.Duration, is bool) {
	switch {
	case !is:
		*since = time.Time{}
	case since.IsZero():
		*since = now
	default:
		*longest = max(*longest, now.Sub(*since))
	}
}

// servedBy are the servers that take a user's packets where the router brings them.
func (n *network) servedBy(user netip.Addr) []string {
	link := n.linkOf(user)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(n.servers)) {
		if s := n.servers[name]; s.link == link && !s.down && s.plane.Takes(netGroup, user) {
			out = append(out, name)
		}
	}
	return out
}

// linkOf is where the router brings a user's packets: to the newest owner that is available, else to its standby.
func (n *network) linkOf(user netip.Addr) string {
	n.router.mu.Lock()
	defer n.router.mu.Unlock()
	var owner, standby, any string
	var owned, stood, last epoch.Epoch
	for _, name := range slices.Sorted(maps.Keys(n.servers)) {
		s := n.servers[name]
		for _, m := range s.joiner.current() {
			available := n.router.health[name] == control.Available
			switch {
			case m.Owner.Contains(user) && available && !m.Epoch.Less(owned):
				owner, owned = s.link, m.Epoch
			case m.Owner.Contains(user) && !m.Epoch.Less(last):
				any, last = s.link, m.Epoch
			case m.Standby.Contains(user) && available && !m.Epoch.Less(stood):
				standby, stood = s.link, m.Epoch
			}
		}
	}
	if owner == "" || owned.Less(stood) && owned.Less(last) {
		owner = standby
	}
	if owner == "" {
		return any
	}
	return owner
}

// forget begins the figures anew.
func (n *network) forget() { n.twice, n.nobody, n.watched = 0, 0, map[int]*watch{} }

// wantServed checks that each user has one server of these, and each of these has users.
func (n *network) wantServed(what string, among ...string) {
	n.t.Helper()
	seen := map[string]bool{}
	for i := range netUsers {
		servers := n.servedBy(userOf(i))
		if len(servers) != 1 || !slices.Contains(among, servers[0]) {
			n.t.Fatalf("%s: user %d is served by %v, want one of %v", what, i, servers, among)
		}
		seen[servers[0]] = true
	}
	if len(seen) != len(among) {
		n.t.Errorf("%s: users are served by %v, want all of %v", what, slices.Sorted(maps.Keys(seen)), among)
	}
}

func (n *network) history() []string {
	e, err := n.buckets.Moves.Get(n.t.Context(), "web")
	if err != nil {
		return nil
	}
	var p allocv1.Moves
	if err := proto.Unmarshal(e.Value, &p); err != nil {
		n.t.Fatal(err)
	}
	var out []string
	for _, m := range p.Moves {
		out = append(out, m.Reason)
	}
	return out
}

func (n *network) end() {
	for _, s := range n.servers {
		s.stop()
	}
	for _, stop := range n.stops {
		stop()
	}
	synctest.Wait()
}
