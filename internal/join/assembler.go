package join

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/portion"
)

// What Assembler.Add refuses.
var (
	ErrSuperseded = errors.New("part of a set that a newer one has replaced")
	ErrMixed      = errors.New("part does not agree with the others of its set")
	ErrFull       = errors.New("too many incomplete sets or portions")
)

// MaxPortions is how many portions of one set routers take, owner and standby, permitted and denied ones together.
const MaxPortions = 16384

// Limits bound an Assembler. Zero fields take the defaults.
type Limits struct {
	Sets     int           // incomplete sets at a time, default 1024
	Portions int           // portions of one set, default MaxPortions
	Wait     time.Duration // how long a set may stay incomplete, default 10 s
}

// Set is a complete set of a requester for a group.
type Set struct {
	Join            // of the first part; Part and Parts are 1, Owner and Standby those of the whole set
	Signed []Signed // the parts as they travelled, in order
}

// Assembler puts the parts of sets together. It takes admitted parts in any order, repeated or not, and keeps one
// incomplete set per requester and group: the one of the highest epoch, and within an epoch the latest by SetTime.
type Assembler struct {
	limits  Limits
	pending map[setKey]*pendingSet
}

type setKey struct{ requester, group netip.Addr }

type pendingSet struct {
	began    time.Time // local clock
	any      Join      // one of the parts
	parts    []Signed  // by part number; not there yet: Raw is nil
	missing  int
	portions int
}

// NewAssembler returns an empty Assembler.
func NewAssembler(limits Limits) *Assembler {
	if limits.Sets <= 0 {
		limits.Sets = 1024
	}
	if limits.Portions <= 0 {
		limits.Portions = MaxPortions
	}
	if limits.Wait <= 0 {
		limits.Wait = 10 * time.Second
	}
	return &Assembler{limits: limits, pending: make(map[setKey]*pendingSet)}
}

// Add takes one part. The set comes back, true, when all of its parts are there. A repeated part changes nothing.
// Errors wrap ErrSuperseded, ErrMixed or ErrFull; the part is dropped then, and what was there before stays.
func (a *Assembler) Add(now time.Time, s Signed) (Set, bool, error) {
	key := setKey{s.Requester, s.Group}
	p := a.pending[key]
	if p != nil && now.Sub(p.began) >= a.limits.Wait {
		delete(a.pending, key)
		p = nil
	}
	if p != nil {
		switch order := compareSets(s.Join, p.any); {
		case order < 0:
			return Set{}, false, fmt.Errorf("part %d of %d at %v of %v: %w", s.Part, s.Parts, s.Epoch, s.Requester, ErrSuperseded)
		case order > 0:
			p = nil
		case !sameSet(s.Join, p.any):
			return Set{}, false, fmt.Errorf("part %d of %d at %v of %v: %w", s.Part, s.Parts, s.Epoch, s.Requester, ErrMixed)
		}
	}
	if p == nil && s.Parts == 1 && s.portions() <= a.limits.Portions { // the usual set needs no room to wait in
		delete(a.pending, key)
		return Set{Join: s.Join, Signed: []Signed{s}}, true, nil
	}
	if p == nil {
		if _, replaced := a.pending[key]; !replaced && s.Parts > 1 && a.full(now) {
			return Set{}, false, fmt.Errorf("part %d of %d of %v: %w", s.Part, s.Parts, s.Requester, ErrFull)
		}
		p = &pendingSet{began: now, any: s.Join, parts: make([]Signed, s.Parts), missing: int(s.Parts)}
	}
	if p.parts[s.Part-1].Raw != nil {
		return Set{}, false, nil
	}
	if p.portions+s.portions() > a.limits.Portions {
		return Set{}, false, fmt.Errorf("part %d of %d of %v, more than %d portions: %w", s.Part, s.Parts, s.Requester, a.limits.Portions, ErrFull)
	}
	p.parts[s.Part-1] = s
	p.portions += s.portions()
	if p.missing--; p.missing > 0 {
		a.pending[key] = p
		return Set{}, false, nil
	}
	delete(a.pending, key)
	return merge(p.parts), true, nil
}

// Pending is the number of incomplete sets.
func (a *Assembler) Pending() int { return len(a.pending) }

// Forget drops what is incomplete for a requester and group, as when it left.
func (a *Assembler) Forget(requester, group netip.Addr) {
	delete(a.pending, setKey{requester, group})
}

// Expire drops sets that stayed incomplete for too long and returns how many they were.
func (a *Assembler) Expire(now time.Time) int {
	n := 0
	for key, p := range a.pending {
		if now.Sub(p.began) >= a.limits.Wait {
			delete(a.pending, key)
			n++
		}
	}
	return n
}

func (a *Assembler) full(now time.Time) bool {
	if len(a.pending) < a.limits.Sets {
		return false
	}
	return a.Expire(now) == 0
}

// compareSets orders the sets that two parts belong to by epoch, then by time.
func compareSets(x, y Join) int {
	if c := x.Epoch.Compare(y.Epoch); c != 0 {
		return c
	}
	return x.SetTime().Compare(y.SetTime())
}

// sameSet reports whether two parts of one epoch and set time agree in what all parts share.
func sameSet(x, y Join) bool {
	return x.Parts == y.Parts && x.Link == y.Link && x.KeyID == y.KeyID && x.Leave == y.Leave && x.Change == y.Change
}

func merge(parts []Signed) Set {
	set := Set{Join: parts[0].Join, Signed: parts}
	set.Part, set.Parts = 1, 1
	if len(parts) == 1 {
		return set
	}
	set.Owner, set.Standby = portion.Set{}, portion.Set{}
	for _, p := range parts {
		set.Owner.Permit = append(set.Owner.Permit, p.Owner.Permit...)
		set.Owner.Deny = append(set.Owner.Deny, p.Owner.Deny...)
		set.Standby.Permit = append(set.Standby.Permit, p.Standby.Permit...)
		set.Standby.Deny = append(set.Standby.Deny, p.Standby.Deny...)
	}
	return set
}
