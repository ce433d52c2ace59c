package agent

import (
	"maps"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
)

// hearing is what a server hears of the others on the control channel.
type hearing struct {
	silence time.Duration // after which a member counts as silent
	members map[string]heard
	deaf    bool            // nobody is heard
	again   time.Time       // somebody is heard again
	gone    map[string]bool // who does not serve its users, as far as is heard
	doubted map[string]bool // who may be dead: it is not heard, and that does not count yet
	claims  map[ward]claim  // takeovers that were begun
	over    map[over]bool   // former owners who hold nothing any more
	stood   map[ward]bool   // standbys, by service, that hold something
}

type heard struct {
	health control.Health
	why    string
	since  time.Time
	kept   map[string]*alloc.Kept // by service, as it said last
	boot   uint64
	anew   bool      // it was silent, started anew, and has not said anything of its work yet
	paused bool      // it restarts, as planned
	behind time.Time // until then it may not know what was committed while it restarted
}

// recovery is how long those that fell silent to a deaf server have time to be heard again: each reports once a second.
const recovery = 2 * time.Second

// ward is an owner on this link whose users this server takes in its stead.
type ward struct{ service, owner string }

// claim is when a takeover is told next, and the time to the one after: a message may be lost, and the owner be cut off for long.
type claim struct {
	at  time.Time
	gap time.Duration
}

// claimGapMax is the longest time between two.
const claimGapMax = 10 * time.Second

// Channel tells that there is a control channel, before anything else. alive: the data plane has taken users up to now, as after
// a planned restart; else the server is out until its application is known to answer.
func (c *Core) Channel(silence time.Duration, alive bool) {
	c.hearing = &hearing{silence: silence, members: map[string]heard{}, claims: map[ward]claim{}}
	c.presence = newPresence(alive)
}

// Heard takes what is new of members of the channel.
func (c *Core) Heard(now time.Time, members []control.Member) []Action {
	isNews := false
	for _, m := range members {
		if m.Name == c.name {
			continue
		}
		old, known := c.hearing.members[m.Name]
		is := heard{m.Health, m.Why, old.since, keptOf(m.Loads), m.Boot, false, !m.Paused.IsZero(), old.behindNow(now, m)}
		is.anew = len(m.Loads) == 0 && m.Health != control.Silent && (old.anew || known && old.health == control.Silent && old.boot != m.Boot)
		if !known || old.health != m.Health || old.why != m.Why {
			is.since, isNews = now, true
		}
		c.hearing.members[m.Name] = is
	}
	var out []Action
	if isNews {
		c.hearing.listen(now)
		out = c.reckon(now)
	}
	return c.forget(out)
}

// behindNow is until when a member may not know what is committed: while it restarts it executes nothing, and when it is back it has yet to be told.
func (h heard) behindNow(now time.Time, m control.Member) time.Time {
	switch {
	case !m.Paused.IsZero():
		return m.Paused
	case h.paused:
		return now.Add(latePatience)
	}
	return h.behind
}

// keptOf is what a member holds, as its report says.
func keptOf(loads map[string]alloc.Load) map[string]*alloc.Kept {
	out := map[string]*alloc.Kept{}
	for name, l := range loads {
		if l.Kept != nil {
			out[name] = l.Kept
		}
	}
	return out
}

// listen finds out whether anybody is heard.
func (h *hearing) listen(now time.Time) {
	isDeaf := true
	for _, m := range h.members {
		isDeaf = isDeaf && m.health != control.Available && m.health != control.Unwell
	}
	if h.deaf && !isDeaf {
		h.again = now
	}
	h.deaf = isDeaf
}

// reckon finds out who has gone and who is back, and does what follows.
func (c *Core) reckon(now time.Time) []Action {
	before, doubted := c.hearing.gone, c.hearing.doubted
	c.hearing.gone, c.hearing.doubted = c.hearing.goneNow(now), c.hearing.doubtedNow(now)
	if maps.Equal(before, c.hearing.gone) {
		if maps.Equal(doubted, c.hearing.doubted) && c.takes() { // who is out sends what is new to those who are there
			return c.settleIn(now)
		}
		return append([]Action{c.apply()}, c.settleIn(now)...)
	}
	kept := c.release(now, before)
	c.claim(now)
	var begun []Action
	for _, name := range slices.Sorted(maps.Keys(c.begins)) { // who does not serve has ceased
		begun = append(begun, c.endWaiting(name, func(_ *beginning, loser string) bool { return c.hearing.gone[loser] })...)
	}
	return slices.Concat([]Action{c.apply()}, kept, begun, c.settleIn(now))
}

