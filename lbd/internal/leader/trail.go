package leader

import (
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
)

// holders are the servers that may hold connections of users who are others' now, as far as they have said. Who was silent, or late, for a
// moment holds what it held; of one that is dead, by its registration and the control channel, there are none.
func (p *pool) holders(now time.Time) alloc.Holders {
	h := alloc.Holders{}
	for name, m := range p.members {
		if !p.renews(now, m) && p.core.hearing.judge(now, name) != serving {
			continue
		}
		l, _ := p.load(name)
		h.Add(name, l.Kept)
	}
	return h
}

// stoodIn reports whether a standby may hold connections of an owner's users: it says so, or the owner has been out.
func (p *pool) stoodIn(owner, standby string) bool {
	l, _ := p.load(standby)
	return p.out[owner] || l.Kept != nil && l.Kept.Stood
}

// out are the members that do not serve.
func (h *hearing) out() map[string]bool {
	out := map[string]bool{}
	if h == nil {
		return out
	}
	for name, m := range h.members {
		if m.isOut() {
			out[name] = true
		}
	}
	return out
}

// isOut reports whether standbys serve in a member's stead, as far as is heard.
func (m heard) isOut() bool {
	return m.health == control.Silent || m.health == control.Unwell && m.why != control.Deaf
}
