package alloc

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/manycast/manycast/internal/portion"
)

// MaxFixed bounds the portions that an allocation gives away beside its slots: each is in some server's join, and a probe of
// the classifier for each distinct mask.
const MaxFixed = 64

// Fixed is a portion that goes to a server of its own, whatever slots it lies in: a prefix that the operator gave to somebody, one
// that a server asked for, the half of a hot slot. Those of one Want are disjoint.
type Fixed struct {
	Portion portion.Portion // IPv4
	Owner   string
	Standby string // empty: the allocator chooses
}

// ErrFixed is wrapped by errors about fixed portions that cannot be had together.
var ErrFixed = errors.New("fixed portions")

func tooManyFixed(n int) error {
	return fmt.Errorf("%w: %d, at most %d are possible: use fewer, coarser ones", ErrFixed, n, MaxFixed)
}

// What a router can hold of a group (internal/steer; igmpd's entriesMax).
const (
	routerMasks   = 32
	routerShapes  = 256 // in one slot
	routerEntries = 1 << 15
	routerBits    = 16
	// routerMinBits is what a router may index by, though slots are fewer.
	routerMinBits = 8
)

// CheckFixed returns an error, which wraps ErrFixed, for portions that an allocation of these slots cannot have as fixed ones.
//
// Slots are the index of a router's plan. A fixed portion costs it
//   - a mask, unless another one has the same mask beside the bits of the slots: at most 32 are possible. Prefixes alone never
//     need more, for there are 32 lengths; nor do longer cuts of slots.
//   - an entry for each slot that it overlaps, in some steps of a move: half of 32,768 are possible, for in a move a router holds
//     two allocations. By suffix/8 a prefix of up to /24 overlaps all 256 slots, so 64 such are possible; by suffix/16 one of /24
//     overlaps 256, too, but one of /16 all 65,536: too many. By prefix/16 it is in one.
func CheckFixed(slots Slots, fixed []portion.Portion) error {
	if len(fixed) > MaxFixed {
		return tooManyFixed(len(fixed))
	}
	for i, p := range fixed {
		if !p.IsValid() || !p.Is4() {
			return fmt.Errorf("%w: %v is no IPv4 portion", ErrFixed, p)
		}
		if j := slices.IndexFunc(fixed[:i], p.Overlaps); j >= 0 {
			return fmt.Errorf("%w: %v and %v overlap: take one of them back, or cut it", ErrFixed, fixed[j], p)
		}
	}
	c := costOf(slots.mask(), cubesOf(fixed), nil)
	if c.masks > routerMasks {
		return fmt.Errorf("%w: they have %d different masks beside the bits of slots %v, routers can hold %d: use prefixes, or masks that are alike",
			ErrFixed, c.masks, slots, routerMasks)
	}
	if c.entries > routerEntries/2 {
		return fmt.Errorf("%w: they overlap %d slots of %v in all, routers can hold %d: use fewer or longer ones, or slots of fewer bits",
			ErrFixed, c.entries, slots, routerEntries/2)
	}
	return nil
}

// cost is what fixed portions cost a router at most.
type cost struct{ masks, shapes, entries int }

func (c cost) fits() bool {
	return c.masks <= routerMasks && c.shapes <= routerShapes && c.entries <= routerEntries
}

// costOf is for two disjoint lists at once, as in a move: where they overlap, their intersections count, too.
func costOf(index uint32, before, after []cube) cost {
	all := map[cube]bool{}
	for _, b := range before {
		all[b] = true
	}
	for _, a := range after {
		all[a] = true
		for _, b := range before {
			if a.overlaps(b) {
				all[a.and(b)] = true
			}
		}
	}
	masks := map[uint32]bool{}
	c := cost{shapes: len(all)}
	for p := range all {
		beside := p.mask &^ index
		if beside != 0 {
			c.entries += 1 << (max(bits.OnesCount32(index), routerMinBits) - bits.OnesCount32(p.mask&index))
		}
		if beside != 0 && beside|index != ^uint32(0) { // those are single users in their slot
			masks[beside] = true
		}
	}
	c.masks = len(masks)
	return c
}

// allowed returns the fixed portions that the next allocation has: those of servers that may own something. Where routers could
// not hold them beside those of prev, in the midst of the move, new ones wait for the allocation after.
func allowed(prev Allocation, want Want, names []string) (fixed, waiting []Fixed, err error) {
	wanted := slices.SortedFunc(slices.Values(want.Fixed), func(a, b Fixed) int { return a.Portion.Compare(b.Portion) })
	if err := CheckFixed(want.Slots, portionsOf(wanted)); err != nil {
		return nil, nil, err
	}
	wanted = slices.DeleteFunc(wanted, func(f Fixed) bool {
		_, ok := slices.BinarySearch(names, f.Owner)
		return !ok
	})
	if prev.Zero() || len(wanted) == 0 {
		return wanted, nil, nil
	}
	fits := func(fixed []Fixed) bool {
		index := prev.Slots.mask() | want.Slots.mask()
		return bits.OnesCount32(index) <= routerBits && costOf(index, cubesOf(prev.Fixed), cubesOf(portionsOf(fixed))).fits()
	}
	if fits(wanted) {
		return wanted, nil, nil
	}
	for _, f := range wanted {
		if slices.Contains(prev.Fixed, f.Portion) {
			fixed = append(fixed, f)
		} else {
			waiting = append(waiting, f)
		}
	}
	if fits(fixed) {
		return fixed, waiting, nil
	}
	return nil, wanted, nil
}

func portionsOf(fixed []Fixed) []portion.Portion {
	var out []portion.Portion
	for _, f := range fixed {
		out = append(out, f.Portion)
	}
	return out
}

// fix adds the fixed portions to an allocation of slots.
func (a *Allocation) fix(prev Allocation, fixed []Fixed, weights []int) {
	n := a.Slots.Count()
	a.Fixed = portionsOf(fixed)
	var open []int
	load := make([]int, len(weights))
	for i, f := range fixed {
		owner, _ := a.index(f.Owner)
		standby := a.standbyFor(prev, f, owner)
		a.Owner, a.Standby = append(a.Owner, owner), append(a.Standby, standby)
		if standby == None {
			open = append(open, n+i)
		} else {
			load[standby]++
		}
	}
	for _, cell := range open {
		s := a.Owner[cell]
		best := uint16(None)
		for o, w := range weights {
			if uint16(o) != s && (best == None || (load[o]+1)*weights[best] < (load[best]+1)*w) {
				best = uint16(o)
			}
		}
		if a.Standby[cell] = best; best != None {
			load[best]++
		}
	}
}

// standbyFor is the wanted standby of a fixed portion, else the one that it has; None: neither may be it.
func (a *Allocation) standbyFor(prev Allocation, f Fixed, owner uint16) uint16 {
	names := []string{f.Standby}
	if i := slices.Index(prev.Fixed, f.Portion); i >= 0 {
		names = append(names, prev.StandbyOf(prev.Slots.Count()+i))
	}
	for _, name := range names {
		if s, ok := a.index(name); ok && s != owner {
			return s
		}
	}
	return None
}
