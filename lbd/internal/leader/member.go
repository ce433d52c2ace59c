package leader

import (
	"maps"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
)

// member is a server as its registrations show it.
type member struct {
	Registration
	revision uint64    // of the last registration
	first    time.Time // since when it could be in the pool
	seen     time.Time // last renewal seen
	proven   bool      // renewed while we watched: not only a leaving of old times
	admitted bool      // in the pool; a new one waits JoinWait first
	suspect  time.Time // left out until then
	doubt    string    // why
}

// register reports whether there is more to it than a renewal.
func (p *pool) register(now time.Time, r Registration, revision uint64) (isNews bool) {
	m := p.members[r.Server]
	switch {
	case m == nil:
		p.members[r.Server] = &member{Registration: r, revision: revision, first: now, seen: now}
		return true
	case revision == m.revision:
		return false // sent again by the watch: no sign of life
	}
	isNews = r.withoutLoad() != m.withoutLoad() || !m.proven || !p.usable(now, m)
	if m.BootID != r.BootID {
		m.suspect = time.Time{}
	}
	if !p.usable(now, m) {
		p.expel(now, m)
	}
	m.Registration, m.revision, m.seen, m.proven = r, revision, now, true
	return isNews
}

// withoutLoad is all of a registration but what is another at each renewal.
func (r Registration) withoutLoad() Registration {
	r.Load = nil
	return r
}

// alive reports whether the member's agent can be counted on.
func (p *pool) alive(now time.Time, m *member) bool {
	if now.Before(m.suspect) {
		return false
	}
	switch p.core.hearing.judge(now, m.Server) {
	case serving:
		return true
	case gone, unheard:
		return false
	}
	return p.renews(now, m)
}

// renews reports whether the member's registration has been renewed lately, as far as we have watched.
func (p *pool) renews(now time.Time, m *member) bool {
	seen := m.seen
	if p.core.watching.After(seen) {
		seen = p.core.watching
	}
	return now.Sub(seen) <= p.core.timing.DeadAfter
}

// usable reports whether the member may own something, were it admitted.
func (p *pool) usable(now time.Time, m *member) bool {
	return m.Healthy && p.alive(now, m)
}

// expel puts a member out of the pool.
func (p *pool) expel(now time.Time, m *member) {
	if m.admitted {
		p.flap(now, m.Server)
	}
	m.admitted, m.first = false, now
}

// admit lets new members in: those of the committed allocation at once, others together when the first of them has waited. Those
// that died again and again wait longer, unless there is nobody else.
func (p *pool) admit(now time.Time) {
	due, someone := false, p.someone(now)
	for name, m := range p.members {
		switch {
		case !p.usable(now, m):
			p.expel(now, m)
		case m.admitted:
		case someone && !p.dampened(now, name).IsZero():
		case p.state.Committed.Has(name):
			m.admitted = true
		case m.proven && now.Sub(m.first) >= p.core.timing.JoinWait:
			due = true
		}
	}
	if !due {
		return
	}
	for name, m := range p.members {
		m.admitted = m.admitted || m.proven && p.usable(now, m) && (!someone || p.dampened(now, name).IsZero())
	}
}

// someone reports whether a member could own something that is not dampened.
func (p *pool) someone(now time.Time) bool {
	for name, m := range p.members {
		if p.usable(now, m) && p.dampened(now, name).IsZero() {
			return true
		}
	}
	return false
}

// servers is the pool as the allocator wants it.
func (p *pool) servers(now time.Time) []alloc.Server {
	var out []alloc.Server
	for _, name := range slices.Sorted(maps.Keys(p.members)) {
		m := p.members[name]
		s := alloc.Server{Name: name, Address: m.Address, Weight: m.Weight, Alive: m.admitted && p.usable(now, m)}
		if o, ok := p.operator[name]; ok {
			s.Drained = o.Drained
			if o.Weight != nil {
				s.Weight = *o.Weight
			}
		}
		s.Weight = min(max(s.Weight, 0), alloc.MaxWeight)
		out = append(out, s)
	}
	return out
}

// complete reports whether all servers of the committed allocation have shown that they can hear us, or had the time to: an
// agent that has renewed since we watch has its connection to the bus, and would hear an announcement.
func (p *pool) complete(now time.Time) bool {
	watching := p.core.watching
	for _, name := range p.state.Committed.Servers {
		h := p.core.hearing
		switch verdict := h.judge(now, name); {
		case verdict == unheard && now.Sub(h.since) <= h.recovery:
			return false
		case verdict == serving && p.members[name] == nil && now.Sub(watching) <= p.core.timing.ReturnWait:
			return false // it serves, and has yet to find the bus again
		}
	}
	if now.Sub(watching) > p.core.timing.DeadAfter {
		return true
	}
	for _, name := range p.state.Committed.Servers {
		if m := p.members[name]; m == nil || !m.proven || m.seen.Before(watching) {
			return false
		}
	}
	return true
}

// reason says why next follows the committed allocation: for who came and went, or else for what the policy says.
func (p *pool) reason(now time.Time, next alloc.Allocation, said []policy.Reason) string {
	before := p.state.Committed
	if before.Zero() {
		return "first allocation"
	}
	var why []string
	for _, name := range before.Servers {
		if !slices.Contains(next.Servers, name) {
			why = append(why, name+" "+p.absence(now, name))
		}
	}
	for _, name := range next.Servers {
		if !slices.Contains(before.Servers, name) {
			why = append(why, name+" joined")
		}
	}
	for _, r := range said {
		if len(why) >= maxReasons {
			why = append(why, "and others")
			break
		}
		if !r.Refused {
			why = append(why, r.String())
		}
	}
	if len(why) == 0 {
		return "shares changed"
	}
	return commas(why)
}

// maxReasons is about as many as a line has room for; who came and went are all named.
const maxReasons = 4

func (p *pool) absence(now time.Time, name string) string {
	m, ok := p.members[name]
	switch {
	case !ok:
		return "left"
	case now.Before(m.suspect):
		return m.doubt
	case p.core.hearing.isUnwell(name):
		return "is unhealthy"
	case !p.alive(now, m):
		return "is dead"
	case !m.Healthy:
		return "is unhealthy"
	case p.operator[name].Drained:
		return "is drained"
	}
	return "has weight 0"
}
