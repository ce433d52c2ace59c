package gobgp

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
)

func lost(n int) (bgp.Event, topic) {
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n >> 16), byte(n >> 8), byte(n), 0}), 24)
	return bgp.Event{Lost: &bgp.Lost{Prefix: p}}, topic{path: pathKey{prefix: p}}
}

// TestMailbox: of each path the latest word is told, in the place of the first; refusals are counted.
func TestMailbox(t *testing.T) {
	m := newMailbox()
	refused, about := bgp.Event{Refused: &bgp.Refused{Why: "prefix", Count: 1}}, topic{why: "prefix"}
	for range 3 {
		m.put(refused, about)
		m.put(lost(1))
		m.put(lost(2))
		m.put(bgp.Event{Synced: true}, topic{})
	}
	latest, key := lost(1)
	latest.Lost.Family = bgp.IPv4Unicast
	m.put(latest, key)
	got := m.take()
	if len(got) != 6 || got[0].Refused.Count != 3 || got[1].Lost.Family != bgp.IPv4Unicast || got[2].Lost == nil || !got[3].Synced || !got[5].Synced {
		t.Errorf("%+v", got)
	}
	m.put(lost(1))
	if got := m.take(); len(got) != 1 || got[0].Lost.Family != 0 {
		t.Errorf("%+v", got)
	}
}

func learned(from netip.Addr, hop byte) (bgp.Event, topic) {
	p := netip.MustParsePrefix("10.9.0.80/32")
	path := bgp.Path{Prefix: p, From: from, Attributes: bgp.Attributes{NextHop: netip.AddrFrom4([4]byte{10, 0, 1, hop})}}
	return bgp.Event{Learned: &bgp.Learned{Unicast: &path}}, topic{path: pathKey{family: bgp.IPv4Unicast, prefix: p}}
}

// TestMailboxKeepsOrder: what a neighbor tells after it came back stays behind the word that it went, however slowly it is read; of each time the latest word alone
// waits.
func TestMailboxKeepsOrder(t *testing.T) {
	m, a, now := newMailbox(), addr("10.0.1.2"), time.Unix(1_000_000, 0)
	put := func(e bgp.Event, about topic) { m.put(e, about) }
	is := func(s bgp.SessionState) {
		put(bgp.Event{Neighbor: &bgp.NeighborEvent{Address: a, State: s}}, topic{})
	}
	is(bgp.Established)
	put(learned(a, 1))
	is(bgp.Idle)
	_, about := learned(a, 1)
	put(bgp.Event{Lost: &bgp.Lost{Family: bgp.IPv4Unicast, Prefix: about.path.prefix}}, about)
	is(bgp.Established)
	put(learned(a, 2))
	put(learned(a, 3))

	f := bgppolicy.New(bgppolicy.FollowConfig{Import: bgppolicy.Policy{Rules: []bgppolicy.Rule{{}}}, Restart: time.Minute})
	got := m.take()
	if len(got) != 6 {
		t.Errorf("%d events, want 6: %+v", len(got), got)
	}
	for _, e := range got {
		f.Take(now, e)
	}
	f.Tick(now.Add(time.Hour))
	if c := f.Changes(); len(c.Added) != 1 || c.Added[0].Stale || c.Added[0].NextHop != addr("10.0.1.3") {
		t.Errorf("an hour after it was told again: %+v", c)
	}

	// What was taken takes no later one's place away.
	for i := range bgp.EventsMost {
		m.put(lost(i))
	}
	is(bgp.Idle)
	m.put(lost(0))
	m.take() // all before
	m.put(lost(0))
	if got := m.take(); len(got) != 2 || got[0].Neighbor == nil || got[1].Lost == nil {
		t.Errorf("%+v", got)
	}
}

// TestMailboxFull: who puts in more than there is room for waits until some are taken, and what waits can still be changed; the end of it all frees him.
func TestMailboxFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMailbox()
		for i := range waitingMost {
			m.put(lost(i))
		}
		m.put(lost(5)) // waits already
		in := 0
		go func() {
			for i := range 2000 {
				if !m.put(lost(waitingMost + i)) {
					return
				}
				in++
			}
		}()
		synctest.Wait()
		if in != 0 {
			t.Fatalf("%d more than there is room for", in)
		}
		if n := len(m.take()); n != bgp.EventsMost {
			t.Errorf("%d at once", n)
		}
		synctest.Wait()
		if in != bgp.EventsMost {
			t.Errorf("%d more, after %d were taken", in, bgp.EventsMost)
		}
		ctx, cancel := context.WithCancel(context.Background())
		to := make(chan []bgp.Event)
		go m.deliver(ctx, to)
		if n := len(<-to); n != bgp.EventsMost {
			t.Errorf("%d at once", n)
		}
		cancel()
		synctest.Wait() // nobody hangs
		if m.put(lost(1)) {
			t.Error("a closed box takes events")
		}
	})
}
