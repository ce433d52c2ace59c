package leader

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/service"
)

// report tells the leader loads in proportion to what servers own, as each second's reports do, for that long. It returns when epochs
// were committed meanwhile.
func (b *bench) report(d time.Duration, each map[string]float64) (commits []time.Time) {
	for end := b.now.Add(d); b.now.Before(end); {
		counts := b.core.pools["web"].state.Committed.Counts()
		for _, name := range slices.Sorted(maps.Keys(b.up)) {
			load := map[string]alloc.Load{"web": {CPU: each[name] * float64(counts[name]) / 256, Bytes: 1}}
			b.do(b.core.Heard(b.now, []control.Member{{Name: name, Health: control.Available, Loads: load}}))
		}
		before := b.core.pools["web"].state.Committed.Epoch
		b.pass(time.Second)
		if b.core.pools["web"].state.Committed.Epoch != before {
			commits = append(commits, b.now)
		}
	}
	return commits
}

func newLoadBench(t *testing.T) *bench {
	b := newBench(t, "s1", "s2", "s3")
	b.do(b.core.SetServices(b.now, []service.Service{{Name: "web", Slots: alloc.Slots{By: alloc.Suffix, Bits: 8}, Policy: policy.Load}}))
	one := 1 // registrations of a bench have no weight
	for name := range b.up {
		b.do(b.core.SetOperator(b.now, "web", name, Operator{Weight: &one}))
	}
	b.hear(control.Available, "s1", "s2", "s3")
	b.pass(5 * time.Second)
	b.wantOwners("at first", "s1", "s2", "s3")
	return b
}

// TestLoadMovesUsersEachInterval closes the loop: servers of different strength come to equal load by a decision each 10 s, with reasons,
// and then nothing moves any more.
func TestLoadMovesUsersEachInterval(t *testing.T) {
	b := newLoadBench(t)
	strength := map[string]float64{"s1": 2.4, "s2": 1.2, "s3": 1.2}
	began := b.now
	commits := b.report(10*time.Minute, strength)
	if len(commits) < 3 || commits[0].Sub(began) < 7*time.Second {
		t.Fatalf("reallocated at %v after %v", commits, began)
	}
	for i, at := range commits[1:] {
		if d := at.Sub(commits[i]); d < 10*time.Second {
			t.Errorf("%v between two decisions", d)
		}
	}
	if last := commits[len(commits)-1]; b.now.Sub(last) < 5*time.Minute {
		t.Errorf("users move for %v", last.Sub(began))
	}
	got := b.core.pools["web"].state.Committed.Counts()
	if got["s1"] < 50 || got["s1"] > 58 {
		t.Errorf("s1, half as strong, has %d of 256 slots", got["s1"])
	}
	if !strings.HasPrefix(b.reasons[1], "s1 is at 0.8") || !strings.Contains(b.reasons[1], ", mean 0.5") {
		t.Errorf("reasons %q", b.reasons)
	}
}

// TestDeathComesBeforeLoad: the users of a dead server go to their standbys and nobody else moves; the next leader waits an interval.
func TestDeathComesBeforeLoad(t *testing.T) {
	b := newLoadBench(t)
	b.report(6*time.Second, map[string]float64{"s1": 2.4, "s2": 1.2, "s3": 1.2})
	before := b.core.pools["web"].state.Committed
	delete(b.up, "s3")
	b.hear(control.Silent, "s3")
	b.pass(200 * time.Millisecond)
	b.wantOwners("s3 died", "s1", "s2")
	after := b.core.pools["web"].state.Committed
	for slot := range after.Slots.Count() {
		if was, is := before.OwnerOf(slot), after.OwnerOf(slot); was != is && (was != "s3" || is != before.StandbyOf(slot)) {
			t.Errorf("slot %d went from %s to %s", slot, was, is)
		}
	}
	if last := b.reasons[len(b.reasons)-1]; last != "s3 is dead" {
		t.Errorf("reason %q", last)
	}
	b.do(b.core.Lead(b.now, 0, time.Time{}))
	b.pass(time.Minute)
	b.do(b.core.Lead(b.now, 2, b.now.Add(24*time.Hour)))
	began := b.now
	commits := b.report(time.Minute, map[string]float64{"s1": 1.6, "s2": 0.8})
	if len(commits) == 0 || commits[0].Sub(began) < 10*time.Second {
		t.Errorf("the next leader reallocated at %v, it leads since %v", commits, began)
	}
}

// TestPrefixOfTheAbsentIsToldOnce: nobody of its servers is there, its users are shared out, and the operator reads it, as often as that begins.
func TestPrefixOfTheAbsentIsToldOnce(t *testing.T) {
	b := newLoadBench(t)
	b.do(b.core.SetServices(b.now, []service.Service{{
		Name: "web", Slots: alloc.Slots{By: alloc.Suffix, Bits: 8}, Policy: policy.Load,
		Prefixes: []policy.Prefix{{Portion: portion.MustParse("10.9.0.0/16"), Servers: []string{"s3"}}},
	}}))
	b.pass(time.Second)
	if len(b.warnings) != 0 {
		t.Errorf("s3 is there, and yet: %q", b.warnings)
	}
	for times := range 2 {
		delete(b.up, "s3")
		b.hear(control.Silent, "s3")
		b.report(time.Minute, map[string]float64{"s1": 2.4, "s2": 1.2})
		want := "s3 may own nothing now; shared out with the rest: 10.9.0.0/16"
		if len(b.warnings) != times+1 || b.warnings[times] != want {
			t.Errorf("warned %q, want %q %d times", b.warnings, want, times+1)
		}
		b.up["s3"] = true
		b.hear(control.Available, "s3")
		b.pass(time.Minute)
	}
}

