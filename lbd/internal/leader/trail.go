package leader

import (
	"time"

	"github.com/manycast/manycast/internal/alloc"
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
