package service

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/routing"
	"github.com/manycast/manycast/tdpd/internal/transport"
)

// bgpPeer is the BGP neighbor of a peered router, on a link of it.
var bgpPeer = netip.MustParseAddr("10.0.23.3")

// How long what a neighbor that is away has told is kept.
const keeps, keepsLong = 30 * time.Second, 10 * time.Minute

// peered is a router beside a whole routing.Loop and a speaker without a network.
type peered struct {
	testing.TB
	*router
	loop    *routing.Loop
	speaker *bgp.Fake
	end     func()
}

// newPeered starts one, whose session is up; learned is what the router hears of the loop by.
func newPeered(t testing.TB, learned func(*routing.Loop) <-chan bgppolicy.Changes, change ...func(*Options)) *peered {
	speaker := bgp.NewFake()
	loop := routing.New(routing.Options{
		Speaker: speaker, Base: bgp.Desired{AS: 65001}, Announcing: announcing.Config{Patience: time.Second}, Log: slog.New(slog.DiscardHandler),
		Follow: bgppolicy.FollowConfig{Import: bgppolicy.Policy{Rules: []bgppolicy.Rule{{}}}, Restart: keeps, LongLived: keepsLong},
	})
	r := &peered{TB: t, loop: loop, speaker: speaker}
	hears := func(o *Options) { o.Learned, o.Say = learned(loop), loop.Say }
	r.router = begin(t, transport.NewFabric(), "r2", "2.2.2.2", filepath.Join(t.TempDir(), "2"), kernel.State{}, append(change, hears)...)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx) }()
	r.end = func() {
		stop()
		if err := errors.Join(<-ended, r.stop()); err != nil {
			t.Error(err)
		}
	}
	r.routes.Send(routes.Change{Full: true,
		Interfaces: map[int]*routes.Interface{1: iface(1, "lo", "2.2.2.2/32"), 3: iface(3, "b", "10.0.23.2/24")},
		Routes:     map[netip.Prefix]*routes.Route{prefix("10.0.23.0/24"): via("", 3)},
	})
	return r
}

func inPeered(t *testing.T, test func(r *peered)) {
	synctest.Test(t, func(t *testing.T) {
		r := newPeered(t, (*routing.Loop).Learned)
		defer r.end()
		synctest.Wait()
		r.session(bgp.Established)
		test(r)
	})
}

func (r *peered) session(s bgp.SessionState) {
	r.speaker.Tell(bgp.Event{Neighbor: &bgp.NeighborEvent{Address: bgpPeer, State: s}})
}

// tells has the neighbor tell prefixes with labels.
func (r *peered) tells(all map[netip.Prefix]uint32, communities ...bgp.Community) {
	for p, l := range all {
		r.speaker.Tell(toldBy(p, l, communities...))
	}
}

func toldBy(p netip.Prefix, label uint32, communities ...bgp.Community) bgp.Event {
	path := bgp.Path{Prefix: p, From: bgpPeer, Attributes: bgp.Attributes{NextHop: bgpPeer, Communities: communities}}
	return bgp.Event{Learned: &bgp.Learned{Labelled: &bgp.LabelledPath{Path: path, Label: label}}}
}

func (r *peered) loses(p netip.Prefix) {
	r.speaker.Tell(bgp.Event{Lost: &bgp.Lost{Family: bgp.IPv4Labelled, Prefix: p}})
}

// want says which FECs there are after a while, and the label that each is pushed.
func (r *peered) want(after time.Duration, want map[netip.Prefix]uint32, when string) {
	r.Helper()
	time.Sleep(after)
	synctest.Wait()
	got := map[netip.Prefix]uint32{}
	for p, hops := range r.kernel.State().Prefixes {
		if len(hops) == 1 && len(hops[0].Labels) == 1 {
			got[p] = hops[0].Labels[0]
		}
	}
	var fecs, learned []netip.Prefix
	err := r.Do(r.Context(), func(time.Time) {
		learned = slices.SortedFunc(maps.Keys(r.learned), netip.Prefix.Compare)
		for i := range 1024 {
			if v, ok := r.labels.View(nth(i)); ok && v.Kind == labels.Transit {
				fecs = append(fecs, nth(i))
			}
		}
	})
	keys, pushed := slices.SortedFunc(maps.Keys(want), netip.Prefix.Compare), slices.SortedFunc(maps.Keys(got), netip.Prefix.Compare)
	for p := range got {
		if got[p] == want[p] {
			delete(got, p)
		}
	}
	if err != nil || !slices.Equal(pushed, keys) || len(got) > 0 || !slices.Equal(learned, keys) || !slices.Equal(fecs, keys) {
		r.Fatalf("%s: %d prefixes are pushed, otherwise than wanted %v; %d learned, %d FECs, want %d; %v", when, len(pushed), got, len(learned), len(fecs), len(keys), err)
	}
}

// labelled are n prefixes with labels from first on.
func labelled(n int, first uint32) map[netip.Prefix]uint32 {
	out := map[netip.Prefix]uint32{}
	for i := range n {
		out[nth(i)] = first + uint32(i)
	}
	return out
}

func nth(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + i>>8), byte(i), 0}), 24)
}
