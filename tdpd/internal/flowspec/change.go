package flowspec

import (
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// Change leads from rules that are at the neighbors to those that are wanted, a step at a time. What is wanted anew meanwhile waits for the steps
// that were begun, which are few. Not safe for concurrent use.
type Change struct {
	most     int
	patience time.Duration

	rules   []bgp.FlowRule // that the speaker is to have
	steps   [][]bgp.FlowRule
	wanted  []bgp.FlowRule
	behind  bool      // wanted is not what the steps lead to
	begun   time.Time // of the step; zero: it is at the neighbors
	skipped int
}

// NewChange begins without rules. There are never more than most. A step that is not at the neighbors after the patience, which is more than
// none, is followed by the next all the same: one neighbor that takes nothing must not keep the others' users at a server that is gone.
func NewChange(most int, patience time.Duration) *Change {
	return &Change{most: most, patience: patience}
}

// Rules are what the speaker is to have now.
func (c *Change) Rules() []bgp.FlowRule { return c.rules }

// Want says which rules there are to be in the end; true: Rules has changed.
func (c *Change) Want(now time.Time, rules []bgp.FlowRule) bool {
	rules = slices.Clone(rules)
	slices.SortFunc(rules, compareRules)
	c.wanted, c.behind = rules, true
	return c.next(now)
}

// Told says that all neighbors have been told Rules; true: Rules has changed.
func (c *Change) Told(now time.Time) bool {
	c.begun = time.Time{}
	return c.next(now)
}

// Tick lets time pass; true: Rules has changed.
func (c *Change) Tick(now time.Time) bool {
	if due := c.Next(); due.IsZero() || now.Before(due) {
		return false
	}
	c.skipped++
	return c.Told(now)
}

// Next is when Tick has something to do; zero: never.
func (c *Change) Next() time.Time {
	if c.begun.IsZero() {
		return time.Time{}
	}
	return c.begun.Add(c.patience)
}

// Skipped is how many steps were followed by the next before all neighbors had them.
func (c *Change) Skipped() int { return c.skipped }

// Done says whether the neighbors have what is wanted.
func (c *Change) Done() bool { return c.begun.IsZero() && len(c.steps) == 0 && !c.behind }

func (c *Change) next(now time.Time) bool {
	if !c.begun.IsZero() {
		return false
	}
	if len(c.steps) == 0 && c.behind {
		c.steps, c.behind = Steps(c.rules, c.wanted, c.most), false
	}
	if len(c.steps) == 0 {
		return false
	}
	c.rules, c.steps, c.begun = c.steps[0], c.steps[1:], now
	return true
}
