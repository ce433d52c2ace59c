package leader

import (
	"time"

	"github.com/manycast/manycast/internal/alloc"
)

// holders are the servers that may hold connections of users who are others' now, as far as they have said. Who was silent, or late, for a
// moment holds what it held; of one whose registration has not been renewed for so long that it is dead there are none.
func (p *pool) holders(now time.Time) alloc.Holders {
	h := alloc.Holders{}
	for name, m := range p.members {
		if !p.renews(now, m) {
			continue
		}
		l, _ := p.load(name)
		h.Add(name, l.Kept)
	}
	return h
}
