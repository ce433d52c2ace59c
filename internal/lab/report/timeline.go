package report

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Era is the time from one committed allocation to the next.
type Era struct {
	At      time.Time
	Epoch   string
	Owner   func(user netip.Addr) string // "" is nobody
	Standby func(user netip.Addr) string // the same; nil: nobody's
}

// Timeline is all eras in the order of time.
type Timeline []Era

// Settle is how far the moment at which packets go elsewhere may be from the moment at which the new allocation was seen:
// joins travel, and old connections are closed a little later.
const Settle = 500 * time.Millisecond

// At returns the index of the era at t, -1 before the first.
func (l Timeline) At(t time.Time) int {
	i, found := slices.BinarySearchFunc(l, t, func(e Era, t time.Time) int { return e.At.Compare(t) })
	if found {
		return i
	}
	return i - 1
}

// Owner is who owned the user at t.
func (l Timeline) Owner(user netip.Addr, t time.Time) string {
	if i := l.At(t); i >= 0 {
		return l[i].Owner(user)
	}
	return ""
}

// Standby is who stood by for the user's owner at t.
func (l Timeline) Standby(user netip.Addr, t time.Time) string {
	if i := l.At(t); i >= 0 && l[i].Standby != nil {
		return l[i].Standby(user)
	}
	return ""
}

// Owned says whether server owned the user at some moment from start to end, give or take Settle.
func (l Timeline) Owned(server string, user netip.Addr, start, end time.Time) bool {
	for _, era := range l.between(start, end) {
		if era.Owner(user) == server {
			return true
		}
	}
	return false
}

// Left says whether server did not own the user at some moment from start to end, give or take Settle.
func (l Timeline) Left(server string, user netip.Addr, start, end time.Time) bool {
	for _, era := range l.between(start, end) {
		if era.Owner(user) != server {
			return true
		}
	}
	return false
}

// Tell says in words who owned the user and who stood by from start to end, give or take Settle.
func (l Timeline) Tell(user netip.Addr, start, end time.Time) string {
	var eras []string
	for _, era := range l.between(start, end) {
		standby := "nobody"
		if era.Standby != nil {
			standby = era.Standby(user)
		}
		eras = append(eras, fmt.Sprintf("from %s in epoch %s %s's, %s standing by", era.At.UTC().Format("15:04:05.000"), era.Epoch, era.Owner(user), standby))
	}
	return strings.Join(eras, ", ")
}

// between are the eras from start to end, each side widened by Settle.
func (l Timeline) between(start, end time.Time) Timeline {
	from, to := max(0, l.At(start.Add(-Settle))), l.At(end.Add(Settle))
	if to < from {
		return nil
	}
	return l[from : to+1]
}
