package agent

import (
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/store"
)

// loss is one of a service's, the oldest first. What ends the connections of its users later goes by it, over a restart, too.
type loss struct {
	store.Loss
	planned bool // it is among the closings
}

// lossesMost bounds what is kept of a service. Users of an older loss go by the next one.
const lossesMost = 256

// restored takes the losses of an earlier run. A clock that has been set back makes nobody wait longer than since now.
func restored(now time.Time, losses []store.Loss) []loss {
	var out []loss
	for _, l := range losses[max(len(losses)-lossesMost, 0):] {
		if l.At.After(now) {
			l.At = now
		}
		out = append(out, loss{Loss: l})
	}
	return out
}

// lose notes that users were lost who were this server's until then.
func (c *Core) lose(now time.Time, name string, until epoch.Epoch) {
	all := append(c.needed(name), loss{Loss: store.Loss{Until: until, At: now}})
	c.losses[name] = all[max(len(all)-lossesMost, 0):]
	c.plan(name)
}

// loseUnnoticed notes it of users whom this server had by an allocation's trail and lost unnoticed, while it was not there: since now at the
// latest.
func (c *Core) loseUnnoticed(now time.Time, name string) (some bool) {
	if s := c.specs[name]; !keeps(s, c.current(name)) {
		return false
	}
	var last epoch.Epoch
	for _, chain := range c.current(name).Trail.Chains {
		for _, until := range []epoch.Epoch{chain.Until(c.name), chain.Cut} {
			if last.Less(until) {
				last = until
			}
		}
	}
	for _, l := range c.losses[name] {
		if !l.Until.Less(last) {
			return false
		}
	}
	if last == (epoch.Epoch{}) {
		return false
	}
	c.lose(now, name, last)
	return true
}

// needed are the losses by which connections of former users may yet end.
func (c *Core) needed(name string) []loss {
	all, need, a := c.losses[name], map[int]bool{}, c.current(name)
	since := func(until epoch.Epoch) int {
		return slices.IndexFunc(all, func(l loss) bool { return !l.Until.Less(until) })
	}
	for _, chain := range a.Trail.Chains {
		if chain.Has(c.name) || chain.Cut != (epoch.Epoch{}) {
			need[since(chain.Until(c.name))] = true
		}
	}
	need[since(a.Epoch)] = true // of users for whom it has stood in
	var out []loss
	for i, l := range all {
		if need[i] {
			out = append(out, l)
		}
	}
	return out
}

// plan has the connections end that this server keeps of users whom it lost: at the deadline, where they could only have been transferred, and
// at their break points.
func (c *Core) plan(name string) {
	s, known := c.specs[name]
	if !known {
		return
	}
	h := s.Handover
	for i, l := range c.losses[name] {
		if l.planned {
			continue
		}
		c.losses[name][i].planned = true
		if h.Has(service.Transfer) && !h.Has(service.Forward) && !h.Has(service.Pin) {
			c.closings = append(c.closings, closing{service: name, all: true, until: l.Until, at: l.At.Add(h.Deadline + c.settle)})
		}
		if h.Break > 0 {
			c.closings = append(c.closings, closing{service: name, all: true, until: l.Until, breaks: true, at: l.At.Add(h.Break)})
		}
	}
}

// keep puts on disk what a restart has to know of a service.
func (c *Core) keep(name string, a alloc.Allocation) Keep {
	k := Keep{Service: name, Allocation: a}
	for _, l := range c.losses[name] {
		k.Losses = append(k.Losses, l.Loss)
	}
	return k
}
