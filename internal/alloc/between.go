package alloc

import (
	"slices"

	"github.com/manycast/manycast/internal/portion"
)

// Between returns the users for whose cells want says yes: before's and after's. It is nobody where the two cut their slots by
// different bits; a finer cut of the same bits can be compared.
func Between(before, after Allocation, want func(before, after int) bool) portion.Union {
	b, ok := newBoth(before, after)
	if !ok {
		return nil
	}
	return slices.DeleteFunc(portion.Union{b.slotSet(want), b.goneSet(want), b.newSet(want), b.fixedSet(want)}, func(s portion.Set) bool {
		return len(s.Permit) == 0
	})
}

// Comparable reports whether before and after cut the space by the same bits, one perhaps finer than the other.
func Comparable(before, after Allocation) bool {
	_, ok := newBoth(before, after)
	return ok
}

// Pairs yields before's and after's cell of all users, each pair perhaps several times, and nothing where the two cannot be compared.
func Pairs(before, after Allocation) func(yield func(before, after int) bool) {
	return func(yield func(before, after int) bool) {
		if b, ok := newBoth(before, after); ok {
			b.parts(func(before, after int, _ uint64) bool { return yield(before, after) })
		}
	}
}

// both are two allocations on their common slots.
type both struct {
	before, after side
	slots         Slots
}

// side is one of them.
type side struct {
	slots Slots
	fixed []cube
	finer int  // bits that the common slots have more
	apart bool // its slots are no coarser ones of the common slots
}

// newBoth fails where the two cut by different bits.
func newBoth(before, after Allocation) (both, bool) {
	if before.Zero() || after.Zero() || before.Slots.By != after.Slots.By {
		return both{}, false
	}
	return bothOf(before, after), true
}

// bothOf is what newBoth returns; where the two cut by different bits, or there is no before, only fixed portions of before are told
// apart.
func bothOf(before, after Allocation) both {
	b := both{side{slots: before.Slots, fixed: cubesOf(before.Fixed)}, side{slots: after.Slots, fixed: cubesOf(after.Fixed)}, after.Slots}
	switch {
	case before.Slots.By != after.Slots.By:
		b.before.apart = true
	case before.Slots.Bits > after.Slots.Bits:
		b.slots, b.after.finer = before.Slots, before.Slots.Bits-after.Slots.Bits
	default:
		b.before.finer = after.Slots.Bits - before.Slots.Bits
	}
	return b
}

// slot is the slot that a common one is part of.
func (s side) slot(common int) int {
	switch {
	case s.apart:
		return 0
	case s.slots.By == Prefix:
		return common >> s.finer
	}
	return common & (s.slots.Count() - 1)
}

func (s side) cell(fixed int) int { return s.slots.Count() + fixed }

// among returns which of fixed overlap c.
func among(fixed []cube, c cube) []int {
	var out []int
	for i, f := range fixed {
		if f.overlaps(c) {
			out = append(out, i)
		}
	}
	return out
}

// parts yields the cells and the size of each part in which both stay the same, empty ones left out.
func (b both) parts(yield func(before, after int, size uint64) bool) {
	left := make([]uint64, b.slots.Count())
	for slot := range left {
		left[slot] = b.slots.cube(slot).size()
	}
	for _, f := range slices.Concat(b.before.fixed, b.after.fixed) {
		b.add(left, f, -1)
	}
	for i, f := range b.before.fixed {
		for _, j := range among(b.after.fixed, f) {
			shared := f.and(b.after.fixed[j])
			b.add(left, shared, +1)
			if !yield(b.before.cell(i), b.after.cell(j), shared.size()) {
				return
			}
		}
	}
	for slot, size := range left {
		if size > 0 && !yield(b.before.slot(slot), b.after.slot(slot), size) {
			return
		}
	}
	for i, f := range b.before.fixed {
		for slot, size := range b.less(f, b.after.fixed) {
			if !yield(b.before.cell(i), b.after.slot(slot), size) {
				return
			}
		}
	}
	for j, f := range b.after.fixed {
		for slot, size := range b.less(f, b.before.fixed) {
			if !yield(b.before.slot(slot), b.after.cell(j), size) {
				return
			}
		}
	}
}

