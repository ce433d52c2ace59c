package alloc

// carried is what the allocation before means for the slots and servers of the next one; None is who may own nothing any more.
type carried struct {
	before         []uint16 // owners of prev's cells
	owner, standby []uint16 // of the new slots
	kept           []uint64 // per new slot the users who stay if it keeps its owner
	parts          both     // of prev and the next one
	anew           bool     // what was in slots moves, whoever had it
}

// carry brings prev to the new slots and servers. A finer cut of the same bits keeps the owners, any other change of the slots
// starts anew.
func carry(prev Allocation, want Want, names []string, fixed []Fixed) carried {
	next := Allocation{Slots: want.Slots, Servers: names, Fixed: portionsOf(fixed)}
	c := carried{owner: nobody(next.Slots.Count()), standby: nobody(next.Slots.Count()), kept: make([]uint64, next.Slots.Count())}
	c.anew = prev.Zero() || prev.Slots.By != next.Slots.By || prev.Slots.Bits > next.Slots.Bits
	renumber := renumbering(prev, next)
	for _, o := range prev.Owner {
		c.before = append(c.before, renumber(o))
	}
	c.parts = bothOf(prev, next)
	if c.anew {
		return c
	}
	for i := range c.owner {
		old := c.parts.before.slot(i)
		c.owner[i], c.standby[i] = c.before[old], renumber(prev.Standby[old])
	}
	c.weigh(prev)
	return c
}

// renumbering gives prev's servers their numbers in next.
func renumbering(prev, next Allocation) func(uint16) uint16 {
	numbers := nobody(len(prev.Servers))
	for i, name := range prev.Servers {
		if j, ok := next.index(name); ok {
			numbers[i] = j
		}
	}
	return func(old uint16) uint16 {
		if old == None {
			return None
		}
		return numbers[old]
	}
}

func nobody(n int) []uint16 {
	out := make([]uint16, n)
	for i := range out {
		out[i] = None
	}
	return out
}

// weigh finds out who stays in a slot that keeps its owner: not those in fixed portions to come, nor those whom a fixed portion that
// goes gives back, unless it was the same owner's.
func (c *carried) weigh(prev Allocation) {
	c.parts.parts(func(before, after int, size uint64) bool {
		if after < len(c.kept) && (before < prev.Slots.Count() || c.before[before] == c.owner[after]) {
			c.kept[after] += size
		}
		return true
	})
}