// goneNow are the members that do not serve. Silence proves that of others only while somebody is heard: who hears nobody is cut
// off. A member that says that it hears nobody itself goes on serving, until a leader gives its users to others.
func (h *hearing) goneNow(now time.Time) map[string]bool {
	gone := map[string]bool{}
	for name, m := range h.members {
		isSilent := m.health == control.Silent && !h.deaf && !h.isRecovering(now, m)
		if isSilent || m.health == control.Unwell && m.why != control.Deaf {
			gone[name] = true
		}
	}
	return gone
}

// doubtedNow are the members that are not heard yet where others are heard again.
func (h *hearing) doubtedNow(now time.Time) map[string]bool {
	doubted := map[string]bool{}
	for name, m := range h.members {
		if m.health == control.Silent && !h.deaf && h.isRecovering(now, m) {
			doubted[name] = true
		}
	}
	return doubted
}

// isRecovering reports whether a member fell silent when all did, and may be heard again soon as others are.
func (h *hearing) isRecovering(now time.Time, m heard) bool {
	return m.since.Before(h.again) && now.Before(h.again.Add(recovery))
}

// recovers returns until when silence does not count of those of whom it does not; zero: it counts of all.
func (h *hearing) recovers() time.Time {
	for name, m := range h.members {
		if m.health == control.Silent && !h.deaf && m.since.Before(h.again) && !h.gone[name] {
			return h.again.Add(recovery)
		}
	}
	return time.Time{}
}

// release plans to close the connections of those who are back: their users' packets go to them. What goes on here instead, as it is forwarded, ends
// like that of users who are lost.
func (c *Core) release(now time.Time, before map[string]bool) (kept []Action) {
	for _, name := range slices.Sorted(maps.Keys(c.held)) {
		for owner := range c.owners(name) {
			if !before[owner] || c.hearing.gone[owner] {
				continue
			}
			c.closings = append(c.closings, closing{service: name, isBack: true, at: now.Add(c.settle)})
			if a := c.current(name); keeps(c.specs[name], a) {
				c.lose(now, name, a.Epoch)
				kept = append(kept, c.keep(name, a))
			}
			break
		}
	}
	return kept
}

// claim plans to tell of takeovers on this link, and forgets those that have ended. A moment passes before: who is cut off finds
// one silent after the other, and takes nothing when all are.
func (c *Core) claim(now time.Time) {
	current := map[ward]claim{}
	for name := range c.held {
		if c.specs[name].Mode == service.Tags {
			continue // here routers alone decide whose packets come
		}
		for owner, isNear := range c.owners(name) {
			if !isNear || !c.hearing.gone[owner] {
				continue
			}
			w := ward{name, owner}
			if said, ok := c.hearing.claims[w]; ok {
				current[w] = said
			} else if c.hearing.members[owner].health == control.Silent {
				current[w] = claim{now.Add(c.hearing.silence / 4), c.hearing.silence / 2}
			}
		}
	}
	c.hearing.claims = current
}

// tickHearing lets time pass for what is heard.
func (c *Core) tickHearing(now time.Time) []Action {
	if c.hearing == nil {
		return nil
	}
	if end := c.hearing.recovers(); !end.IsZero() && !now.Before(end) {
		return append(c.reckon(now), c.tellClaims(now)...)
	}
	return append(c.settleIn(now), c.tellClaims(now)...)
}

// tellClaims says which takeovers have lasted: a silent owner that is alive after all yields.
func (c *Core) tellClaims(now time.Time) []Action {
	if !c.takes() {
		return nil
	}
	var out []Action
	for w, said := range c.hearing.claims {
		if now.Before(said.at) {
			continue
		}
		c.hearing.claims[w] = claim{now.Add(said.gap), min(2*said.gap, claimGapMax)}
		out = append(out, Takeover{Service: w.service, Epoch: c.held[w.service].Epoch, From: w.owner, First: said.gap == c.hearing.silence/2})
	}
	return out
}

