package leader

import (
	"maps"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/damping"
	"github.com/manycast/manycast/lbd/internal/announce"
)

// hearing is what a leader hears on the control channel. A registration proves that a server reaches the bus, a heartbeat that
// users' packets may reach the server: where there is a channel, that decides.
type hearing struct {
	self     string        // the server of this process, which hears itself by the bus alone; empty: none
	patience time.Duration // between silence and death, in which a leader that is cut off finds everybody silent
	recovery time.Duration // in which the silent ones of a leader that was deaf may be heard again
	members  map[string]heard
	since    time.Time // it listens, or hears again
	met      bool      // somebody was heard
	isDeaf   bool
}

type heard struct {
	health control.Health
	why    string
	since  time.Time
	paused time.Time             // it restarts, until then; zero: it does not
	loads  map[string]alloc.Load // by service, as last reported
}

// verdict is what the channel says of a server.
type verdict int

const (
	unjudged verdict = iota // registrations decide
	serving
	gone
	unheard // registered, but never heard
)

// Channel tells that there is a control channel, before anything else. self is the server of this process, or empty.
func (c *Core) Channel(now time.Time, silence time.Duration, self string) {
	c.hearing = &hearing{
		self: self, patience: silence / 2, recovery: c.timing.DeadAfter, members: map[string]heard{}, since: now,
	}
}

// Heard takes what is new of members of the channel.
func (c *Core) Heard(now time.Time, members []control.Member) []Action {
	isNews := false
	for _, m := range members {
		old, known := c.hearing.members[m.Name]
		if known && (m.Health == old.health || m.Health == control.Unknown) {
			isNews = isNews || !old.paused.IsZero() && m.Paused.IsZero()
			old.loads, old.paused, old.why = m.Loads, m.Paused, m.Why // no news by themselves, but that it is back
			c.hearing.members[m.Name] = old
			c.hear(m.Name)
			continue // a leader that could not listen knows nothing new
		}
		if m.Health == control.Available {
			c.trust(m.Name)
		}
		is := heard{m.Health, m.Why, now, m.Paused, m.Loads}
		c.hearing.members[m.Name], isNews = is, true
		if is.isOut() {
			for _, p := range c.pools {
				p.out[m.Name] = true
			}
		}
		c.hear(m.Name)
	}
	if !isNews {
		return nil
	}
	return append(c.hearing.listen(now), c.Tick(now)...)
}

// hear takes what a server's new report asks for.
func (c *Core) hear(server string) {
	for _, p := range c.pools {
		p.hear(server)
	}
}

// TakenOver tells that a server serves in the stead of another one, which it does not hear. If the leader does, the two are on
// one link and both serve: the leader decides for the one that is to by the allocation.
func (c *Core) TakenOver(now time.Time, t announce.Takeover) []Action {
	p, ok := c.pools[t.Service]
	if !ok || c.hearing == nil || c.hearing.members[t.By].health != control.Available || c.hearing.members[t.From].health != control.Available {
		return nil
	}
	m, a := p.members[t.From], p.state.Committed
	if m == nil || !standsBy(a, t.From, t.By) {
		return nil
	}
	m.suspect, m.doubt = now.Add(c.timing.SuspectFor), "is not heard by "+t.By
	return p.step(now)
}

// trust ends what was held against a server that is well again by its own word.
func (c *Core) trust(server string) {
	for _, p := range c.pools {
		if m := p.members[server]; m != nil {
			m.suspect = time.Time{}
		}
	}
}

// listen finds out whether anybody is heard.
func (h *hearing) listen(now time.Time) []Action {
	isDeaf := len(h.members) > 0
	for _, m := range h.members {
		isDeaf = isDeaf && m.health != control.Available && m.health != control.Unwell
	}
	isNews := isDeaf != h.isDeaf
	h.isDeaf, h.met = isDeaf, h.met || len(h.members) > 0 && !isDeaf
	switch {
	case !isNews:
		return nil
	case isDeaf && !h.met: // members are known from before a restart alone
		return nil
	case isDeaf:
		return []Action{Warn{Text: "nobody is heard on the control channel: servers count as alive while they renew their registrations"}}
	}
	h.since = now
	return nil
}

// judge says what the channel knows of a server. Whoever hears nobody at all cannot tell the dead from the cut off.
func (h *hearing) judge(now time.Time, server string) verdict {
	if h == nil || server == h.self || h.isDeaf {
		return unjudged
	}
	m, known := h.members[server]
	isNew := now.Sub(h.since) <= h.recovery
	switch {
	case m.health == control.Available:
		return serving
	case m.health == control.Unwell:
		return gone
	case m.health == control.Silent && isNew && m.since.Before(h.since):
		return unjudged
	case m.health == control.Silent && now.Sub(m.since) < h.patience:
		return serving
	case m.health == control.Silent:
		return gone
	case !known && !isNew && len(h.members) == 0:
		return unjudged // never was there anybody
	}
	return unheard
}

// restarts reports whether a server restarts, as planned: it goes on serving, as it did, and prepares for nothing.
func (h *hearing) restarts(now time.Time, server string) bool {
	return h != nil && now.Before(h.members[server].paused)
}

// isUnwell reports whether a server says itself that it does not serve.
func (h *hearing) isUnwell(server string) bool {
	return h != nil && h.members[server].health == control.Unwell
}

// standsBy reports whether a server stands by for an owner.
func standsBy(a alloc.Allocation, owner, standby string) bool {
	o, isOwner := slices.BinarySearch(a.Servers, owner)
	s, isStandby := slices.BinarySearch(a.Servers, standby)
	for cell := range a.Owner {
		if isOwner && isStandby && int(a.Owner[cell]) == o && int(a.Standby[cell]) == s {
			return true
		}
	}
	return false
}

// flap counts the death of a server that was in the pool. The first in a while costs it nothing but the move.
func (p *pool) flap(now time.Time, server string) {
	d := p.deaths[server]
	if d == nil {
		d = &damping.Damper{First: p.core.timing.Dampen, Max: max(5*time.Minute, p.core.timing.Dampen), Forget: 10 * time.Minute}
		p.deaths[server] = d
	}
	d.Fail(now)
}

// dampened returns until when a server is kept out for having died again; zero: it is not.
func (p *pool) dampened(now time.Time, server string) time.Time {
	d := p.deaths[server]
	switch {
	case d == nil:
		return time.Time{}
	case d.Count(now) == 0:
		delete(p.deaths, server)
		return time.Time{}
	case d.Count(now) == 1:
		return time.Time{}
	}
	return d.Until(now)
}

// tellDampened records who is kept out, when that has changed.
func (p *pool) tellDampened(now time.Time) []Action {
	current := map[string]time.Time{}
	for name := range p.deaths {
		if until := p.dampened(now, name); !until.IsZero() {
			current[name] = until
		}
	}
	if maps.Equal(current, p.told) {
		return nil
	}
	p.told = current
	d := Dampened{Service: p.name}
	for _, name := range slices.Sorted(maps.Keys(current)) {
		d.Servers = append(d.Servers, DampenedServer{name, current[name]})
	}
	return []Action{d}
}
