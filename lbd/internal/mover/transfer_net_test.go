package mover

import (
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/handover"
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

// TestNetDeadline: connections that their application does not give until the deadline stay and are forwarded, the others are given; none is lost. When
// their users are back, all are where their users are.
func TestNetDeadline(t *testing.T) {
	r := newRig(t, nil)
	r.service.Handover.Deadline = 300 * time.Millisecond // before a giver is late by its own limit
	s1, s2 := r.servers["s1"], r.servers["s2"]
	r.commit("s1")
	all := []*numbers{r.numbers(), r.numbers(), r.numbers()}
	goOn := func(what string) {
		t.Helper()
		for _, n := range all {
			got := n.got.Load()
			testnet.Eventually(t, 10*time.Second, func() bool { n.check(t); return n.got.Load() > got+800 }, what)
		}
	}
	goOn("streams begin")
	s1.busy.Store(true)
	all = append(all, r.numbers(), r.numbers())
	goOn("streams that are not given begin")
	r.commit("s2")
	stayed := func() uint64 { return s1.Counters().Stayed[handover.Deadline] }
	testnet.Eventually(t, 10*time.Second, func() bool { return s1.Counters().Given+stayed() == uint64(len(all)) }, "all are given, or stay for the deadline")
	given := s1.Counters().Given
	if stayed() < 2 { // a machine that stood still may have made it more
		t.Errorf("%d are given, %d stayed", given, stayed())
	}
	goOn("streams go on, where they were or where their users are")
	status, err := s1.Status(t.Context())
	if err != nil || len(status.Giving) > 0 {
		t.Errorf("still under way: %+v, %v", status.Giving, err)
	}
	s1.busy.Store(false)
	r.commit("s1")
	testnet.Eventually(t, 10*time.Second, func() bool { return s2.Counters().Given == given }, "those that were given go back")
	goOn("streams go on at s1")
	if c := s1.Counters(); len(c.Lost)+len(c.NotTaken) > 0 {
		t.Errorf("s1 counts %+v", c)
	}
	if c, err := s2.plane.Counters(); err != nil || c.ForwardedOut == 0 || c.ForwardEnded > 0 {
		t.Errorf("s2's programs count %+v, %v", c, err)
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
