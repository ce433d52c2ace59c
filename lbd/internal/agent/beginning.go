package agent

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
)

// beginning is the winner's side of a move on one link, where loser and winner both see the users' packets: the winner takes
// nothing of its losers until all have ceased, and begins in one step. It knows of the move from the announcement, as a new server knows no allocation before.
type beginning struct {
	epoch    epoch.Epoch
	next     alloc.Allocation // as announced; zero once it is executed, or given up
	expires  time.Time        // then it is given up
	previous alloc.Allocation // what the epoch replaces; zero: not known
	ceased   map[string]bool  // losers that have said so, perhaps before the commit came here
	losers   map[string]bool  // set at the commit; those on this link that have not
	until    time.Time        // then a loser that has not answered is taken for dead
}

func (b *beginning) waits() bool { return b != nil && len(b.losers) > 0 }

// expectFor is how long an announced epoch is expected: longer than a leader waits for everybody.
const expectFor = 2 * time.Second

// expect remembers an announced epoch and what it replaces.
func (c *Core) expect(now time.Time, name string, next, previous alloc.Allocation) {
	if b := c.begins[name]; b == nil || b.epoch.Less(next.Epoch) {
		c.begins[name] = &beginning{epoch: next.Epoch, next: next, expires: now.Add(expectFor), previous: previous, ceased: map[string]bool{}}
	}
}

// expected is what is announced to follow a; zero: nothing.
func (c *Core) expected(name string, a alloc.Allocation) alloc.Allocation {
	if b := c.begins[name]; b != nil && a.Epoch.Less(b.epoch) {
		return b.next
	}
	return alloc.Allocation{}
}

// giveUp forgets what was announced and not committed in time, and reports whether there was any.
func (b *beginning) giveUp(now time.Time) bool {
	if b.next.Zero() || now.Before(b.expires) {
		return false
	}
	b.next = alloc.Allocation{}
	return true
}

// begin is the commit: from now on the losers of this link are waited for.
func (c *Core) begin(now time.Time, name string, before, a alloc.Allocation) {
	b := c.begins[name]
	if b == nil || b.epoch != a.Epoch {
		b = &beginning{epoch: a.Epoch, previous: before, ceased: map[string]bool{}}
		c.begins[name] = b
	}
	b.previous, b.next = c.effective(b.previous), alloc.Allocation{}
	b.until, b.losers = now.Add(c.settle/2), map[string]bool{} // routers have the other half, before losers elsewhere end
	for was, is := range alloc.Pairs(b.previous, a) {
		loser := b.previous.OwnerOf(was)
		if a.OwnerOf(is) == c.name && loser != c.name && !b.ceased[loser] && !c.elsewhere(b.previous.Address(loser)) {
			b.losers[loser] = true
		}
	}
}

// CeasedBy tells that a server takes no more what it lost in that epoch.
func (c *Core) CeasedBy(name string, e epoch.Epoch, server string) []Action {
	b := c.begins[name]
	if b == nil || b.epoch != e {
		return nil
	}
	if _, known := slices.BinarySearch(b.previous.Servers, server); !known {
		return nil // nobody who could lose: names on the bus are not ours to collect
	}
	b.ceased[server] = true
	if !b.losers[server] {
		return nil
	}
	delete(b.losers, server)
	if b.waits() {
		return nil
	}
	return append([]Action{c.apply()}, c.begun(name)...)
}

// begun ends the waiting for losers.
func (c *Core) begun(name string) []Action {
	b := c.begins[name]
	b.losers = nil
	for _, d := range c.closings {
		if d.service == name && d.epoch == b.epoch {
			return nil // it is kept, and its Close ends in Done
		}
	}
	return []Action{c.keep(name, c.held[name]), c.done(name, b.epoch, 0)}
}

// taken is what of the server's own users it takes already.
func (c *Core) taken(name string, own portion.Set) portion.Union {
	b, a := c.begins[name], c.held[name]
	if !b.waits() || b.epoch != a.Epoch {
		return portion.Union{own}
	}
	return alloc.Between(b.previous, a, func(was, is int) bool {
		return a.OwnerOf(is) == c.name && !b.losers[b.previous.OwnerOf(was)]
	})
}

// elsewhere reports whether a server is known to be on another link.
func (c *Core) elsewhere(server netip.Addr) bool {
	return c.link.IsValid() && server.IsValid() && !c.link.Contains(server)
}
