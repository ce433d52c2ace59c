package mover

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/handover"
)

// TestNetTransfers moves live connections with numbered bytes both ways again and again, and loses none.
func TestNetTransfers(t *testing.T) {
	for family, at := range map[string]netip.AddrPort{"IPv4": front, "IPv6": front6} {
		t.Run(family, func(t *testing.T) {
			r := newRigBeside(t, testnet.New(t), at, nil, nil)
			r.serve()
			moves := 100
			if testing.Short() {
				moves = 10
			}
			moveStreams(t, r, moves)
			for name, s := range r.servers {
				if c := s.Counters(); len(c.Stayed)+len(c.Lost)+len(c.NotTaken) > 0 {
					t.Errorf("%s counts %+v", name, c)
				}
			}
		})
	}
}

func moveStreams(t *testing.T, r *rig, moves int) {
	t.Helper()
	var all []*numbers
	for range 8 {
		all = append(all, r.numbers())
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

// BenchmarkNetTransfer moves one connection that has a number each millisecond, both ways.
func BenchmarkNetTransfer(b *testing.B) {
	r := newRigBeside(b, testnet.New(b), front, nil, nil)
	r.serveApart("paced")
	measureBlackouts(b, r, r.farNumbers(), func(string) {})
}

// BenchmarkNetBulk moves one connection whose server's kernel sends all the time, from a queue that is full and moves along.
func BenchmarkNetBulk(b *testing.B) {
	r := newRigBeside(b, testnet.New(b), front, nil, nil)
	r.serveApart("bulk")
	measureBlackouts(b, r, r.farNumbers(), func(string) {})
	var states uint64
	for _, s := range r.servers {
		c := s.Counters()
		states += c.Bytes
	}
	b.ReportMetric(float64(states)/float64(b.N)/1024, "state-KiB")
}

// measureBlackouts moves the user's connection to and fro, and waits for what is behind each move. The blackout is the longest wait for a number from
// the commit to the new server's first one, beyond the millisecond of their pace; the switch is the wait for that first one alone. Beside them, of the same
// run, is what the machine does: quiet is the longest wait of 30 ms in which nothing is done, still that of a commit that moves nothing.
func measureBlackouts(b *testing.B, r *rig, n farNumbers, moved func(to string)) {
	all := map[string][]float64{}
	note := func(name string, d time.Duration) {
		all[name] = append(all[name], max(0, float64(d-time.Millisecond)/1e6))
	}
	time.Sleep(100 * time.Millisecond)
	for i := 0; b.Loop(); i++ {
		from, to := []string{"s1", "s2"}[i%2], []string{"s2", "s1"}[i%2]
		time.Sleep(30 * time.Millisecond)
		n.waits()
		time.Sleep(30 * time.Millisecond)
		before := n.waits()
		note("quiet", before.longest)
		r.commit(from)
		time.Sleep(2 * time.Millisecond) // as long as a move takes
		note("still", n.waits().longest)
		time.Sleep(30 * time.Millisecond)
		n.waits()
		r.commit(to)
		longest, over := time.Duration(0), time.Duration(0)
		testnet.Eventually(b, 5*time.Second, func() bool {
			w := n.waits()
			longest, over = max(longest, w.longest), w.over
			return w.switched > before.switched
		}, "it goes on at the other server")
		note("blackout", longest)
		note("switch", over)
		moved(to)
	}
	for name, waits := range all {
		slices.Sort(waits)
		b.ReportMetric(waits[len(waits)/2], name+"-p50-ms")
		b.ReportMetric(waits[len(waits)*99/100], name+"-p99-ms")
	}
	b.ReportMetric(0, "ns/op")
}
