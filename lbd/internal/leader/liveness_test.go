package leader

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
)

// bench is a leading Core whose saves all succeed and whose agents are all prepared; servers renew while they are up.
type bench struct {
	t        *testing.T
	core     *Core
	now      time.Time
	revision uint64
	up       map[string]bool // renews its registration
	warnings []string
	reasons  []string
}

const benchSilence = 250 * time.Millisecond

func newBench(t *testing.T, servers ...string) *bench {
	b := &bench{t: t, core: NewCore(Timing{}), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), up: map[string]bool{}}
	b.core.Channel(b.now, benchSilence, "")
	b.core.Watching(b.now)
	b.do(b.core.AllStored(b.now))
	b.do(b.core.SetServices(b.now, []service.Service{{Name: "web", Slots: alloc.Slots{By: alloc.Suffix, Bits: 4}, Policy: alloc.Equal}}))
	b.do(b.core.Lead(b.now, 1, b.now.Add(24*time.Hour)))
	for _, s := range servers {
		b.up[s] = true
	}
	return b
}

// do carries the actions out.
func (b *bench) do(actions []Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case Save:
			b.revision++
			b.do(b.core.Saved(b.now, a, b.revision))
		case Send:
			if m, ok := a.Message.(announce.Announce); ok {
				for name := range b.up {
					b.do(b.core.Message(b.now, announce.Prepared{Service: "web", Epoch: m.Allocation.Epoch, Server: name}))
				}
			}
			if m, ok := a.Message.(announce.Commit); ok {
				for name := range b.up {
					b.do(b.core.Message(b.now, announce.Done{Service: "web", Epoch: m.Allocation.Epoch, Server: name}))
				}
			}
		case Record:
			b.reasons = append(b.reasons, a.Move.Reason)
		case Warn:
			b.warnings = append(b.warnings, a.Text)
		}
	}
}

// pass lets time pass in ticks of 50 ms, with renewals each 500 ms.
func (b *bench) pass(d time.Duration) {
	for end := b.now.Add(d); b.now.Before(end); {
		b.now = b.now.Add(50 * time.Millisecond)
		if b.now.UnixMilli()%500 == 0 {
			for name, up := range b.up {
				b.revision++
				if up {
					b.do(b.core.Register(b.now, Registration{Service: "web", Server: name, Healthy: true, BootID: 1}, b.revision))
				}
			}
		}
		b.do(b.core.Tick(b.now))
	}
}

func (b *bench) hear(h control.Health, names ...string) {
	for _, name := range names {
		b.do(b.core.Heard(b.now, []control.Member{{Name: name, Health: h}}))
	}
}

// wantOwners checks who has users.
func (b *bench) wantOwners(what string, names ...string) {
	b.t.Helper()
	if got := b.core.pools["web"].state.Committed.Servers; !slices.Equal(got, names) {
		b.t.Fatalf("%s: users are with %v, want %v (moves %q)", what, got, names, b.reasons)
	}
}

func TestRegistrationAloneProvesNothing(t *testing.T) {
	b := newBench(t, "s1", "s2", "s3")
	b.hear(control.Available, "r1", "s1", "s2")
	b.pass(10 * time.Second)
	b.wantOwners("s3 was never heard", "s1", "s2")
	b.hear(control.Available, "s3")
	b.pass(3 * time.Second)
	b.wantOwners("s3 is heard", "s1", "s2", "s3")
}

func TestSilentServerIsDeadAtOnce(t *testing.T) {
	for what, h := range map[string]control.Health{"silent": control.Silent, "unwell": control.Unwell} {
		b := newBench(t, "s1", "s2", "s3")
		b.hear(control.Available, "r1", "s1", "s2", "s3")
		b.pass(5 * time.Second)
		b.wantOwners("all well", "s1", "s2", "s3")
		b.hear(h, "s2")
		b.pass(benchSilence/2 + 50*time.Millisecond)
		b.wantOwners("s2 is "+what, "s1", "s3")
		b.hear(control.Available, "s2")
		b.pass(3 * time.Second)
		b.wantOwners("s2 is back", "s1", "s2", "s3")
	}
}

