package service

import (
	"time"

	"github.com/manycast/manycast/igmpd/internal/membership"
)

// When the way to a root changes, the router that is now the next one knows nothing of the members behind this one until their next
// joins, a whole refresh away. So what was admitted is passed on to it at once, unchanged, as long as it is timely; members whose
// last joins are not are asked, and their answers go the usual way.

// refillGap is the least time between two refills of a port, however often routes change.
const refillGap = time.Second

// refill is what a port toward a root is still to be told.
type refill struct {
	due  time.Time // zero: nothing
	last time.Time
}

// refillSoon notes that a port leads to a root that it did not lead to before.
func (s *Service) refillSoon(now time.Time, port string) {
	r := s.refills[port]
	if r.due.IsZero() {
		r.due = now
		if !r.last.IsZero() {
			r.due = later(now, r.last.Add(refillGap))
		}
		s.refills[port] = r
	}
}

// nextRefill is when a refill is due; zero: never.
func (s *Service) nextRefill() (next time.Time) {
	for _, r := range s.refills {
		if !r.due.IsZero() && (next.IsZero() || r.due.Before(next)) {
			next = r.due
		}
	}
	return next
}

// refillPorts does what is due.
func (s *Service) refillPorts(now time.Time) {
	for name, r := range s.refills {
		if r.due.IsZero() || now.Before(r.due) {
			continue
		}
		if !s.upstream[name] { // the way has changed back
			s.refills[name] = refill{last: r.last}
			continue
		}
		s.refills[name] = refill{last: now}
		relays, late := s.table.Kept(now.Add(-s.Config.Admission.Skew))
		for _, relay := range relays {
			if relay.From != name {
				s.relayBy(now, name, relay)
			}
		}
		for _, port := range late {
			s.act(s.table.AskMembers(now, port))
		}
	}
}

// relayBy notes a set for the router behind one port.
func (s *Service) relayBy(now time.Time, name string, a membership.Relay) {
	if s.pending == 0 {
		s.relayAt = now.Add(relayDelay)
	}
	s.relays[name] = append(s.relays[name], a.Joins...)
	s.pending += len(a.Joins)
}
