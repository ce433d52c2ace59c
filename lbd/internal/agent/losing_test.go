package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/store"
)

// breaking keeps connections by forwarding until a break point after a minute, moving those by transfer alone for 2 s.
func breaking() service.Service {
	s := keeping(service.Multicast)
	s.Handover.Break = time.Minute
	return s
}

func moving() service.Service {
	s := keeping(service.Multicast)
	s.Handover.Strategies, s.Handover.Deadline = []service.Strategy{service.Transfer}, 2*time.Second
	return s
}

// keptBy is what a core has put on disk.
func keptBy(t *testing.T, actions []Action) Keep {
	t.Helper()
	for _, a := range actions {
		if k, is := a.(Keep); is {
			return k
		}
	}
	t.Fatalf("nothing is kept: %+v", actions)
	return Keep{}
}

// restart is the core of s2 that follows one which has put that on disk.
func restart(now time.Time, s service.Service, k Keep) (*Core, []Action) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.Restore(now, "web", k.Allocation, k.Losses)
	return c, c.SetServices(now, []service.Service{s})
}

// ends are the closings that are due then of what is kept of a user, and whether at a break point alone.
func ends(c *Core, now time.Time, user netip.Addr) (anyhow, idle int) {
	for _, action := range c.Tick(now) {
		d, is := action.(Close)
		switch {
		case !is || !d.Lost(netip.AddrPortFrom(user, 1)):
		case d.How.Idle > 0:
			idle++
		default:
			anyhow++
		}
	}
	return anyhow, idle
}

func TestBreakPointsComeOverARestart(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{breaking()})
	a := followed(allocation(1, s2, s2), allocation(2, s2, s3), allocation(3, s3, s3))
	c.Committed(start, "web", a[0])
	c.Committed(start, "web", a[1])
	k := keptBy(t, c.Committed(start.Add(30*time.Second), "web", a[2]))

	for what, restarts := range map[string][]time.Duration{"once": {40 * time.Second}, "twice": {40 * time.Second, 45 * time.Second}, "after the time": {75 * time.Second}} {
		for _, at := range restarts {
			c, _ = restart(start.Add(at), breaking(), k)
		}
		last := restarts[len(restarts)-1]
		c.Tick(start.Add(last + settle)) // what is not kept
		if last < time.Minute {
			if anyhow, idle := ends(c, start.Add(time.Minute-1), odd); anyhow+idle > 0 {
				t.Errorf("%s: ends before its time", what)
			}
			if _, idle := ends(c, start.Add(time.Minute), odd); idle != 1 {
				t.Errorf("%s: %d closings of odd users after a minute, want one", what, idle)
			}
		}
		if anyhow, idle := ends(c, start.Add(90*time.Second-1), even); anyhow+idle > 0 {
			t.Errorf("%s: even users' end before their time", what)
		}
		if _, idle := ends(c, start.Add(91*time.Second), even); idle == 0 {
			t.Errorf("%s: even users' do not end", what)
		}
		if _, idle := ends(c, start.Add(93*time.Second), odd); idle == 0 {
			t.Errorf("%s: they are not looked for again", what)
		}
	}
}

func TestDeadlineOfATransferComesOverARestart(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{moving()})
	a := followed(allocation(1, s2, s2), allocation(2, s2, s3))
	c.Committed(start, "web", a[0])
	k := keptBy(t, c.Committed(start, "web", a[1]))
	c, _ = restart(start.Add(time.Second), moving(), k)
	if anyhow, _ := ends(c, start.Add(2*time.Second), odd); anyhow > 0 {
		t.Error("ends before the deadline")
	}
	if anyhow, _ := ends(c, start.Add(2*time.Second+settle), odd); anyhow != 1 {
		t.Errorf("%d closings at the deadline, want one", anyhow)
	}
}

// TestDeadlineIsOfItsOwnMove: users of a later one have their own.
func TestDeadlineIsOfItsOwnMove(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{moving()})
	a := followed(allocation(1, s2, s2), allocation(2, s2, s3), allocation(3, s3, s3))
	c.Committed(start, "web", a[0])
	c.Committed(start, "web", a[1])
	c.Committed(start.Add(1900*time.Millisecond), "web", a[2])
	if anyhow, _ := ends(c, start.Add(2*time.Second+settle), even); anyhow > 0 {
		t.Error("connections end 200 ms after they were lost, by the deadline of a move before")
	}
	if anyhow, _ := ends(c, start.Add(3900*time.Millisecond+settle), even); anyhow != 1 {
		t.Errorf("%d closings at their deadline, want one", anyhow)
	}
}

