package mover

import (
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

// TestNetTransfers moves live connections with numbered bytes both ways again and again, and loses none.
func TestNetTransfers(t *testing.T) {
	r := newRig(t, nil)
	var all []*numbers
	for range 8 {
		all = append(all, r.numbers())
	}
	moves := 100
	if testing.Short() {
		moves = 10
	}
	for i := range moves {
		from, to := r.servers[[]string{"s1", "s2"}[i%2]], []string{"s2", "s1"}[i%2]
		given := from.Counters().Given
		r.commit(to)
		testnet.Eventually(t, 10*time.Second, func() bool { return from.Counters().Given == given+uint64(len(all)) }, "all are given")
		for _, n := range all {
			got := n.got.Load()
			testnet.Eventually(t, 5*time.Second, func() bool { n.check(t); return n.got.Load() > got+40 }, "a stream goes on")
		}
	}
	for name, s := range r.servers {
		if c := s.Counters(); len(c.Stayed)+len(c.Lost)+len(c.NotTaken) > 0 {
			t.Errorf("%s counts %+v", name, c)
		}
	}
}

// BenchmarkNetTransfer moves one connection that has a number each millisecond, both ways. The blackout is the time from the old server's last number
// to the new one's first, beyond that millisecond; quiet is the longest between two numbers in 30 ms in which nothing moves, of the same run: what
// the machine does.
func BenchmarkNetTransfer(b *testing.B) {
	r := newRig(b, nil)
	n := r.numbers()
	var blackouts, quiet []float64
	beyond := func(ns int64) float64 { return max(0, float64(ns-int64(time.Millisecond))/1e6) }
	time.Sleep(100 * time.Millisecond)
	for i := 0; b.Loop(); i++ {
		time.Sleep(30 * time.Millisecond)
		n.longest.Store(0)
		time.Sleep(30 * time.Millisecond)
		quiet = append(quiet, beyond(n.longest.Load()))
		n.switched.Store(0)
		r.commit([]string{"s2", "s1"}[i%2])
		testnet.Eventually(b, 5*time.Second, func() bool { n.check(b); return n.switched.Load() > 0 }, "it goes on at the other server")
		blackouts = append(blackouts, beyond(n.switched.Load()))
	}
	for name, all := range map[string][]float64{"blackout": blackouts, "quiet": quiet} {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], name+"-p50-ms")
		b.ReportMetric(all[len(all)*99/100], name+"-p99-ms")
	}
	b.ReportMetric(0, "ns/op")
}
