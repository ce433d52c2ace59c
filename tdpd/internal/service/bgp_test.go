package service

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/routing"
	"github.com/manycast/manycast/tdpd/internal/transport"
)

// TestLabelsOfBGP: what a BGP neighbor of r2 has bound to a prefix and to a server is pushed there, and LDP leads to it from r1; it goes when
// the neighbor takes it back.
func TestLabelsOfBGP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, f, learned := t.TempDir(), transport.NewFabric(), make(chan bgppolicy.Changes)
		r1 := begin(t, f, "r1", "1.1.1.1", filepath.Join(dir, "1"), kernel.State{})
		r2 := begin(t, f, "r2", "2.2.2.2", filepath.Join(dir, "2"), kernel.State{}, func(o *Options) { o.Learned = learned })
		r3 := begin(t, f, "r3", "3.3.3.3", filepath.Join(dir, "3"), kernel.State{})
		f.Link(r1.net, "a", addr("10.0.12.1"), r2.net, "a", addr("10.0.12.2"))
		tell(r1, r2, r3)
		host := netip.PrefixFrom(server, 32)
		far := prefix("10.7.0.0/16")
		wait := func() {
			time.Sleep(20 * time.Second)
			synctest.Wait()
		}
		wait()
		route := func(p netip.Prefix, label uint32) bgppolicy.Route {
			return bgppolicy.Route{Prefix: p, NextHop: addr("10.0.23.3"), Label: label, From: addr("10.0.23.3")}
		}
		learned <- bgppolicy.Changes{Added: []bgppolicy.Route{route(host, 900), route(far, 901), route(prefix("10.8.0.0/16"), bgppolicy.NoLabel)}}
		wait()
		pushed := func(r *router, p netip.Prefix) uint32 {
			hops := r.kernel.State().Prefixes[p]
			if len(hops) != 1 || len(hops[0].Labels) != 1 {
				return 0
			}
			return hops[0].Labels[0]
		}
		if a, b := pushed(r2, host), pushed(r2, far); a != 900 || b != 901 {
			t.Errorf("r2 pushes %d and %d, want 900 and 901", a, b)
		}
		first := pushed(r1, host)
		if hops := r2.kernel.State().Labels[first]; first == 0 || len(hops) != 1 || len(hops[0].Labels) != 1 || hops[0].Labels[0] != 900 {
			t.Errorf("r1 pushes %d, which r2 has as %v: want a swap to 900", first, hops)
		}
		learned <- bgppolicy.Changes{Changed: []bgppolicy.Route{route(host, 910)}, Gone: []netip.Prefix{far}}
		wait()
		if a, b := pushed(r2, host), pushed(r2, far); a != 910 || b != 0 || len(r2.kernel.State().Labels[first]) != 1 {
			t.Errorf("r2 pushes %d and %d, want 910 and none", a, b)
		}
		learned <- bgppolicy.Changes{Gone: []netip.Prefix{host, prefix("10.8.0.0/16")}}
		wait()
		if a := pushed(r2, host); a != 0 || len(r2.learned) != 0 {
			t.Errorf("r2 pushes %d, want none; %d prefixes are left", a, len(r2.learned))
		}
		stopAll(t, r1, r2, r3)
	})
}

// TestWhatBGPNeighborsMayKnow: a service is reached when a server's tree is there, its rules are users', and the tree has the label that this
// router has bound.
func TestWhatBGPNeighborsMayKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var view routing.View
		learned := make(chan bgppolicy.Changes)
		f := transport.NewFabric()
		r := begin(t, f, "r3", "3.3.3.3", filepath.Join(t.TempDir(), "3"), kernel.State{}, func(o *Options) {
			o.Config.Users = config.Users{Active: 5 * time.Minute}
			o.FlowRules, o.Learned = true, learned
			o.Say = func(v routing.View) {
				mu.Lock()
				defer mu.Unlock()
				view = v
			}
		})
		said := said(1, 1)
		r.say(t, said)
		look := func() routing.View {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return view
		}
		if v := look(); len(v.Services)+len(v.Users)+len(v.Hosts) != 0 {
			t.Errorf("before routes are known: %+v", v)
		}
		tellLast(r)
		v := look()
		if len(v.Services) != 1 || v.Services[0].Reach != announcing.Reached || len(v.Users) != 1 || len(v.Users[0].Four) != said.Allocation.Cells() {
			t.Errorf("services %+v, users of %d services", v.Services, len(v.Users))
		}
		var local uint32
		if err := r.Do(t.Context(), func(time.Time) { local = uint32(r.labels.Bindings(netip.PrefixFrom(server, 32)).Local) }); err != nil {
			t.Fatal(err)
		}
		if want := (bgp.LabelledPath{Path: bgp.Path{Prefix: netip.PrefixFrom(server, 32)}, Label: local}); len(v.Hosts) != 1 || v.Hosts[0].Prefix != want.Prefix || v.Hosts[0].Label != local {
			t.Errorf("host routes %+v, want %+v", v.Hosts, want)
		}
		nobody := said
		nobody.Nobody, nobody.Allocation = true, alloc.Allocation{Epoch: epoch.Epoch{Term: 1, Number: 2}}
		r.say(t, nobody)
		if v := look(); len(v.Services) != 1 || v.Services[0].Reach != announcing.NoServer {
			t.Errorf("nobody serves: services %+v", v.Services)
		}
		learned <- bgppolicy.Changes{Added: []bgppolicy.Route{{Prefix: netip.PrefixFrom(server, 32), NextHop: addr("10.0.23.2"), Label: 77}}}
		if v := look(); len(v.Hosts) != 1 {
			t.Errorf("a neighbor that tells a way to this router's own server ends its tree here: %+v", v.Hosts)
		}
		r.routes.Send(routes.Change{Interfaces: map[int]*routes.Interface{3: nil}, Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.0/24"): nil}})
		v = look()
		if hops := r.kernel.State().Prefixes[netip.PrefixFrom(server, 32)]; len(v.Hosts) != 0 || len(hops) != 1 || hops[0].Labels[0] != 77 {
			t.Errorf("its tree goes on by BGP's label: %v, and is told back: %+v", hops, v.Hosts)
		}
		stopAll(t, r)
	})
}

