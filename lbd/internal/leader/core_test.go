package leader_test

import (
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/service"
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
	c.Missed(stall)
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