// TestRestartsAreWaitedFor: who restarts as planned serves its users, and cannot prepare for anything else.
func TestRestartsAreWaitedFor(t *testing.T) {
	says := func(b *bench, paused time.Time) {
		b.do(b.core.Heard(b.now, []control.Member{{Name: "s2", Health: control.Available, Paused: paused}}))
	}
	for _, back := range []bool{true, false} {
		b := newBench(t, "s1", "s2", "s3")
		b.hear(control.Available, "s1", "s2", "s3")
		b.pass(5 * time.Second)
		b.wantOwners("at first", "s1", "s2", "s3")
		says(b, b.now.Add(4*time.Second))
		b.do(b.core.SetOperator(b.now, "web", "s1", Operator{Drained: true}))
		b.pass(3 * time.Second)
		b.wantOwners("while s2 restarts", "s1", "s2", "s3")
		if back {
			says(b, time.Time{})
			b.pass(100 * time.Millisecond)
			b.wantOwners("s2 is back", "s2", "s3")
			continue
		}
		b.pass(1050 * time.Millisecond)
		b.wantOwners("s2 has had its time", "s2", "s3")
	}

	b := newBench(t, "s1", "s2", "s3")
	b.hear(control.Available, "s1", "s2", "s3")
	b.pass(5 * time.Second)
	delete(b.up, "s2") // so that it does not prepare
	b.do(b.core.SetOperator(b.now, "web", "s1", Operator{Drained: true}))
	says(b, b.now.Add(4*time.Second))
	b.pass(3 * time.Second)
	b.wantOwners("s2 restarts in the midst of it", "s1", "s2", "s3")
	if len(b.warnings) != 0 {
		t.Errorf("warns of %q", b.warnings)
	}
}

func TestDeafLeaderKillsNobody(t *testing.T) {
	b := newBench(t, "s1", "s2", "s3")
	b.hear(control.Available, "r1", "s1", "s2", "s3")
	b.pass(5 * time.Second)
	for _, name := range []string{"s2", "r1", "s1", "s3"} { // one after the other, each heartbeat being 50 ms apart
		b.now = b.now.Add(25 * time.Millisecond)
		b.hear(control.Silent, name)
	}
	b.pass(time.Minute)
	b.wantOwners("the leader is deaf", "s1", "s2", "s3")
	if len(b.warnings) != 1 {
		t.Errorf("warned %q, want once", b.warnings)
	}
	delete(b.up, "s1")
	b.pass(3 * time.Second)
	b.wantOwners("s1 does not renew", "s2", "s3")

	b.hear(control.Available, "r1") // and the others a report later
	b.pass(time.Second)
	b.hear(control.Available, "s2", "s3")
	b.pass(time.Minute)
	b.wantOwners("the leader hears again", "s2", "s3")
	if want := []string{"first allocation", "s1 is dead"}; !slices.Equal(b.reasons, want) {
		t.Errorf("moves %q, want %q", b.reasons, want)
	}
}

func TestAllDeadKeepTheLastAllocation(t *testing.T) {
	b := newBench(t, "s1", "s2")
	b.hear(control.Available, "r1", "s1", "s2")
	b.pass(5 * time.Second)
	b.hear(control.Silent, "s1", "s2")
	b.up = map[string]bool{}
	b.pass(time.Minute)
	b.wantOwners("all are dead", "s1", "s2")
}

// TestNewLeaderWaitsToHear: it must not take for dead whom it had no time to hear.
func TestNewLeaderWaitsToHear(t *testing.T) {
	old := newBench(t, "s1", "s2", "s3")
	old.hear(control.Available, "r1", "s1", "s2", "s3")
	old.pass(5 * time.Second)

	b := newBench(t, "s1", "s2", "s3")
	b.do(b.core.Stored(b.now, "web", 1, old.core.pools["web"].state))
	b.hear(control.Available, "r1", "s1")
	b.pass(time.Second)
	b.hear(control.Available, "s2")
	b.pass(time.Second)
	b.hear(control.Available, "s3")
	b.pass(time.Minute)
	b.wantOwners("all are heard", "s1", "s2", "s3")
	if len(b.reasons) != 0 {
		t.Errorf("moves %q", b.reasons)
	}
}