// TestLossesThatNobodySaw: the clock begins when the agent does, of what was lost while it was away, and of what an older release kept no time of;
// and goes on over the next restart.
func TestLossesThatNobodySaw(t *testing.T) {
	a := followed(allocation(1, s2, s2), allocation(2, s2, s3), allocation(3, s3, s3))
	for what, k := range map[string]Keep{
		"nothing was kept": {Allocation: a[2]},
		"of one alone":     {Allocation: a[2], Losses: []store.Loss{{Until: a[0].Epoch, At: start.Add(-time.Second)}}},
	} {
		c, actions := restart(start, breaking(), k)
		again := keptBy(t, actions)
		c.Tick(start.Add(settle))
		if _, idle := ends(c, start.Add(time.Minute-1), even); idle > 0 {
			t.Errorf("%s: ends before its time", what)
		}
		if _, idle := ends(c, start.Add(time.Minute), even); idle != 1 {
			t.Errorf("%s: %d closings after a minute, want one", what, idle)
		}
		c, actions = restart(start.Add(30*time.Second), breaking(), again)
		if len(actions) != 1 {
			t.Errorf("%s: the next start: %+v, though all is known", what, actions)
		}
		if _, idle := ends(c, start.Add(time.Minute), even); idle != 1 {
			t.Errorf("%s: the next agent has %d closings after a minute, want one", what, idle)
		}
	}
	c, _ := restart(start, breaking(), Keep{Allocation: a[1], Losses: []store.Loss{{Until: a[0].Epoch, At: start.Add(time.Hour)}}})
	if _, idle := ends(c, start.Add(time.Minute), odd); idle != 1 {
		t.Errorf("the clock was set back: %d closings after a minute, want one", idle)
	}
	c = NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{breaking()})
	c.Committed(start, "web", a[2]) // the first that is heard, and the server had users
	if _, idle := ends(c, start.Add(time.Minute), even); idle != 1 {
		t.Errorf("all files are lost: %d closings after a minute, want one", idle)
	}
}

// TestLossesAreBounded by what may be kept of them, whatever happens.
func TestLossesAreBounded(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{breaking()})
	last := allocation(1, s2, s2)
	c.Committed(start, "web", last)
	for n := uint64(2); n < 1000; n++ {
		next := allocation(n, s2, s2)
		if n%2 == 0 {
			next = allocation(n, s2, s3)
		}
		next.Trail = alloc.Follow(last, next, alloc.Holders{"s2": {}, "s3": {}}, nil)
		c.Committed(start, "web", next)
		last = next
	}
	if n := len(c.losses["web"]); n > 2 {
		t.Errorf("%d losses of one slot that comes and goes", n)
	}
}

// TestAgentGoesOnWithItsBreakPoints: two runs of the loop, with the files between them.
func TestAgentGoesOnWithItsBreakPoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		buckets, dir := store.NewMemories(), t.TempDir()
		var ended []time.Time
		var closed map[string]uint64
		run := func(then func()) {
			ctx, cancel := context.WithCancel(t.Context())
			l := NewLoop(Config{
				Name: "s2", Link: netip.MustParsePrefix("10.3.2.0/24"), Serve: []string{"web"}, StateDir: dir, Keep: true, Settle: settle,
				Services: store.Static([]service.Service{breaking()}), Plane: dataplane.NewFakeAgent(), Joiner: brokenJoiner{make(chan error)},
				Buckets: &buckets, Announcer: announce.NewFake(),
				Health: func(ctx context.Context, report func(bool, error)) { report(true, nil); <-ctx.Done() },
				Close: func(_ context.Context, _ netip.Addr, _ []dataplane.Port, lost func(netip.AddrPort) bool, how dataplane.Ending) (int, error) {
					if how.Idle > 0 && lost(netip.AddrPortFrom(odd, 1)) {
						ended = append(ended, time.Now())
						return 3, nil
					}
					return 0, nil
				},
				Log: slog.New(slog.DiscardHandler),
			})
			stopped := make(chan error, 1)
			go func() { stopped <- l.Run(ctx) }()
			time.Sleep(time.Second)
			then()
			synctest.Wait() // what ends at this moment is counted
			closed = l.Ended()
			cancel()
			if err := <-stopped; err != nil {
				t.Error(err)
			}
		}
		var lost time.Time
		run(func() {
			for _, a := range followed(allocation(1, s2, s2), allocation(2, s2, s3)) {
				data, err := store.EncodeState("web", store.State{Committed: a})
				if err == nil {
					_, err = buckets.Allocations.Put(t.Context(), "web", data)
				}
				if err != nil {
					t.Fatal(err)
				}
				lost = time.Now()
				time.Sleep(time.Second)
			}
		})
		time.Sleep(10 * time.Second)
		run(func() { time.Sleep(2 * time.Minute) })
		if len(ended) == 0 || ended[0].Sub(lost) != time.Minute {
			t.Errorf("connections end at %v, want after a minute from %v", ended, lost)
		}
		if closed["break"] != uint64(3*len(ended)) || closed["moved"] != 0 {
			t.Errorf("counts %v, want %d at break points", closed, 3*len(ended))
		}
	})
}