// TakenOver tells that a server says that it serves in this one's stead. It counts of one on this link that stands by for it
// and is well; elsewhere routers decide. Who lives in a term that is over knows nothing of who stands by now.
func (c *Core) TakenOver(now time.Time, t announce.Takeover) []Action {
	a := c.current(t.Service)
	if c.hearing == nil || t.From != c.name || a.Zero() || t.Epoch.Term < a.Epoch.Term || c.elsewhere(a.Address(t.By)) || c.hearing.members[t.By].health == control.Unwell {
		return nil
	}
	for cell := range a.Owner {
		if a.OwnerOf(cell) == c.name && a.StandbyOf(cell) == t.By {
			return c.fence(now, t.By+" has taken over")
		}
	}
	return nil
}

// owners are those that this server stands by for in a service, and whether they are on its link.
func (c *Core) owners(name string) map[string]bool {
	a := c.current(name)
	me, ok := slices.BinarySearch(a.Servers, c.name)
	out := map[string]bool{}
	if !ok {
		return out
	}
	seen := make([]bool, len(a.Servers))
	for cell, s := range a.Standby {
		if owner := a.Owner[cell]; int(s) == me && !seen[owner] {
			seen[owner] = true
			out[a.Servers[owner]] = !c.elsewhere(a.Address(a.Servers[owner]))
		}
	}
	return out
}

// standing are the users of others that this server takes: those of servers on other links at any time, for only a router can
// have brought their packets here, unless it was told to by a pin; those of servers on its own link while they do not.
func (c *Core) standing(name string) portion.Union {
	isPinned := pinsUsers(c.specs[name])
	return c.standingFor(name, func(owner string, isNear bool) bool { return !isNear && !isPinned || c.hearing.gone[owner] })
}

// standingFor are the users of some of the owners that this server stands by for.
func (c *Core) standingFor(name string, isOf func(owner string, isNear bool) bool) portion.Union {
	if c.hearing == nil {
		return nil
	}
	a, owners := c.held[name], c.owners(name)
	maps.DeleteFunc(owners, func(owner string, isNear bool) bool { return !isOf(owner, isNear) })
	if len(owners) == 0 {
		return nil
	}
	takes := func(cell int) bool {
		_, stands := owners[a.OwnerOf(cell)]
		return stands && a.StandbyOf(cell) == c.name
	}
	barred := c.barred(name, a)
	return portion.Union{a.Select(func(cell int) bool { return takes(cell) && (!barred[cell] || c.hearing.gone[a.OwnerOf(cell)]) })}
}

// barred are the cells of which packets may come by this link though their owner, who is elsewhere, is not silent: a neighbour lost their users just
// now, or is about to win them.
func (c *Core) barred(name string, a alloc.Allocation) []bool {
	out := make([]bool, len(a.Owner))
	if next := c.expected(name, a); !next.Zero() {
		for was, is := range alloc.Pairs(a, next) {
			out[was] = out[was] || c.isNeighbours(next, is)
		}
	}
	if f := c.fresh[name]; f != nil {
		for _, l := range f.late {
			for was, is := range alloc.Pairs(l.before, a) {
				out[is] = out[is] || c.isNeighbours(l.before, was)
			}
		}
	}
	return out
}

// isNeighbours reports whether a cell is another server's on this link.
func (c *Core) isNeighbours(a alloc.Allocation, cell int) bool {
	owner := a.OwnerOf(cell)
	return owner != c.name && !c.elsewhere(a.Address(owner))
}

// leaves reports whether users whom this server takes in the stead of owners on other links are about to be a neighbour's: then their packets may
// come by this link before all servers execute it, and would be answered twice.
func (c *Core) leaves(name string) bool {
	a := c.held[name]
	next := c.expected(name, a)
	if c.hearing == nil || next.Zero() {
		return false
	}
	for was, is := range alloc.Pairs(a, next) {
		owner := a.OwnerOf(was)
		if a.StandbyOf(was) == c.name && !c.hearing.gone[owner] && c.elsewhere(a.Address(owner)) && c.isNeighbours(next, is) {
			return true
		}
	}
	return false
}

// effective is the allocation as it is served: where the owner is gone, its standby is in its place.
func (c *Core) effective(a alloc.Allocation) alloc.Allocation {
	if c.hearing == nil || len(c.hearing.gone) == 0 || a.Zero() {
		return a
	}
	gone := make([]bool, len(a.Servers))
	for i, name := range a.Servers {
		gone[i] = c.hearing.gone[name]
	}
	a.Owner = slices.Clone(a.Owner)
	for cell, s := range a.Standby {
		if gone[a.Owner[cell]] && s != alloc.None && !gone[s] {
			a.Owner[cell] = s
		}
	}
	return a
}
