package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/service"
)

// lateLoser is the core of s2 that has won odd users of s3, its neighbour, and even ones of s1, which is elsewhere. s3 has not said that it has ceased.
func lateLoser(t *testing.T, mode string) *Core {
	t.Helper()
	c := listening(t, allocation(1, s1, s3))
	s := web
	s.Mode = mode
	c.SetServices(start, []service.Service{s})
	c.Announced(start, "web", allocation(2, s2, s2), allocation(1, s1, s3))
	if early := c.Committed(start, "web", allocation(2, s2, s2)); early != nil {
		t.Errorf("at the commit: %+v", early)
	}
	return c
}

// TestLateLoserHasItsUsersOn: two would answer on the link. What is won of others is taken meanwhile.
func TestLateLoserHasItsUsersOn(t *testing.T) {
	e := allocation(2, s2, s2).Epoch
	for what, end := range map[string]func(*Core) []Action{
		"it says that it has ceased": func(c *Core) []Action { return c.CeasedBy("web", e, "s3") },
		"it falls silent":            func(c *Core) []Action { return turns(c, start.Add(settle), "s3", control.Silent, "") },
		"it says that it is unwell":  func(c *Core) []Action { return turns(c, start.Add(settle), "s3", control.Unwell, "fenced") },
		"nothing, for long":          func(c *Core) []Action { return c.Tick(start.Add(latePatience)) },
	} {
		t.Run(what, func(t *testing.T) {
			c := lateLoser(t, service.Multicast)
			if at := c.Next(); !at.Equal(start.Add(settle / 2)) {
				t.Errorf("looks at %v", at)
			}
			half := c.Tick(start.Add(settle / 2))
			if took := accepted(t, half); !took.Contains(even) || took.Contains(odd) {
				t.Errorf("after half of settle: takes %v, want even users alone", took)
			}
			if k := keptBy(t, half); k.Allocation.Epoch != e || dones(half) != 0 {
				t.Errorf("after half of settle: %+v, want it kept, and no Done", half)
			}
			c.Tick(start.Add(runOn)) // in which routers may be late
			if at := c.Next(); !at.Equal(start.Add(latePatience)) {
				t.Errorf("looks again at %v", at)
			}
			if c.Tick(start.Add(latePatience - 1)); takes(c) != "even " {
				t.Errorf("takes %q, and s3 is heard", takes(c))
			}
			after := end(c)
			if dones(after) != 1 || takes(c) != "even odd" {
				t.Errorf("then: takes %q: %+v", takes(c), after)
			}
			if at := c.Next(); !at.IsZero() && !at.After(start.Add(latePatience)) {
				t.Errorf("looks again at %v", at)
			}
		})
	}
}

// TestLoserThatIsNotHeardIsNotLate: nor is one of mode tags, where routers bring users to one server alone.
func TestLoserThatIsNotHeardIsNotLate(t *testing.T) {
	c := lateLoser(t, service.Multicast)
	turns(c, start, "r1", control.Silent, "")
	turns(c, start, "s1", control.Silent, "")
	turns(c, start, "s3", control.Silent, "") // nobody is heard: it may live, and could not be heard to cease
	if c.Tick(start.Add(settle / 2)); takes(c) != "even odd" {
		t.Errorf("hears nobody: takes %q, want all", takes(c))
	}
	c = lateLoser(t, service.Tags)
	if c.Tick(start.Add(settle / 2)); takes(c) != "even odd" {
		t.Errorf("tags: takes %q, want all", takes(c))
	}
}

// TestLateLoserByTheLeadersWord: without a channel. Who is not in the allocation has left, or is dead.
func TestLateLoserByTheLeadersWord(t *testing.T) {
	for _, isThere := range []bool{true, false} {
		c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
		c.SetServices(start, []service.Service{web})
		c.Committed(start, "web", allocation(1, s1, s3))
		next := allocation(2, s1, s2)
		if !isThere {
			next.Servers, next.Addresses = next.Servers[:2], next.Addresses[:2]
		}
		c.Committed(start, "web", next)
		if got := c.Tick(start.Add(settle / 2)); accepted(t, got).Contains(odd) == isThere {
			t.Errorf("s3 in the allocation: %t; takes %v", isThere, accepted(t, got))
		}
		if c.CeasedBy("web", next.Epoch, "s3"); takes(c) != "odd" {
			t.Errorf("s3 has ceased: takes %q", takes(c))
		}
	}
}

// TestNextEpochDoesNotForgetALateLoser, whatever it gives to whom.
func TestNextEpochDoesNotForgetALateLoser(t *testing.T) {
	c := lateLoser(t, service.Multicast)
	c.Tick(start.Add(settle / 2))
	now := start.Add(settle)
	c.Announced(now, "web", allocation(3, s1, s2), allocation(2, s2, s2))
	if takes(c) != "even " {
		t.Errorf("announced: takes %q, want even users alone", takes(c))
	}
	c.Committed(now, "web", allocation(3, s1, s2))
	if c.Tick(now.Add(settle)); takes(c) != "" {
		t.Errorf("executed: takes %q, want nobody: odd users are s3's yet", takes(c))
	}
	if c.CeasedBy("web", allocation(1, s2, s2).Epoch, "s3"); takes(c) != "" {
		t.Errorf("an old word: takes %q", takes(c))
	}
	if c.CeasedBy("web", allocation(3, s1, s2).Epoch, "s3"); takes(c) != "odd" {
		t.Errorf("s3 has executed the third, and not the second: takes %q", takes(c))
	}

	c = lateLoser(t, service.Multicast)
	c.Committed(start, "web", allocation(3, s3, s2))
	c.Committed(start, "web", allocation(4, s2, s2)) // even users had come and gone
	if c.Tick(start.Add(settle)); takes(c) != "" {
		t.Errorf("takes %q: s3 may have both", takes(c))
	}
	if c.CeasedBy("web", allocation(2, s2, s2).Epoch, "s3"); takes(c) != "odd" {
		t.Errorf("takes %q, want odd users alone: s3 has executed the second epoch", takes(c))
	}
	if c.Tick(start.Add(latePatience)); takes(c) != "even odd" {
		t.Errorf("takes %q in the end", takes(c))
	}
}

// TestCommitsWithoutALoserChangeNothing of the time in which one is waited for.
func TestCommitsWithoutALoserChangeNothing(t *testing.T) {
	c := lateLoser(t, service.Multicast)
	for n := uint64(3); n < 6; n++ {
		c.Committed(start.Add(time.Millisecond), "web", allocation(n, s2, s2))
	}
	if n := len(c.begins["web"]); n != 1 {
		t.Errorf("waits %d times", n)
	}
}