// TestServersHostTellsItsOwnAlone: of the servers that it knows, and whose trees it has.
func TestServersHostTellsItsOwnAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var view routing.View
		f := transport.NewFabric()
		r := begin(t, f, "r3", "3.3.3.3", filepath.Join(t.TempDir(), "3"), kernel.State{}, func(o *Options) {
			o.Config.BGP.Announce.Server = true
			o.Say = func(v routing.View) {
				mu.Lock()
				defer mu.Unlock()
				view = v
			}
		})
		r.say(t, said(1, 1))
		tellLast(r)
		synctest.Wait()
		if len(view.Hosts) != 0 {
			t.Errorf("a server on the link is told: %+v", view.Hosts)
		}
		r.routes.Send(routes.Change{Interfaces: map[int]*routes.Interface{1: iface(1, "lo", "3.3.3.3/32", server.String()+"/32")}})
		synctest.Wait()
		if len(view.Hosts) != 1 || view.Hosts[0].Prefix != netip.PrefixFrom(server, 32) || view.Hosts[0].Label < 16 {
			t.Errorf("its own server: %+v", view.Hosts)
		}
		stopAll(t, r)
	})
}

// announcer is drained, and says so.
type announcer struct{ progress announcing.Progress }

func (a *announcer) Drain(_ context.Context, back bool) error {
	p := &a.progress
	if p.Drained = !back; p.Drained {
		p.Phase, p.Waits, p.Until = announcing.Leaving, announcing.ForSettling, time.Now().Add(5*time.Second)
	}
	return nil
}

func (a *announcer) Progress(context.Context) (announcing.Progress, error) { return a.progress, nil }

func TestAskWhatIsAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ask := func(r *router, q *tdpdv1.AnnounceRequest) (*tdpdv1.Announced, error) {
			answer, err := r.Ask(t.Context(), &tdpdv1.Request{About: &tdpdv1.Request_Announce{Announce: q}})
			return answer.GetAnnounce(), err
		}
		f, a := transport.NewFabric(), &announcer{}
		r1 := begin(t, f, "r1", "1.1.1.1", filepath.Join(t.TempDir(), "1"), kernel.State{})
		r2 := begin(t, f, "r2", "2.2.2.2", filepath.Join(t.TempDir(), "2"), kernel.State{}, func(o *Options) { o.Announcer = a })
		if _, err := ask(r1, &tdpdv1.AnnounceRequest{}); !errors.Is(err, bgp.ErrNone) {
			t.Errorf("a router without BGP: %v", err)
		}
		got, err := ask(r2, &tdpdv1.AnnounceRequest{})
		if err != nil || got.GetPhase() != "entering" || got.GetLeftMs() != -1 || a.progress.Drained {
			t.Errorf("%v, %v", got, err)
		}
		got, err = ask(r2, &tdpdv1.AnnounceRequest{Change: &tdpdv1.AnnounceRequest_Drain{Drain: true}})
		if err != nil || got.GetPhase() != "leaving" || got.GetLeftMs() != 5000 || !got.GetDrained() || got.GetWaits() != "neighbors to converge" {
			t.Errorf("%v, %v", got, err)
		}
		if _, err = ask(r2, &tdpdv1.AnnounceRequest{Change: &tdpdv1.AnnounceRequest_Back{Back: true}}); err != nil || a.progress.Drained {
			t.Errorf("back: %v, drained %v", err, a.progress.Drained)
		}
		stopAll(t, r1, r2)
	})
}
