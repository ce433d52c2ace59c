package director

import (
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
)

// listenFor is how long a director listens before it says that somebody is not there: members report once a second.
const listenFor = 3 * time.Second

// refusal decides which services have no server left. It is pure.
type refusal struct {
	silence     time.Duration
	since       time.Time // it listens
	members     map[string]heard
	allocations map[string]alloc.Allocation
}

type heard struct {
	serves bool
	isAway bool      // not heard, or nothing can be said of it
	since  time.Time // serves
}

func newRefusal(now time.Time, silence time.Duration) *refusal {
	return &refusal{silence: silence, since: now, members: map[string]heard{}, allocations: map[string]alloc.Allocation{}}
}

// hear takes what is new of members. One that hears nobody serves still.
func (r *refusal) hear(now time.Time, members []control.Member) {
	for _, m := range members {
		h := heard{
			serves: m.Health == control.Available || m.Health == control.Unknown || m.Health == control.Unwell && m.Why == control.Deaf,
			isAway: m.Health == control.Silent || m.Health == control.Unknown, since: now,
		}
		if old, known := r.members[m.Name]; known && old.serves == h.serves {
			h.since = old.since
		}
		r.members[m.Name] = h
	}
}

// allocate takes a service's allocation; the zero one forgets it.
func (r *refusal) allocate(service string, a alloc.Allocation) {
	if a.Zero() {
		delete(r.allocations, service)
		return
	}
	r.allocations[service] = a
}

// refuses reports whether none of a service's servers was there for the silence. Whoever hears nobody at all cannot say that.
func (r *refusal) refuses(now time.Time, service string) bool {
	a, ok := r.allocations[service]
	if !ok || r.isDeaf() {
		return false
	}
	for _, name := range a.Servers {
		if until := r.goneAt(name); until.IsZero() || now.Before(until) {
			return false
		}
	}
	return true
}

// goneAt is from when on a server counts as gone; zero: it may serve.
func (r *refusal) goneAt(server string) time.Time {
	h, known := r.members[server]
	ready := r.since.Add(listenFor)
	switch {
	case known && h.serves:
		return time.Time{}
	case known && h.since.Add(r.silence).After(ready):
		return h.since.Add(r.silence)
	}
	return ready
}

func (r *refusal) isDeaf() bool {
	for _, h := range r.members {
		if !h.isAway {
			return false
		}
	}
	return true
}

// next is when time alone may change what is refused; zero: never.
func (r *refusal) next(now time.Time) time.Time {
	var next time.Time
	for _, a := range r.allocations {
		for _, name := range a.Servers {
			if at := r.goneAt(name); at.After(now) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return next
}
