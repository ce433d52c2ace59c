package leader_test

import (
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/leader"
)

// TestSlowBusKillsNobody: after a stall of the leader the renewals come one after the other, with ticks between them.
func TestSlowBusKillsNobody(t *testing.T) {
	now, revision := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), uint64(1)
	c := leader.NewCore(leader.Timing{})
	c.Watching(now)
	c.AllStored(now)
	c.SetServices(now, []service.Service{{Name: "web", Slots: alloc.Slots{By: alloc.Suffix, Bits: 4}, Policy: alloc.Equal}})
	renew := func(server string) (actions []leader.Action) {
		revision++
		return c.Register(now, leader.Registration{Service: "web", Server: server, Healthy: true, BootID: 1}, revision)
	}
	c.Lead(now, 1, now.Add(time.Hour))
	for range 4 {
		now = now.Add(500 * time.Millisecond)
		renew("s1")
		renew("s2")
	}
	begun := c.Tick(now.Add(time.Second))
	if len(begun) != 1 {
		t.Fatalf("%+v, want a first allocation to be saved", begun)
	}
	save, ok := begun[0].(leader.Save)
	if !ok {
		t.Fatalf("%+v, want a first allocation to be saved", begun)
	}
	save.State.Committed, save.State.Prepared = save.State.Prepared, alloc.Allocation{}
	if more := c.Loaded(now, "web", 1, save.State); len(more) != 0 {
		t.Fatalf("%+v, want nothing more to do", more)
	}

	stall := 4 * time.Second
	now = now.Add(stall)
	c.Missed(now, stall)
	actions := renew("s1")
	actions = append(actions, c.Tick(now)...)
	actions = append(actions, renew("s2")...)
	if actions = append(actions, c.Tick(now)...); len(actions) != 0 {
		t.Errorf("%+v, though nobody has died", actions)
	}
	for range 6 {
		now = now.Add(500 * time.Millisecond)
		actions = append(actions, renew("s1")...)
	}
	if len(append(actions, c.Tick(now)...)) == 0 {
		t.Error("s2 is silent, but not dead")
	}
}

// announced is a core that has just announced a first allocation of s1 and s2.
func announced(t *testing.T) (c *leader.Core, now time.Time, e epoch.Epoch) {
	t.Helper()
	now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c = leader.NewCore(leader.Timing{DeadAfter: time.Hour})
	c.Watching(now)
	c.AllStored(now)
	c.SetServices(now, []service.Service{{Name: "web", Slots: alloc.Slots{By: alloc.Suffix, Bits: 4}, Policy: alloc.Equal}})
	c.Lead(now, 1, now.Add(time.Hour))
	for revision := range uint64(4) {
		server := []string{"s1", "s2"}[revision%2]
		c.Register(now, leader.Registration{Service: "web", Server: server, Healthy: true, BootID: 1}, revision+1)
	}
	now = now.Add(2 * time.Second)
	save, ok := c.Tick(now)[0].(leader.Save)
	if !ok {
		t.Fatal("no first allocation")
	}
	if actions := c.Saved(now, save, 1); len(actions) != 1 {
		t.Fatalf("%+v, want an announcement", actions)
	}
	return c, now, save.State.Prepared.Epoch
}

// TestLateLeaderReadsAnswers: what agents answered while the leader was not run has yet to be read.
func TestLateLeaderReadsAnswers(t *testing.T) {
	for _, from := range []time.Duration{0, 400 * time.Millisecond, 499 * time.Millisecond} {
		c, now, e := announced(t)
		c.Tick(now.Add(from)) // perhaps it is said again
		now = now.Add(from + 4*time.Second)
		c.Missed(now, 4*time.Second-50*time.Millisecond)
		for _, read := range []time.Duration{0, 49 * time.Millisecond} {
			for _, action := range c.Tick(now.Add(read)) {
				if _, is := action.(leader.Warn); is {
					t.Errorf("a stall from %v on: %+v, %v after it", from, action, read)
				}
			}
		}
		c.Message(now, announce.Prepared{Service: "web", Epoch: e, Server: "s1"})
		actions := c.Message(now, announce.Prepared{Service: "web", Epoch: e, Server: "s2"})
		if len(actions) != 1 {
			t.Fatalf("a stall from %v on: %+v, want a commit", from, actions)
		}
		if save, is := actions[0].(leader.Save); !is || save.State.Committed.Epoch != e {
			t.Errorf("a stall from %v on: %+v, want a commit", from, actions)
		}
	}
}

// TestLateLeaderWaitsForNobodyForEver: each stall is given back, and the time to read once.
func TestLateLeaderWaitsForNobodyForEver(t *testing.T) {
	c, now, e := announced(t)
	c.Message(now, announce.Prepared{Service: "web", Epoch: e, Server: "s1"})
	awake := time.Duration(0)
	for range 100 {
		now, awake = now.Add(150*time.Millisecond), awake+50*time.Millisecond
		c.Missed(now, 100*time.Millisecond)
		for _, action := range c.Tick(now) {
			if _, is := action.(leader.Warn); is {
				if awake < 500*time.Millisecond || awake > 600*time.Millisecond {
					t.Errorf("s2 is dead after %v in which the leader was run, want 500 ms", awake)
				}
				return
			}
		}
	}
	t.Error("s2 has not prepared, and is waited for for ever")
}
