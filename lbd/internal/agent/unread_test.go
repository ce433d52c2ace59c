package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/epoch"
)

// Whoever does not understand the newest allocation takes nobody, not as a standby either, joins with its epoch and without users, and closes
// what is connected. A later one that it understands is executed; what came before it stays past.
func TestUnreadAllocation(t *testing.T) {
	c := listening(t, withStandbys(allocation(1, s2, s3), s3, s2))
	second, later := epoch.Epoch{Term: 1, Number: 3}, start.Add(time.Second)
	actions := c.Unread(start, "web", second)
	apply, ok := actions[0].(Apply)
	if !ok || len(apply.Ceased) != 1 || apply.Ceased[0].Epoch != second {
		t.Fatalf("%+v, want that it has ceased", actions)
	}
	if m := apply.Join[0]; takes(c) != "" || m.Epoch != second || !m.Owner.Empty() || !m.Standby.Empty() {
		t.Errorf("takes %q, joins %+v", takes(c), m)
	}
	if again := c.Unread(start, "web", second); again != nil {
		t.Errorf("told again: %+v", again)
	}
	if c.Owns() && len(c.closings) == 0 {
		t.Error("it still has something to give away")
	}
	closes := 0
	for _, a := range c.Tick(start.Add(settle)) {
		if x, ok := a.(Close); ok && x.Lost(netip.AddrPortFrom(even, 4711)) && x.Lost(netip.AddrPortFrom(odd, 4711)) {
			closes++
		}
	}
	if closes != 1 {
		t.Errorf("%d times all connections are closed, want once", closes)
	}
	turns(c, later, "s3", control.Silent, "")
	for _, a := range c.Tick(later.Add(silence)) {
		if _, ok := a.(Takeover); ok {
			t.Error("it takes over")
		}
	}
	turns(c, later, "s3", control.Available, "")
	c.Committed(later, "web", withStandbys(allocation(2, s2, s2), s1, s3))
	if got := takes(c); got != "" {
		t.Errorf("takes %q by an allocation that was replaced", got)
	}
	c.Committed(later, "web", withStandbys(allocation(4, s2, s2), s1, s3))
	c.Tick(later.Add(settle))
	if got := takes(c); got != "even odd" {
		t.Errorf("takes %q by one that it understands", got)
	}
	if got := c.Unread(later, "web", second); got != nil || takes(c) != "even odd" {
		t.Errorf("%+v by an old one", got)
	}
}