// add adds what c has of each slot, times sign.
func (b both) add(sizes []uint64, c cube, sign int) {
	for slot := range b.slots.overlapping(c) {
		sizes[slot] += uint64(sign) * c.and(b.slots.cube(slot)).size()
	}
}

// less yields what c has of each slot outside of fixed, where there is anything.
func (b both) less(c cube, fixed []cube) func(yield func(slot int, size uint64) bool) {
	return func(yield func(slot int, size uint64) bool) {
		of := among(fixed, c)
		if len(of) == 1 && fixed[of[0]] == c {
			return
		}
		for slot := range b.slots.overlapping(c) {
			part := c.and(b.slots.cube(slot))
			size := part.size()
			for _, i := range of {
				if fixed[i].overlaps(part) {
					size -= fixed[i].and(part).size()
				}
			}
			if size > 0 && !yield(slot, size) {
				return
			}
		}
	}
}

// slotSet has the wanted users who are in no fixed portion, neither before nor after.
func (b both) slotSet(want func(before, after int) bool) portion.Set {
	var set portion.Set
	wanted := make([]bool, b.slots.Count())
	for slot := range wanted {
		if wanted[slot] = want(b.before.slot(slot), b.after.slot(slot)); wanted[slot] {
			set.Permit = append(set.Permit, b.slots.Portion(slot))
		}
	}
	set.Permit = portion.Minimize(set.Permit)
	for _, f := range slices.Concat(b.before.fixed, b.after.fixed) {
		for slot := range b.slots.overlapping(f) {
			if wanted[slot] {
				set.Deny = append(set.Deny, f.portion())
				break
			}
		}
	}
	set.Deny = tidy(set.Deny)
	return set
}

// goneSet has the wanted users who were in a fixed portion and are in a slot now.
func (b both) goneSet(want func(before, after int) bool) portion.Set {
	return b.fixedToSlots(b.before, b.after, want)
}

// newSet has those who were in a slot and are in a fixed portion now.
func (b both) newSet(want func(before, after int) bool) portion.Set {
	return b.fixedToSlots(b.after, b.before, func(after, before int) bool { return want(before, after) })
}

// fixedToSlots has the wanted users of one side's fixed portions that are in none of the other's.
func (b both) fixedToSlots(one, other side, want func(one, other int) bool) portion.Set {
	var set portion.Set
	for i, f := range one.fixed {
		var parts []portion.Portion
		for slot := range b.less(f, other.fixed) {
			if want(one.cell(i), other.slot(slot)) {
				parts = append(parts, f.and(b.slots.cube(slot)).portion())
			}
		}
		if len(parts) == 0 {
			continue
		}
		set.Permit = append(set.Permit, portion.Minimize(parts)...)
		for _, j := range among(other.fixed, f) {
			set.Deny = append(set.Deny, other.fixed[j].portion())
		}
	}
	set.Deny = tidy(set.Deny)
	return set
}

// fixedSet has the wanted users who were and are in a fixed portion.
func (b both) fixedSet(want func(before, after int) bool) portion.Set {
	var set portion.Set
	for i, f := range b.before.fixed {
		for _, j := range among(b.after.fixed, f) {
			if want(b.before.cell(i), b.after.cell(j)) {
				set.Permit = append(set.Permit, f.and(b.after.fixed[j]).portion())
			}
		}
	}
	set.Permit = tidy(set.Permit)
	return set
}

// tidy sorts portions, each once.
func tidy(ps []portion.Portion) []portion.Portion {
	slices.SortFunc(ps, portion.Portion.Compare)
	return slices.Compact(ps)
}
