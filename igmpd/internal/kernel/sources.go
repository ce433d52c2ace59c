package kernel

import (
	"container/list"

	"github.com/manycast/manycast/igmpd/internal/kernel/mroute"
)

// chances is how many used entries may be passed over in search of one to put out.
const chances = 8

// sources are the (S,G) entries made on demand, oldest first, at most max.
type sources struct {
	max   int
	order *list.List
	by    map[sg]*list.Element
}

type sourceEntry struct {
	entry   mroute.Entry
	packets uint64 // when last looked at
}

func newSources(max int) *sources {
	return &sources{max: max, order: list.New(), by: map[sg]*list.Element{}}
}

func key(e mroute.Entry) sg { return sg{e.Source, e.Group} }

func (s *sources) len() int { return s.order.Len() }

func (s *sources) full() bool { return s.order.Len() >= s.max }

func (s *sources) get(k sg) (mroute.Entry, bool) {
	if el, ok := s.by[k]; ok {
		return el.Value.(*sourceEntry).entry, true
	}
	return mroute.Entry{}, false
}

// put adds an entry as the newest, or changes it where it stands.
func (s *sources) put(e mroute.Entry) {
	if el, ok := s.by[key(e)]; ok {
		el.Value.(*sourceEntry).entry = e
		return
	}
	s.by[key(e)] = s.order.PushBack(&sourceEntry{entry: e})
}

func (s *sources) remove(k sg) {
	if el, ok := s.by[k]; ok {
		s.order.Remove(el)
		delete(s.by, k)
	}
}

// victim chooses the entry to put out: the oldest that had no packets since it was last looked at (second chance).
func (s *sources) victim(packets func(sg) uint64) (mroute.Entry, bool) {
	for range min(chances, s.order.Len()-1) {
		el := s.order.Front()
		v := el.Value.(*sourceEntry)
		n := packets(key(v.entry))
		if n == v.packets {
			break
		}
		v.packets = n
		s.order.MoveToBack(el)
	}
	if el := s.order.Front(); el != nil {
		return el.Value.(*sourceEntry).entry, true
	}
	return mroute.Entry{}, false
}

// all returns the entries, oldest first.
func (s *sources) all() []mroute.Entry {
	entries := make([]mroute.Entry, 0, s.order.Len())
	for el := s.order.Front(); el != nil; el = el.Next() {
		entries = append(entries, el.Value.(*sourceEntry).entry)
	}
	return entries
}
