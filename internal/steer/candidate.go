package steer

import (
	"cmp"
	"math/bits"
	"slices"
)

// candidate is a choice of index bits and what the portions would cost beside it.
type candidate struct {
	index   uint32
	masks   int // at most, were all portions to meet that can by their masks
	entries int
}

// tried is how many candidates are tried before a plan is let grow.
const tried = 6

// candidates returns the most promising choices of index bits, the best first: the bits that most portions fix, and low and high ends
// of the address, for that is how spaces are cut. A cut of which a bit is not in the index multiplies the masks of all portions
// across it.
func candidates(cubes []cube) []candidate {
	kinds := kindsOf(cubes)
	var all []candidate
	seen := map[uint32]bool{}
	add := func(index uint32) {
		if !seen[index] {
			seen[index] = true
			all = append(all, appraise(index, kinds))
		}
	}
	for _, limit := range []int{maxIndexBits, 12, 8} {
		add(indexBits(cubes, limit))
	}
	for low := range maxIndexBits + 1 {
		for high := range maxIndexBits + 1 - low {
			add(uint32(1)<<low - 1 | ^(hostMask >> high))
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.masks, b.masks), cmp.Compare(a.entries, b.entries))
	})
	all = slices.DeleteFunc(all, func(c candidate) bool { return c.entries > budgets[0].entries })
	return all[:min(len(all), tried)]
}

// kindsOf counts the different portions of each mask, single addresses left out.
func kindsOf(cubes []cube) map[uint32]int {
	type key struct{ addr, mask uint32 }
	seen := make(map[key]bool)
	kinds := make(map[uint32]int)
	for _, c := range cubes {
		if k := (key{c.addr, c.mask}); c.mask != hostMask && !seen[k] {
			seen[k] = true
			kinds[c.mask]++
		}
	}
	return kinds
}

// appraise finds out what portions cost beside an index.
func appraise(index uint32, kinds map[uint32]int) candidate {
	c := candidate{index: index}
	masks := map[uint32]bool{}
	for m, n := range kinds {
		rest := m &^ index
		if rest == 0 {
			continue
		}
		c.entries += n << bits.OnesCount32(index&^m)
		if rest|index != hostMask { // else single users of their slot
			masks[rest] = true
		}
	}
	c.masks = len(masks)
	if c.masks > 2*maxMasks {
		return c
	}
	own := make([]uint32, 0, len(masks))
	for m := range masks {
		own = append(own, m)
	}
	for i, a := range own {
		for _, b := range own[:i] {
			masks[a|b] = true
		}
	}
	c.masks = len(masks)
	return c
}
