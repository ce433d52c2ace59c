package membership

import (
	"net/netip"
	"time"
)

// querier is the election and the general queries of one port (RFC 3376 sections 6.6.1 and 6.6.2).
type querier struct {
	own        netip.Addr
	other      netip.Addr // the querier when it is not this router
	otherUntil time.Time  // Other Querier Present Timer
	startup    int        // startup queries still to be sent
	generalAt  time.Time
}

// is tells whether this router asks on the port.
func (q *querier) is(now time.Time) bool { return !q.other.IsValid() || !now.Before(q.otherUntil) }

// heard notes another router's query: the lower address asks.
func (q *querier) heard(now time.Time, source netip.Addr, present time.Duration) {
	switch {
	case !source.Less(q.own) || source.IsUnspecified():
		return
	case q.is(now) || !q.other.Less(source):
		q.other = source
		q.otherUntil = now.Add(present)
	}
}

// general tells whether a general query is due and sets the time of the next one.
func (q *querier) general(now time.Time, interval time.Duration) bool {
	if q.other.IsValid() && !now.Before(q.otherUntil) { // the other one is silent: take over at once
		q.other, q.generalAt = netip.Addr{}, now
	}
	if q.other.IsValid() || q.generalAt.After(now) {
		return false
	}
	if q.startup > 0 {
		q.startup--
	}
	if q.startup > 0 {
		interval /= 4 // Startup Query Interval
	}
	q.generalAt = now.Add(interval)
	return true
}

func (q *querier) next() time.Time {
	if q.other.IsValid() {
		return q.otherUntil
	}
	return q.generalAt
}
