package steer

import "math/bits"

// paint fills the slots where all portions are made of whole slots and nothing is denied, as large groups' are: from the last claim to
// win to the first, each over those behind it. It says whether that was so; the tree of compiler.node finds the same, and more slowly.
func (c *compiler) paint(cubes []cube) bool {
	looks := 0
	for _, q := range cubes {
		if q.deny || q.mask&^c.index != 0 {
			return false
		}
		if looks += 1 << bits.OnesCount32(c.index&^q.mask); looks > c.work {
			return false
		}
	}
	c.work -= looks
	at := Plan{runs: runsOf(c.index)}
	for i := len(cubes) - 1; i >= 0; i-- {
		q := cubes[i]
		open := c.index &^ q.mask
		for v := uint32(0); ; v = (v - open) & open { // all values of the open bits
			c.slots[at.index(q.addr|v)] = uint32(c.owners[q.claim])
			if v == open {
				break
			}
		}
	}
	return true
}
