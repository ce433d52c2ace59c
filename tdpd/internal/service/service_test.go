package service

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/journal"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/session"
	"github.com/manycast/manycast/tdpd/internal/transport"
)

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
	server = addr("10.9.0.80")
)

// router is a Service with fakes around it.
type router struct {
	*Service
	name   string
	net    *transport.Fake
	kernel *kernel.Fake
	routes *routes.Fake
	log    *bytes.Buffer
	events []Event // of which one reads between Waits
	stop   func() error
}

// begin starts a router; journal is where it keeps its labels, left what its kernel has.
func begin(t testing.TB, f *transport.Fabric, name, id, path string, left kernel.State, change ...func(*Options)) *router {
	t.Helper()
	cfg := config.Default()
	cfg.Name, cfg.RouterID, cfg.Transport4, cfg.Interfaces = name, addr(id), addr(id), []string{"a", "b"}
	cfg.Servers.Addresses = []netip.Addr{server}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(path, "boot")
	if err != nil {
		t.Fatal(err)
	}
	r := &router{name: name, net: f.Router(cfg.ID(), addr(id)), kernel: kernel.NewFake(left), routes: routes.NewFake(), log: &bytes.Buffer{}}
	o := Options{
		Publish: func(e Event) { r.events = append(r.events, e) },
		Config:  cfg, Network: r.net, Kernel: r.kernel, Routes: r.routes.Changes(), Journal: j, Log: slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), r.log), &slog.HandlerOptions{Level: slog.LevelDebug})).With("at", name),
	}
	for _, f := range change {
		f(&o)
	}
	if r.Service, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = func() error {
		cancel(nil)
		return <-done
	}
	return r
}

func iface(index int, name string, addresses ...string) *routes.Interface {
	i := &routes.Interface{Index: index, Name: name, Up: true, Loopback: name == "lo"}
	for _, a := range addresses {
		i.Addresses = append(i.Addresses, prefix(a))
	}
	return i
}

func via(hop string, index int) *routes.Route {
	r := &routes.Route{Metric: 20, Hops: []routes.Hop{{Interface: index}}}
	if hop != "" {
		r.Hops[0].Via = addr(hop)
	}
	return r
}

// tell gives the three routers of a chain their tables: r1 a--a r2 b--a r3, and the server on r3's interface c.
func tell(r1, r2, r3 *router) {
	r1.routes.Send(routes.Change{Full: true,
		Interfaces: map[int]*routes.Interface{1: iface(1, "lo", "1.1.1.1/32"), 2: iface(2, "a", "10.0.12.1/24")},
		Routes:     map[netip.Prefix]*routes.Route{prefix("10.9.0.0/24"): via("10.0.12.2", 2), prefix("10.0.12.0/24"): via("", 2)},
	})
	r2.routes.Send(routes.Change{Full: true,
		Interfaces: map[int]*routes.Interface{1: iface(1, "lo", "2.2.2.2/32"), 2: iface(2, "a", "10.0.12.2/24"), 3: iface(3, "b", "10.0.23.2/24")},
		Routes:     map[netip.Prefix]*routes.Route{prefix("10.9.0.0/24"): via("10.0.23.3", 3), prefix("10.0.12.0/24"): via("", 2), prefix("10.0.23.0/24"): via("", 3)},
	})
	tellLast(r3)
}

func tellLast(r3 *router) {
	r3.routes.Send(routes.Change{Full: true,
		Interfaces: map[int]*routes.Interface{1: iface(1, "lo", "3.3.3.3/32"), 2: iface(2, "a", "10.0.23.3/24"), 3: iface(3, "c", "10.9.0.3/24")},
		Routes:     map[netip.Prefix]*routes.Route{prefix("10.9.0.0/24"): via("", 3), prefix("10.0.23.0/24"): via("", 2)},
	})
}

func chain(t *testing.T) (f *transport.Fabric, r1, r2, r3 *router) {
	dir := t.TempDir()
	f = transport.NewFabric()
	r1 = begin(t, f, "r1", "1.1.1.1", filepath.Join(dir, "1"), kernel.State{})
	r2 = begin(t, f, "r2", "2.2.2.2", filepath.Join(dir, "2"), kernel.State{})
	r3 = begin(t, f, "r3", "3.3.3.3", filepath.Join(dir, "3"), kernel.State{})
	f.Link(r1.net, "a", addr("10.0.12.1"), r2.net, "a", addr("10.0.12.2"))
	f.Link(r2.net, "b", addr("10.0.23.2"), r3.net, "a", addr("10.0.23.3"))
	tell(r1, r2, r3)
	return f, r1, r2, r3
}

