package alloc

import (
	"cmp"
	"slices"
)

// Space is how many addresses the IPv4 space has.
const Space = 1 << 32

// Move says what changes from one allocation to the next. Users are counted by the addresses of the IPv4 space.
type Move struct {
	Moved  uint64 // users who get another owner
	Needed uint64 // the fewest that any allocation with the wanted shares and fixed portions moves

	Slots       int            // that get another owner
	SlotsNeeded int            // the fewest that have to
	Gained      map[string]int // slots won less slots lost, per server whose share changes

	// Waiting are fixed portions that were wanted and are not there: in the midst of the move routers would have no room for them beside the last
	// allocation's. The allocation after can have them.
	Waiting []Fixed
}

// FractionMoved is the part of the source space that moves: 0..1.
func (m Move) FractionMoved() float64 { return float64(m.Moved) / Space }

// FractionNeeded is the part that has to.
func (m Move) FractionNeeded() float64 { return float64(m.Needed) / Space }

// moveOf counts what moved, and finds apart from how slots were placed what had to.
func moveOf(prev, next Allocation, c carried, weights []int) Move {
	m := c.slotMove(next)
	slots, users := c.mostKept(weights)
	m.SlotsNeeded = next.Slots.Count() - slots
	stay := uint64(0)
	c.parts.parts(func(before, after int, size uint64) bool {
		wasFixed, isFixed := before >= prev.Slots.Count(), after >= next.Slots.Count()
		if c.anew && (!wasFixed || !isFixed) || c.before[before] != next.Owner[after] {
			return true
		}
		stay += size
		// What is fixed stays if it may; and what was, and goes with a slot that happens to come to its owner.
		if isFixed || wasFixed && c.before[before] != c.owner[after] {
			users += size
		}
		return true
	})
	m.Moved, m.Needed = Space-stay, Space-users
	return m
}

// slotMove counts slots.
func (c carried) slotMove(next Allocation) Move {
	m := Move{Gained: map[string]int{}}
	for i, was := range c.owner {
		if was == next.Owner[i] {
			continue
		}
		m.Slots++
		m.Gained[next.OwnerOf(i)]++
		if was != None {
			m.Gained[next.Servers[was]]--
		}
	}
	for name, n := range m.Gained {
		if n == 0 {
			delete(m.Gained, name)
		}
	}
	return m
}

// mostKept returns the most slots that servers may keep, and the users who stay with them. A server may keep what it has up to its
// exact share rounded down, and one more where the share has a rest, as long as rests are left to give.
func (c carried) mostKept(weights []int) (slots int, users uint64) {
	total := 0
	for _, w := range weights {
		total += w
	}
	held := make([][]uint64, len(weights))
	for i, o := range c.owner {
		if o != None {
			held[o] = append(held[o], c.kept[i])
		}
	}
	rests := len(c.owner)
	var more []uint64 // of each server that may keep one more
	for o, w := range weights {
		exact := len(c.owner) * w
		share := exact / total
		rests -= share
		slices.SortFunc(held[o], func(a, b uint64) int { return cmp.Compare(b, a) })
		for _, size := range held[o][:min(len(held[o]), share)] {
			slots, users = slots+1, users+size
		}
		if len(held[o]) > share && exact%total > 0 {
			more = append(more, held[o][share])
		}
	}
	slices.SortFunc(more, func(a, b uint64) int { return cmp.Compare(b, a) })
	for _, size := range more[:min(len(more), rests)] {
		slots, users = slots+1, users+size
	}
	return slots, users
}
