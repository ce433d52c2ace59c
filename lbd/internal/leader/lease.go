package leader

import (
	"fmt"
	"time"
)

// Lease is a director's claim to lead: an entry of the bucket "leases" that vanishes unless it is renewed. It is pure; times
// are this machine's. The term is the revision at which the entry was made: a fencing number that grows with each leader.
type Lease struct {
	ttl     time.Duration // of the entry
	renew   time.Duration // between renewals
	margin  time.Duration // how much sooner than the bus we give up
	highest uint64        // highest term that this director knows of

	term     uint64 // 0: not held
	revision uint64
	until    time.Time
	next     time.Time // of the next operation
}

// NewLease returns a lease that is not held. highest is the highest term seen in earlier runs.
func NewLease(ttl time.Duration, highest uint64) *Lease {
	return &Lease{ttl: ttl, renew: ttl / 4, margin: ttl / 8, highest: highest}
}

// Op is what to do with the entry.
type Op int

// Operations: nothing; make the entry; update it at the revision.
const (
	OpNone Op = iota
	OpCreate
	OpRenew
)

// Due returns what to do now, and for OpRenew at which revision.
func (l *Lease) Due(now time.Time) (op Op, revision uint64) {
	if l.term != 0 && !now.Before(l.until) {
		l.Lost()
	}
	if now.Before(l.next) {
		return OpNone, 0
	}
	l.next = now.Add(l.renew)
	if l.term == 0 {
		return OpCreate, 0
	}
	return OpRenew, l.revision
}

// Created tells that the entry was made with an operation sent at that time. A term below one seen before means that the bus
// lost its memory: leading with it would be refused by every router.
func (l *Lease) Created(sent time.Time, revision uint64) error {
	if revision <= l.highest {
		return &StaleTermError{Term: revision, Highest: l.highest}
	}
	l.term, l.highest = revision, revision
	l.Renewed(sent, revision)
	return nil
}

// Renewed tells that the entry was updated with an operation sent at that time.
func (l *Lease) Renewed(sent time.Time, revision uint64) {
	l.revision, l.until = revision, sent.Add(l.ttl-l.margin)
}

// Lost tells that somebody else has the entry, or it is gone.
func (l *Lease) Lost() { l.term, l.revision, l.until = 0, 0, time.Time{} }

// Held returns the term and how long it holds without renewal; 0 when the lease is not held.
func (l *Lease) Held(now time.Time) (term uint64, until time.Time) {
	if l.term == 0 || !now.Before(l.until) {
		return 0, time.Time{}
	}
	return l.term, l.until
}

// StaleTermError says that the bus gives terms that were used before.
type StaleTermError struct{ Term, Highest uint64 }

func (e *StaleTermError) Error() string {
	return fmt.Sprintf("the bus gave term %d, but term %d was seen before: its data directory was lost or restored; "+
		"bring the newest one back, or stop all directors, agents and routers, remove their state directories and start anew",
		e.Term, e.Highest)
}
