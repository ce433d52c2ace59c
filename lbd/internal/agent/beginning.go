package agent

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/service"
)

// beginning is the winner's side of a move on one link, where loser and winner both see the users' packets: the winner takes
// nothing of its losers until all have ceased, and begins in one step. It knows of the move from the announcement, as a new server knows no allocation before.
// Losers that live and are late have their users on until they cease: meanwhile the winner takes what it has won of others.
type beginning struct {
	epoch    epoch.Epoch
	previous alloc.Allocation // what the epoch replaces
	losers   map[string]bool  // those on this link that have not ceased
	until    time.Time        // then a loser that is not known to live is taken for dead
	late     time.Time        // then all are but those that restart
}

// latePatience is how long losers that live are waited for: after so long a server whose agent has died takes nobody any more, and to one whose agent
// lives the commit has come by the channel or the bus.
const latePatience = 2 * time.Second

// begin is the commit: from now on the losers of this link are waited for. It reports whether there are any.
func (c *Core) begin(now time.Time, name string, before, a alloc.Allocation) bool {
	announced := c.came(name, a.Epoch)
	if !announced.previous.Zero() {
		before = c.effective(announced.previous)
	}
	b := beginning{epoch: a.Epoch, previous: before, losers: map[string]bool{}}
	b.until, b.late = now.Add(c.settle/2), now.Add(latePatience) // routers have the other half, before losers elsewhere end
	for was, is := range alloc.Pairs(before, a) {
		loser := before.OwnerOf(was)
		if a.OwnerOf(is) == c.name && loser != c.name && !announced.ceased[loser] && !c.elsewhere(before.Address(loser)) {
			b.losers[loser] = true
		}
	}
	if len(b.losers) == 0 {
		return false
	}
	c.begins[name] = append(c.begins[name], b)
	return true
}

// CeasedBy tells that a server takes no more what it lost in that epoch, and before.
func (c *Core) CeasedBy(name string, e epoch.Epoch, server string) []Action {
	if k, some := c.coming[name]; some && k.next.Epoch == e {
		if _, known := slices.BinarySearch(k.previous.Servers, server); known { // names on the bus are not ours to collect
			k.ceased[server] = true
		}
		return nil
	}
	return c.endWaiting(name, func(b *beginning, loser string) bool { return loser == server && !e.Less(b.epoch) })
}

// endWaiting takes losers for such that have ceased, and begins what nobody is waited for any more.
func (c *Core) endWaiting(name string, hasCeased func(b *beginning, loser string) bool) []Action {
	isNews, begun := false, []Action(nil)
	c.begins[name] = slices.DeleteFunc(c.begins[name], func(b beginning) bool {
		for loser := range b.losers {
			if hasCeased(&b, loser) {
				delete(b.losers, loser)
			}
		}
		if len(b.losers) > 0 {
			return false
		}
		isNews = true
		begun = append(begun, c.begun(name, b.epoch)...)
		return true
	})
	if !isNews {
		return nil
	}
	return append([]Action{c.apply()}, begun...)
}

// begun ends the waiting for losers.
func (c *Core) begun(name string, e epoch.Epoch) []Action {
	for _, d := range c.closings {
		if d.service == name && d.epoch == e {
			return nil // it is kept, and its Close ends in Done
		}
	}
	return []Action{c.keep(name, c.held[name]), c.done(name, e, 0)}
}

// tickBeginnings lets time pass for losers that have not answered. Those that live are late; what is won of others is taken meanwhile.
func (c *Core) tickBeginnings(now time.Time) []Action {
	var out []Action
	for name, all := range c.begins {
		due := false
		for i, b := range all {
			if !now.Before(b.until) {
				due, all[i].until = true, c.nextWord(now, b)
			}
		}
		if !due {
			continue
		}
		begun := c.endWaiting(name, func(b *beginning, loser string) bool {
			return !b.until.Before(b.late) && (!now.Before(b.late) && !c.isBehind(now, loser) || !c.isLate(name, loser))
		})
		if begun == nil {
			begun = []Action{c.apply(), c.keep(name, c.held[name])}
		}
		out = append(out, begun...)
	}
	return out
}

// isBehind reports whether a loser restarts, or has just restarted: its program takes its users yet.
func (c *Core) isBehind(now time.Time, loser string) bool {
	return c.hearing != nil && now.Before(c.hearing.members[loser].behind)
}

// nextWord is when losers are taken for dead that live and are waited for.
func (c *Core) nextWord(now time.Time, b beginning) time.Time {
	last := b.late
	if now.Before(b.late) {
		return last
	}
	for loser := range b.losers {
		if c.hearing != nil && last.Before(c.hearing.members[loser].behind) {
			last = c.hearing.members[loser].behind
		}
	}
	return last
}

// isLate reports whether a loser that has not answered is known to live, and so takes its users yet: by what is heard, or, where there is no channel,
// by the leader's word, who gives the dead nothing. With mode tags routers bring users here who have gone over, and to nobody else.
func (c *Core) isLate(name, loser string) bool {
	if c.specs[name].Mode == service.Tags {
		return false
	}
	if c.hearing == nil {
		_, isThere := slices.BinarySearch(c.held[name].Servers, loser)
		return isThere
	}
	m, known := c.hearing.members[loser]
	return known && !c.hearing.gone[loser] && m.health != control.Silent
}

// taken is what of the server's own users it takes already.
func (c *Core) taken(name string, own portion.Set) portion.Union {
	begins, a := c.begins[name], c.held[name]
	switch len(begins) {
	case 0:
		return portion.Union{own}
	case 1:
		b := begins[0]
		return alloc.Between(b.previous, a, func(was, is int) bool { return a.OwnerOf(is) == c.name && !b.losers[b.previous.OwnerOf(was)] })
	}
	theirs := make([]bool, len(a.Owner)) // several have yet to cease: by whole cells
	for _, b := range begins {
		for was, is := range alloc.Pairs(b.previous, a) {
			theirs[is] = theirs[is] || b.losers[b.previous.OwnerOf(was)]
		}
	}
	return portion.Union{a.Select(func(cell int) bool { return a.OwnerOf(cell) == c.name && !theirs[cell] })}
}

// elsewhere reports whether a server is known to be on another link.
func (c *Core) elsewhere(server netip.Addr) bool {
	return c.link.IsValid() && server.IsValid() && !c.link.Contains(server)
}