// tree follows the server's labels from the first router; it fails the test where they do not lead to the server.
func tree(t *testing.T, when string, r1, r2, r3 *router) (labels []uint32) {
	t.Helper()
	host := netip.PrefixFrom(server, 32)
	hops := r1.kernel.State().Prefixes[host]
	for _, r := range []*router{r2, r3} {
		if len(hops) != 1 || len(hops[0].Labels) != 1 {
			t.Fatalf("%s: before %s: %v", when, r.name, hops)
		}
		labels = append(labels, hops[0].Labels[0])
		hops = r.kernel.State().Labels[hops[0].Labels[0]]
	}
	if len(hops) != 1 || len(hops[0].Labels) != 0 || hops[0].Via != server || hops[0].Interface != 3 {
		t.Fatalf("%s: leaves r3 by %v", when, hops)
	}
	return labels
}

// TestTreeOfAServer: three routers, by real messages, make the tree that ends at the server's neighbour; a clean stop leaves nothing.
func TestTreeOfAServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, r1, r2, r3 := chain(t)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		tree(t, "converged", r1, r2, r3)
		for _, r := range []*router{r1, r2, r3} {
			if err := r.stop(); err != nil {
				t.Error(err)
			}
			if keep, closed := r.kernel.Closed(); keep || !closed {
				t.Errorf("%s: its entries are kept", r.name)
			}
		}
	})
}

// TestRestartKeepsTheTree: the last router is killed and starts again. Its neighbours keep its labels, its kernel forwards, and the new
// process gives out the labels of the old one.
func TestRestartKeepsTheTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, r1, r2, r3 := chain(t)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		before := tree(t, "converged", r1, r2, r3)
		left, path := r3.kernel.State(), r3.Journal.(*journal.Journal)
		r3.net.Break()
		r3.Keep = true // nothing is said, nothing removed: as good as killed
		if err := r3.stop(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		tree(t, "r3 is away", r1, r2, r3)
		next := begin(t, f, "r3", "3.3.3.3", path.Path(), left)
		tellLast(next)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if after := tree(t, "r3 is back", r1, r2, next); !slices.Equal(before, after) {
			t.Errorf("labels %v, before %v", after, before)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if after := tree(t, "its restart is over", r1, r2, next); !slices.Equal(before, after) {
			t.Errorf("labels %v, before %v", after, before)
		}
		for _, r := range []*router{r1, r2, next} {
			if err := r.stop(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestBrokenConnection: where a connection alone is lost, nobody's labels are, not for a moment; each side says that it has kept its own.
func TestBrokenConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, r1, r2, r3 := chain(t)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		before := tree(t, "converged", r1, r2, r3)
		for _, r := range []*router{r1, r2, r3} {
			r.events = nil
		}
		r2.net.Break()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if after := tree(t, "after that", r1, r2, r3); !slices.Equal(before, after) {
			t.Errorf("labels %v, before %v", after, before)
		}
		for _, r := range []*router{r1, r2, r3} {
			var seen []What
			for _, e := range r.events {
				seen = append(seen, e.What)
			}
			if !slices.Contains(seen, SessionUp) || slices.Contains(seen, BindingLost) {
				t.Errorf("%s: %v", r.name, seen)
			}
		}
		for _, r := range []*router{r1, r2, r3} {
			if err := r.stop(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestCutLink: without hellos the session ends, and with it the tree; both come back.
func TestCutLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		f := transport.NewFabric()
		r1 := begin(t, f, "r1", "1.1.1.1", filepath.Join(dir, "1"), kernel.State{})
		r2 := begin(t, f, "r2", "2.2.2.2", filepath.Join(dir, "2"), kernel.State{})
		link := f.Link(r1.net, "a", addr("10.0.12.1"), r2.net, "a", addr("10.0.12.2"))
		r1.routes.Send(routes.Change{Full: true, Interfaces: map[int]*routes.Interface{2: iface(2, "a", "10.0.12.1/24")}})
		r2.routes.Send(routes.Change{Full: true, Interfaces: map[int]*routes.Interface{2: iface(2, "a", "10.0.12.2/24")}})
		want := func(when string, state session.State) {
			t.Helper()
			time.Sleep(20 * time.Second)
			synctest.Wait()
			got := session.NonExistent
			if err := r1.Do(t.Context(), func(time.Time) {
				for _, p := range r1.peers {
					got, _ = p.session.State()
				}
			}); err != nil {
				t.Fatal(err)
			}
			if got != state {
				t.Errorf("%s: %v, want %v", when, got, state)
			}
		}
		want("at first", session.Operational)
		link.Cut(true)
		want("cut", session.NonExistent)
		link.Cut(false)
		want("healed", session.Operational)
		for _, r := range []*router{r1, r2} {
			if err := r.stop(); err != nil {
				t.Error(err)
			}
		}
	})
}
