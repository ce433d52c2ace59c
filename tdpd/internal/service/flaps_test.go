package service

import (
	"context"
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
	*testing.T
	*router
	speaker *bgp.Fake
}

func inPeered(t *testing.T, test func(r *peered)) {
	synctest.Test(t, func(t *testing.T) {
		speaker := bgp.NewFake()
		loop := routing.New(routing.Options{
			Speaker: speaker, Base: bgp.Desired{AS: 65001}, Announcing: announcing.Config{Patience: time.Second}, Log: slog.New(slog.DiscardHandler),
			Follow: bgppolicy.FollowConfig{Import: bgppolicy.Policy{Rules: []bgppolicy.Rule{{}}}, Restart: keeps, LongLived: keepsLong},
		})
		r := &peered{t, begin(t, transport.NewFabric(), "r2", "2.2.2.2", filepath.Join(t.TempDir(), "2"), kernel.State{}, func(o *Options) {
			o.Learned, o.Say = loop.Learned(), loop.Say
		}), speaker}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- loop.Run(ctx) }()
		r.routes.Send(routes.Change{Full: true,
			Interfaces: map[int]*routes.Interface{1: iface(1, "lo", "2.2.2.2/32"), 3: iface(3, "b", "10.0.23.2/24")},
			Routes:     map[netip.Prefix]*routes.Route{prefix("10.0.23.0/24"): via("", 3)},
		})
		synctest.Wait()
		r.session(bgp.Established)
		test(r)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		stopAll(t, r.router)
	})
}

func (r *peered) session(s bgp.SessionState) {
	r.speaker.Tell(bgp.Event{Neighbor: &bgp.NeighborEvent{Address: bgpPeer, State: s}})
}

// tells has the neighbor tell prefixes with labels.
func (r *peered) tells(all map[netip.Prefix]uint32, communities ...bgp.Community) {
	for p, l := range all {
		path := bgp.Path{Prefix: p, From: bgpPeer, Attributes: bgp.Attributes{NextHop: bgpPeer, Communities: communities}}
		r.speaker.Tell(bgp.Event{Learned: &bgp.Learned{Labelled: &bgp.LabelledPath{Path: path, Label: l}}})
	}
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
		for i := range 256 {
			if v, ok := r.labels.View(nth(i)); ok && v.Kind == labels.Transit {
				fecs = append(fecs, nth(i))
			}
		}
	})
	keys := slices.SortedFunc(maps.Keys(want), netip.Prefix.Compare)
	if err != nil || !maps.Equal(got, want) || !slices.Equal(learned, keys) || !slices.Equal(fecs, keys) {
		r.Fatalf("%s: pushed %v, want %v; learned %v, FECs %v, %v", when, got, want, learned, fecs, err)
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
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64, byte(i), 0}), 24)
}

// TestLongLivedStaleFECs: FECs of a neighbor that is away are kept over its restart, and beyond it for the long-lived time (RFC 9494), but for those that are not to
// be; then all go.
func TestLongLivedStaleFECs(t *testing.T) {
	inPeered(t, func(r *peered) {
		long, all := labelled(10, 500), labelled(15, 500)
		short := maps.Clone(all)
		maps.DeleteFunc(short, func(p netip.Prefix, _ uint32) bool { _, is := long[p]; return is })
		r.tells(long)
		r.tells(short, bgp.NoLLGR)
		r.want(time.Second, all, "told")
		r.session(bgp.Idle)
		r.want(keeps-time.Second, all, "within the restart time")
		r.want(2*time.Second, long, "beyond it")
		r.want(keepsLong-2*time.Second, long, "within the long-lived time")
		r.want(2*time.Second, nil, "beyond that")
		r.session(bgp.Established)
		r.tells(all)
		r.want(time.Second, all, "it is back")
	})
}

// TestFECsOverFlaps: a session flaps 30 times, within its restart time. What the neighbor tells again, before it goes the next time, is never away; what it does not
// tell again goes, whether the speaker says so, or time does, or the next flap.
func TestFECsOverFlaps(t *testing.T) {
	inPeered(t, func(r *peered) {
		const n, flaps = 12, 30
		has := labelled(n, 100)
		r.tells(has)
		r.want(time.Second, has, "told")
		for i := range flaps {
			r.session(bgp.Idle)
			r.want(time.Duration(1+i%5)*time.Second, has, "away")
			r.session(bgp.Established)
			fewer := labelled(n, uint32(1000+100*i))
			lost := nth(i % n)
			delete(fewer, lost)
			switch i % 3 {
			case 0: // End-of-RIB
				r.tells(fewer)
				r.loses(lost)
				r.want(time.Second, fewer, "told again, and one lost")
			case 1: // no End-of-RIB
				r.tells(fewer)
				has = maps.Clone(has)
				maps.Copy(has, fewer)
				r.want(keeps-time.Second, has, "one not told again, with time left")
				r.want(2*time.Second, fewer, "and without")
			case 2: // it goes once more
				r.tells(fewer)
				r.session(bgp.Idle)
				r.want(time.Second, fewer, "one not told again before it goes once more")
				r.session(bgp.Established)
			}
			has = labelled(n, uint32(5000+100*i))
			r.tells(has)
			r.want(time.Second, has, "all told again")
		}
		r.session(bgp.Idle)
		r.want(keeps+keepsLong+time.Second, nil, "gone for good")
	})
}
