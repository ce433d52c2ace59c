// Package outage decides which services have no server left, by what is heard of members on the control channel. It is pure.
package outage

import (
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
)

// ListenFor is how long somebody listens before it says that others are not there: members report once a second.
const ListenFor = 3 * time.Second

// Outage is what is known of services' servers. Not safe for concurrent use.
type Outage struct {
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

// New returns an Outage of who listens from now on. Servers that are not there for the silence are gone.
func New(now time.Time, silence time.Duration) *Outage {
	return &Outage{silence: silence, since: now, members: map[string]heard{}, allocations: map[string]alloc.Allocation{}}
}

// Hear takes what is new of members. One that hears nobody serves still.
func (o *Outage) Hear(now time.Time, members []control.Member) {
	for _, m := range members {
		h := heard{
			serves: m.Health == control.Available || m.Health == control.Unknown || m.Health == control.Unwell && m.Why == control.Deaf,
			isAway: m.Health == control.Silent || m.Health == control.Unknown, since: now,
		}
		if old, known := o.members[m.Name]; known && old.serves == h.serves {
			h.since = old.since
		}
		o.members[m.Name] = h
	}
}

// Allocate takes a service's allocation; the zero one forgets it.
func (o *Outage) Allocate(service string, a alloc.Allocation) {
	if a.Zero() {
		delete(o.allocations, service)
		return
	}
	o.allocations[service] = a
}

// Of reports whether none of a service's servers was there for the silence. Whoever hears nobody at all cannot say that.
func (o *Outage) Of(now time.Time, service string) bool {
	a, ok := o.allocations[service]
	if !ok || o.isDeaf() {
		return false
	}
	for _, name := range a.Servers {
		if until := o.goneAt(name); until.IsZero() || now.Before(until) {
			return false
		}
	}
	return true
}

// goneAt is from when on a server counts as gone; zero: it may serve.
func (o *Outage) goneAt(server string) time.Time {
	h, known := o.members[server]
	ready := o.since.Add(ListenFor)
	switch {
	case known && h.serves:
		return time.Time{}
	case known && h.since.Add(o.silence).After(ready):
		return h.since.Add(o.silence)
	}
	return ready
}

func (o *Outage) isDeaf() bool {
	for _, h := range o.members {
		if !h.isAway {
			return false
		}
	}
	return true
}

// Next is when time alone may change what Of says; zero: never.
func (o *Outage) Next(now time.Time) time.Time {
	var next time.Time
	for _, a := range o.allocations {
		for _, name := range a.Servers {
			if at := o.goneAt(name); at.After(now) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return next
}