// TestServersFindTheBusOneAfterTheOther: a bus that was down forgets its registrations, and each agent is back in its own time. Who is heard to
// serve meanwhile keeps its users; who is not heard is not waited for, nor is for ever who does not come.
func TestServersFindTheBusOneAfterTheOther(t *testing.T) {
	old := newBench(t, "s1", "s2", "s3", "s4")
	old.hear(control.Available, "r1", "s1", "s2", "s3", "s4")
	old.pass(5 * time.Second)
	began := func(heard ...string) *bench {
		b := newBench(t, "s1")
		b.do(b.core.Stored(b.now, "web", 1, old.core.pools["web"].state))
		b.hear(control.Available, append(heard, "r1", "s1", "s2", "s3")...)
		b.pass(4 * time.Second)
		return b
	}
	b := began("s4")
	b.up["s2"] = true
	b.pass(3 * time.Second)
	b.wantOwners("two are back", "s1", "s2", "s3", "s4")
	b.up["s3"], b.up["s4"] = true, true
	b.pass(time.Minute)
	if b.wantOwners("all are back", "s1", "s2", "s3", "s4"); len(b.reasons) != 0 {
		t.Errorf("moves %q", b.reasons)
	}

	b = began("s4")
	b.up["s2"], b.up["s3"] = true, true
	b.pass(7 * time.Second)
	b.wantOwners("s4 is heard, and does not come", "s1", "s2", "s3")

	b = began()
	b.up["s2"], b.up["s3"] = true, true
	b.pass(time.Second)
	b.wantOwners("s4 is neither heard nor registered", "s1", "s2", "s3")
}

func TestFlappingServerIsKeptOut(t *testing.T) {
	b := newBench(t, "s1", "s2", "s3")
	b.hear(control.Available, "r1", "s1", "s2", "s3")
	b.pass(5 * time.Second)
	for i, out := range []time.Duration{0, 10 * time.Second, 20 * time.Second} {
		what := fmt.Sprintf("death %d", i+1)
		b.hear(control.Silent, "s2")
		b.pass(500 * time.Millisecond)
		b.wantOwners(what, "s1", "s3")
		b.hear(control.Available, "s2")
		if out > 0 {
			b.pass(out - time.Second)
			b.wantOwners(what+", dampened", "s1", "s3")
		}
		b.pass(3 * time.Second)
		b.wantOwners(what+", back", "s1", "s2", "s3")
	}

	b.pass(30 * time.Minute)
	b.hear(control.Silent, "s2")
	b.pass(500 * time.Millisecond)
	b.hear(control.Available, "s2")
	b.pass(3 * time.Second)
	b.wantOwners("forgotten", "s1", "s2", "s3")
}

func TestDampenedServerIsBetterThanNone(t *testing.T) {
	b := newBench(t, "s1", "s2")
	b.hear(control.Available, "r1", "s1", "s2")
	b.pass(5 * time.Second)
	for range 4 {
		b.hear(control.Silent, "s2")
		b.pass(time.Second)
		b.hear(control.Available, "s2")
		b.pass(time.Minute)
	}
	b.hear(control.Silent, "s2")
	b.pass(time.Second)
	b.hear(control.Available, "s2")
	b.pass(time.Second)
	b.wantOwners("s2 is dampened", "s1")
	b.hear(control.Silent, "s1")
	b.pass(3 * time.Second)
	b.wantOwners("there is nobody else", "s2")
}

func TestTakeoverFromOneWhoIsHeard(t *testing.T) {
	b := newBench(t, "s1", "s2", "s3")
	b.hear(control.Available, "r1", "s1", "s2", "s3")
	b.pass(5 * time.Second)
	b.do(b.core.TakenOver(b.now, announce.Takeover{Service: "web", From: "s2", By: "r1"}))
	b.pass(time.Second)
	b.wantOwners("r1 stands by for nobody", "s1", "s2", "s3")
	b.do(b.core.TakenOver(b.now, announce.Takeover{Service: "web", From: "s2", By: "s1"}))
	b.pass(time.Second)
	b.wantOwners("s1 serves in the stead of s2", "s1", "s3")
}

func TestOwnServerIsHeardByTheBusAlone(t *testing.T) {
	b := newBench(t, "s1", "s2")
	b.core.Channel(b.now, benchSilence, "s1")
	b.hear(control.Available, "r1", "s2")
	b.pass(5 * time.Second)
	b.wantOwners("s1 is the leader's own", "s1", "s2")
}

// TestStalledLeaderKillsNobody: it knows nothing of anybody for a while.
func TestStalledLeaderKillsNobody(t *testing.T) {
	b := newBench(t, "s1", "s2")
	b.hear(control.Available, "r1", "s1", "s2")
	b.pass(5 * time.Second)
	b.hear(control.Unknown, "s1", "r1", "s2")
	b.pass(time.Second)
	b.hear(control.Available, "s1", "r1", "s2")
	b.pass(time.Second)
	b.wantOwners("after a stall", "s1", "s2")
	if len(b.reasons) != 1 {
		t.Errorf("moves %q", b.reasons)
	}
}
