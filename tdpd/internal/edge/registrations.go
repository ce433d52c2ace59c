package edge

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// serversMost is how many servers are taken from the bus: whoever may register there could make up any number.
const serversMost = 50_000

// registrations are the servers on the bus. One whose registration vanishes, or is renewed no more, stays for a while: an agent that
// restarts takes its own back and registers again. It is pure: entries and time in.
type registrations struct {
	linger  time.Duration
	at      map[string]registration  // by key of the bucket
	users   map[netip.Addr]int       // how many of at an address has
	leaving map[netip.Addr]time.Time // without a registration; zero: until the bus has told all there are
	refused uint64                   // servers beyond serversMost
}

type registration struct {
	address netip.Addr
	renewed time.Time // by the bus' clock
}

// newRegistrations begins with servers that were known before, until the bus tells which are there.
func newRegistrations(before []netip.Addr, linger time.Duration) *registrations {
	r := &registrations{linger: linger, at: map[string]registration{}, users: map[netip.Addr]int{}, leaving: map[netip.Addr]time.Time{}}
	for _, a := range before {
		r.leaving[a] = time.Time{}
	}
	return r
}

// take takes an entry of the bucket, and says whether servers are others than before.
func (r *registrations) take(now time.Time, e bus.Entry) (changed bool) {
	if e.Synced {
		for a, until := range r.leaving {
			if until.IsZero() {
				r.leaving[a] = now.Add(r.linger)
			}
		}
		return r.expire(now)
	}
	next := addressIn(e)
	had, known := r.at[e.Key]
	if known && had.address == next {
		r.at[e.Key] = registration{next, e.Created}
		return false
	}
	if !known && !next.IsValid() {
		return false
	}
	if next.IsValid() && r.users[next] == 0 && len(r.users) >= serversMost {
		r.refused++
		next = netip.Addr{}
	}
	if next.IsValid() {
		_, was := r.leaving[next]
		changed = r.users[next] == 0 && !was
		r.at[e.Key] = registration{next, e.Created}
		r.users[next]++
		delete(r.leaving, next)
	} else {
		delete(r.at, e.Key)
	}
	if known {
		r.leave(now, had.address)
	}
	return r.expire(now) || changed
}

// leave counts one registration of an address less.
func (r *registrations) leave(now time.Time, a netip.Addr) {
	if r.users[a]--; r.users[a] == 0 {
		delete(r.users, a)
		r.leaving[a] = now.Add(r.linger)
	}
}

// renewedWithin is how old a registration that is renewed twice a second cannot be.
const renewedWithin = 10 * time.Second

// silent takes registrations that have not been renewed for as long as a server lingers for gone, and says whether servers are others
// than before: nobody takes back that of a server that is switched off. busNow is by the clock of the bus.
func (r *registrations) silent(now, busNow time.Time) bool {
	for key, a := range r.at {
		if busNow.Sub(a.renewed) >= max(r.linger, renewedWithin) {
			delete(r.at, key)
			r.leave(now.Add(-r.linger), a.address)
		}
	}
	return r.expire(now)
}

// addressIn is the address of a registration; the zero Addr where there is none that a tree could lead to.
func addressIn(e bus.Entry) netip.Addr {
	var p allocv1.Registration
	if e.Deleted || proto.Unmarshal(e.Value, &p) != nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(p.GetAddress())
	if err != nil || a.Zone() != "" {
		return netip.Addr{}
	}
	if a = a.Unmap(); !a.IsGlobalUnicast() {
		return netip.Addr{}
	}
	return a
}

// expire lets servers go whose time is over.
func (r *registrations) expire(now time.Time) (changed bool) {
	for a, until := range r.leaving {
		if !until.IsZero() && !now.Before(until) {
			delete(r.leaving, a)
			changed = true
		}
	}
	return changed
}

// next is when a server goes; zero: none does.
func (r *registrations) next() (next time.Time) {
	for _, until := range r.leaving {
		if !until.IsZero() && (next.IsZero() || until.Before(next)) {
			next = until
		}
	}
	return next
}

// all are the servers, in order.
func (r *registrations) all() []netip.Addr {
	out := slices.AppendSeq(make([]netip.Addr, 0, len(r.users)+len(r.leaving)), maps.Keys(r.users))
	out = slices.AppendSeq(out, maps.Keys(r.leaving))
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}
