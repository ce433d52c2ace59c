package gobgp

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/manycast/manycast/tdpd/internal/bgp"
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
