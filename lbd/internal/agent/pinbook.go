package agent

import (
	"slices"
	"time"

	"github.com/manycast/manycast/lbd/internal/pins"
)

const (
	pinPause = 250 * time.Millisecond // between two words of a service's pins that do not hurry, at least
	pinStale = 10 * time.Second       // whose connections nobody has looked at for so long is pinned no more
)

// pinBook is whom this server pins, and what of that is on the bus. It is pure.
type pinBook map[string]*pinSet

// pinSet is a service's.
type pinSet struct {
	pins.Pins
	looked   time.Time
	version  uint64 // counts changes of Pins
	hurry    bool
	there    bool      // something is on the bus, or may be
	written  uint64    // version that is
	revision uint64    // by which it is
	next     time.Time // when it may be written again
	renew    time.Time
}

// set takes whom the server pins as of now, and returns its version. Who has looked by an older allocation is too late.
func (b pinBook) set(now time.Time, p pins.Pins, hurry bool) (version uint64) {
	s := b[p.Service]
	if s == nil {
		s = &pinSet{there: true} // a former life's, perhaps
		b[p.Service] = s
	}
	if p.Epoch.Less(s.Epoch) {
		return s.version
	}
	if s.version == 0 || s.Epoch != p.Epoch || !slices.Equal(s.Users, p.Users) || s.Over != p.Over || s.Apart != p.Apart {
		s.version++
	}
	s.Pins, s.looked, s.hurry = p, now, s.hurry || hurry
	return s.version
}

// nobody reports whether a service has no pins to be on the bus.
func (s *pinSet) nobody(now time.Time) bool {
	return len(s.Users) == 0 && s.Apart == 0 || now.Sub(s.looked) >= pinStale
}

// at is when a service is to be written; zero: never, if nothing changes.
func (s *pinSet) at(now time.Time) time.Time {
	switch {
	case s.nobody(now) && !s.there:
		return time.Time{}
	case s.next.IsZero(), s.written != s.version && s.hurry && !s.nobody(now):
		return now
	case s.nobody(now), s.written != s.version:
		return s.next
	}
	return s.renew
}

// due is a service that is to be written now; "": none.
func (b pinBook) due(now time.Time) (service string) {
	for name, s := range b {
		if at := s.at(now); !at.IsZero() && !now.Before(at) {
			return name
		}
	}
	return ""
}

// wakes is when something may be due; zero: never.
func (b pinBook) wakes(now time.Time) (next time.Time) {
	for _, s := range b {
		if at := s.at(now); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// wrote tells how a version was written: with a revision, or deleted.
func (b pinBook) wrote(now time.Time, service string, version, revision uint64, err error) {
	s := b[service]
	s.next, s.renew, s.there = now.Add(pinPause), now.Add(pins.Renew), true
	if err != nil {
		s.next, s.renew = now.Add(retryAfter), now.Add(retryAfter)
		s.hurry = false
		return
	}
	s.written, s.revision, s.there = version, revision, revision > 0
	s.hurry = s.hurry && version != s.version
}

// revisionOf is by which revision a version, or a later one, is on the bus; 0: it is not.
func (b pinBook) revisionOf(service string, version uint64) uint64 {
	if s := b[service]; s.written >= version {
		return s.revision
	}
	return 0
}

// pinHolders are the directors that answer, and which revisions their routers hold.
type pinHolders map[string]*pinHolder

type pinHolder struct {
	heard time.Time
	held  map[string]uint64 // by service
}

const (
	holdersMost   = 64
	holdersForget = 10 * time.Second
)

func (h pinHolders) hear(now time.Time, a pins.Answer) {
	d := h[a.Director]
	if d == nil {
		if len(h) >= holdersMost {
			return
		}
		d = &pinHolder{held: map[string]uint64{}}
		h[a.Director] = d
	}
	d.heard = now
	if a.Held && (d.held[a.Service] != 0 || len(d.held) < holdersMost) {
		d.held[a.Service] = max(d.held[a.Service], a.Revision)
	}
}

// hold reports whether the routers of all directors that have answered of late hold a revision.
func (h pinHolders) hold(now time.Time, service string, revision uint64) bool {
	some := false
	for name, d := range h {
		if now.Sub(d.heard) >= holdersForget {
			delete(h, name)
			continue
		}
		if some = true; d.held[service] < revision {
			return false
		}
	}
	return some
}
