package steering

import (
	"container/list"
	"net/netip"
	"time"
)

// Active are users of a reactive binding that send, by the addresses that plans know them by: of IPv6 what stands in for them
// (steer.Standin). Who was told last goes last, when its time is over or there is no room for another.
type Active struct {
	limit    int
	lifetime time.Duration
	users    map[activeUser]*list.Element
	order    *list.List // of told: the first is the next to go
}

type activeUser struct {
	address netip.Addr
	six     bool
}

type activeEntry struct {
	activeUser
	until time.Time
}

// NewActive returns one for so many users, of both families together. Who is not told again is active for a lifetime.
func NewActive(limit int, lifetime time.Duration) *Active {
	return &Active{limit, lifetime, map[activeUser]*list.Element{}, list.New()}
}

// Add says that a user, of IPv6 or not, is active; true: it was not.
func (a *Active) Add(now time.Time, address netip.Addr, six bool) bool {
	u := activeUser{address, six}
	until := now.Add(a.lifetime)
	if e := a.users[u]; e != nil {
		e.Value = activeEntry{u, until}
		a.order.MoveToBack(e)
		return false
	}
	if a.order.Len() >= a.limit {
		a.remove()
	}
	a.users[u] = a.order.PushBack(activeEntry{u, until})
	return true
}

// Expire lets time pass; true: the time of some is over.
func (a *Active) Expire(now time.Time) bool {
	before := a.order.Len()
	for next := a.Next(); !next.IsZero() && !now.Before(next); next = a.Next() {
		a.remove()
	}
	return a.order.Len() < before
}

// Next is when Expire has something to do; zero: never.
func (a *Active) Next() time.Time {
	if e := a.order.Front(); e != nil {
		return e.Value.(activeEntry).until
	}
	return time.Time{}
}

// Len is how many there are.
func (a *Active) Len() int { return a.order.Len() }

// Users are those of IPv6, or of IPv4.
func (a *Active) Users(six bool) []netip.Addr {
	out := make([]netip.Addr, 0, len(a.users))
	for u := range a.users {
		if u.six == six {
			out = append(out, u.address)
		}
	}
	return out
}

// remove removes the first.
func (a *Active) remove() {
	e := a.order.Front()
	delete(a.users, e.Value.(activeEntry).activeUser)
	a.order.Remove(e)
}
