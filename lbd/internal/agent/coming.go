package agent

import (
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
)

// coming is an allocation that is announced, and not executed yet.
type coming struct {
	next     alloc.Allocation
	previous alloc.Allocation // what it replaces
	expires  time.Time        // then it is given up
	ceased   map[string]bool  // losers that have executed it already: the commit has yet to come here
}

// expectFor is how long an announced epoch is expected: longer than a leader waits for everybody.
const expectFor = 2 * time.Second

// expect remembers an announced epoch and what it replaces.
func (c *Core) expect(now time.Time, name string, next, previous alloc.Allocation) {
	if k, some := c.coming[name]; !some || k.next.Epoch.Less(next.Epoch) {
		c.coming[name] = coming{next: next, previous: previous, expires: now.Add(expectFor), ceased: map[string]bool{}}
	}
}

// expected is what is announced to follow a; zero: nothing.
func (c *Core) expected(name string, a alloc.Allocation) alloc.Allocation {
	if k := c.coming[name]; a.Epoch.Less(k.next.Epoch) {
		return k.next
	}
	return alloc.Allocation{}
}

// came ends the waiting for what is executed now, and returns it; the zero one where it was not announced.
func (c *Core) came(name string, e epoch.Epoch) coming {
	k := c.coming[name]
	if !e.Less(k.next.Epoch) {
		delete(c.coming, name)
	}
	if k.next.Epoch != e {
		return coming{}
	}
	return k
}

// giveUp forgets what was announced and not committed in time, and reports whether there was any.
func (c *Core) giveUp(now time.Time) (some bool) {
	for name, k := range c.coming {
		if !now.Before(k.expires) {
			delete(c.coming, name)
			some = true
		}
	}
	return some
}