// TestJoinsThatNobodyTakesAreToldOnce: three servers cannot join with 65,536 slots; the allocation is made all the same.
func TestJoinsThatNobodyTakesAreToldOnce(t *testing.T) {
	b := newBench(t, "s1", "s2", "s3")
	b.do(b.core.SetServices(b.now, []service.Service{{Name: "web", Slots: alloc.Slots{By: alloc.Suffix, Bits: 16}, Policy: alloc.Equal}}))
	b.hear(control.Available, "s1", "s2", "s3")
	b.pass(10 * time.Second)
	b.wantOwners("nobody else is there", "s1", "s2", "s3")
	if len(b.warnings) != 1 || !strings.HasPrefix(b.warnings[0], "joins of too many portions: with 65536 slots s1 needs ") {
		t.Errorf("warned %q", b.warnings)
	}
}

// TestLoadIsNoNews: thousands of renewals a second carry loads.
func TestLoadIsNoNews(t *testing.T) {
	b := newLoadBench(t)
	r := Registration{Service: "web", Server: "s1", Healthy: true, BootID: 1}
	b.core.Register(b.now, r, b.revision+1)
	r.Load = &alloc.Load{CPU: 0.5}
	p := b.core.pools["web"]
	if p.register(b.now, r, b.revision+2) {
		t.Error("a new load is news")
	}
	if got := p.loads()["s1"].CPU; got != 0.5 {
		t.Errorf("the load of s1 is taken for %v", got)
	}
	b.do(b.core.Heard(b.now, []control.Member{{Name: "s1", Health: control.Available, Loads: map[string]alloc.Load{"web": {CPU: 0.7}}}}))
	if got := p.loads()["s1"].CPU; got != 0.7 {
		t.Errorf("the load of s1 on the channel is taken for %v", got)
	}
}

// TestWishesAreHeardBetweenDecisions: a server that asks for a portion each other second, as its reports come each second, does not get it; one that asks
// for it all the time does, and keeps it though its last report before a decision does not say so. When it dies its standby has it until it is back.
func TestWishesAreHeardBetweenDecisions(t *testing.T) {
	b := newLoadBench(t)
	b.do(b.core.SetServices(b.now, []service.Service{{Name: "web", Slots: alloc.Slots{By: alloc.Suffix, Bits: 8}, Policy: policy.Wanted}}))
	say := func(name string, health control.Health, wanted ...string) {
		l := alloc.Load{CPU: 0.5}
		for _, text := range wanted {
			l.Wanted = append(l.Wanted, portion.MustParse(text))
		}
		b.do(b.core.Heard(b.now, []control.Member{{Name: name, Health: health, Loads: map[string]alloc.Load{"web": l}}}))
	}
	const steady, flips = "10.1.0.0/16", "10.2.0.0/16"
	owners := func() map[string]string {
		a, out := b.core.pools["web"].state.Committed, map[string]string{}
		for i, q := range a.Fixed {
			out[q.String()] = a.OwnerOf(a.Slots.Count() + i)
		}
		return out
	}
	pass := func(seconds int, s1 ...string) {
		for second := range seconds {
			if b.up["s1"] {
				say("s1", control.Available, s1...)
			}
			if second%2 == 0 {
				say("s2", control.Available, flips)
			} else {
				say("s2", control.Available)
			}
			b.pass(time.Second)
		}
	}
	pass(60, steady)
	if got := owners(); len(got) != 1 || got[steady] != "s1" {
		t.Fatalf("fixed are %v", got)
	}
	for range 40 { // seven seconds are no divisor of an interval
		say("s1", control.Available)
		b.pass(time.Second)
		pass(6, steady)
	}
	if got := owners(); len(got) != 1 || got[steady] != "s1" {
		t.Errorf("after short silences fixed are %v", got)
	}
	a := b.core.pools["web"].state.Committed
	standby := a.StandbyOf(a.Slots.Count())
	delete(b.up, "s1")
	b.hear(control.Silent, "s1")
	say("s1", control.Silent, steady)
	pass(30)
	if got := owners(); got[steady] != standby {
		t.Errorf("s1 is dead, %s stands by, fixed are %v", standby, got)
	}
	b.up["s1"] = true
	pass(60, steady)
	if got := owners(); got[steady] != "s1" {
		t.Errorf("s1 is back, fixed are %v", got)
	}
	pass(60)
	if got := owners(); len(got) != 0 {
		t.Errorf("nobody asks any more, fixed are %v", got)
	}
}
