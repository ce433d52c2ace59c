package admission

import (
	"container/list"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/join"
)

// bucket is a token bucket.
type bucket struct {
	tokens float64
	last   time.Time
}

func (b *bucket) take(now time.Time, rate, burst float64) bool {
	if d := now.Sub(b.last); d > 0 {
		b.tokens = min(burst, b.tokens+rate*d.Seconds())
		b.last = now
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// replayCache remembers the last random keys, the oldest go first. That it forgets some lets no replay in: the requester's last
// stamp, which is kept, is at least as young as theirs.
type replayCache struct {
	seen map[[16]byte]struct{}
	ring [][16]byte
	next int
}

func newReplayCache(size int) *replayCache {
	size = max(size, 1)
	return &replayCache{seen: make(map[[16]byte]struct{}), ring: make([][16]byte, 0, min(size, 1024)), next: -size}
}

func (c *replayCache) has(random [16]byte) bool {
	_, ok := c.seen[random]
	return ok
}

// add remembers a random key. While next is negative it counts the places that the ring has still to grow by.
func (c *replayCache) add(random [16]byte) {
	c.seen[random] = struct{}{}
	if c.next < 0 {
		c.ring = append(c.ring, random)
		c.next++
		return
	}
	delete(c.seen, c.ring[c.next])
	c.ring[c.next] = random
	c.next = (c.next + 1) % len(c.ring)
}

type stampKey struct {
	group     netip.Addr
	keyID     uint32
	requester netip.Addr
}

// stamp is the time of a requester's last set, and which of its parts have been here: they may come in any order.
type stamp struct {
	key   stampKey
	last  time.Time
	parts [4]uint64 // a bit for each part number
}

// stampTable holds the last stamp of each requester. An entry goes only when its room is needed and its stamp is so old that
// every join up to it is not timely anyway.
type stampTable struct {
	max     int
	entries map[stampKey]*list.Element
	order   *list.List // of stamp, the least recently set first
}

func newStampTable(size int) *stampTable {
	return &stampTable{max: max(size, 1), entries: make(map[stampKey]*list.Element), order: list.New()}
}

func keyOf(j *join.Signed) stampKey { return stampKey{j.Group, j.KeyID, j.Requester} }

// after tells whether a join is of a later set than the last one of its requester, or a new part of that.
func (s *stampTable) after(j *join.Signed) bool {
	e := s.entries[keyOf(j)]
	if e == nil {
		return true
	}
	known := e.Value.(stamp)
	switch set := j.SetTime(); {
	case set.After(known.last):
		return true
	case set.Equal(known.last):
		return known.parts[j.Part>>6]>>(j.Part&63)&1 == 0
	}
	return false
}

// set remembers a join that comes after; false when the table is full of stamps that are not older than oldest.
func (s *stampTable) set(j *join.Signed, oldest time.Time) bool {
	next := stamp{key: keyOf(j), last: j.SetTime()}
	e := s.entries[next.key]
	if e != nil && e.Value.(stamp).last.Equal(next.last) {
		next.parts = e.Value.(stamp).parts
	}
	next.parts[j.Part>>6] |= 1 << (j.Part & 63)
	return s.put(next, oldest)
}

func (s *stampTable) put(next stamp, oldest time.Time) bool {
	if e := s.entries[next.key]; e != nil {
		e.Value = next
		s.order.MoveToBack(e)
		return true
	}
	if len(s.entries) >= s.max {
		front := s.order.Front()
		if !front.Value.(stamp).last.Before(oldest) {
			return false
		}
		delete(s.entries, s.order.Remove(front).(stamp).key)
	}
	s.entries[next.key] = s.order.PushBack(next)
	return true
}

// Stamp is a requester's last stamp, as a snapshot keeps it.
type Stamp struct {
	Group     netip.Addr `json:"group"`
	KeyID     uint32     `json:"key_id"`
	Requester netip.Addr `json:"requester"`
	Last      time.Time  `json:"last"`
}

// Stamps returns the last stamps, the least recently set first.
func (c *Checker) Stamps() []Stamp {
	all := make([]Stamp, 0, len(c.stamps.entries))
	for e := c.stamps.order.Front(); e != nil; e = e.Next() {
		s := e.Value.(stamp)
		all = append(all, Stamp{s.key.group, s.key.keyID, s.key.requester, s.last})
	}
	return all
}

// RestoreStamps takes over what Stamps of the last run returned, the youngest as far as there is room.
func (c *Checker) RestoreStamps(all []Stamp) {
	if len(all) > c.stamps.max {
		all = all[len(all)-c.stamps.max:]
	}
	for _, s := range all {
		const seen = ^uint64(0)
		key := stampKey{s.Group, s.KeyID, s.Requester}
		c.stamps.put(stamp{key, s.Last, [4]uint64{seen, seen, seen, seen}}, time.Time{})
	}
}
