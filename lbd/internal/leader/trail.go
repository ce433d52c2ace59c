package leader

import (
	"time"

	"github.com/manycast/manycast/internal/alloc"
)

// holders are the servers that may hold connections of users who are others' now, as far as they have said. Of one that has gone there are none.
func (p *pool) holders(now time.Time) alloc.Holders {
	h := alloc.Holders{}
	for name, m := range p.members {
		if !p.alive(now, m) {
			continue
		}
		l, _ := p.load(name)
		h.Add(name, l.Kept)
	}
	return h
}
