package portion

import (
	"encoding/binary"
	"maps"
	"math/bits"
	"slices"
)

// Bounds of an Index.
const (
	indexBits   = 12
	maxFan      = 8    // bits that a portion may leave open: it lies in 2^maxFan buckets
	indexSpare  = 1024 // buckets that a set may lie in, beside indexPer for each portion
	indexPer    = 4
	indexGrowth = 2       // the bits are chosen anew when there are so many times the sets
	indexLooks  = 1 << 20 // at portions in the buckets, of one question
)

// Index finds among many sets those whose permitted portions meet another's, by a look at a few buckets for each portion where sets are
// made of slots. Sets in too many buckets, and those that are not of IPv4 alone, are found always. It is not for use by several
// goroutines at a time.
type Index[K comparable] struct {
	bits    uint32 // of the address, that choose a bucket
	sets    map[K]Set
	chosen  int // sets that there were when the bits were chosen
	buckets map[uint32][]indexed[K]
	wide    map[K]bool
}

type indexed[K comparable] struct {
	addr, mask uint32
	key        K
}

// NewIndex returns an Index of no sets.
func NewIndex[K comparable]() *Index[K] {
	return &Index[K]{sets: make(map[K]Set), buckets: make(map[uint32][]indexed[K]), wide: make(map[K]bool)}
}

// Len is how many sets there are.
func (x *Index[K]) Len() int { return len(x.sets) }

// Put adds a set, in place of the key's former one. The Index keeps it: it must not be changed.
func (x *Index[K]) Put(key K, s Set) {
	x.Remove(key)
	x.sets[key] = s
	if len(x.sets) > indexGrowth*x.chosen {
		x.choose()
		return
	}
	x.enter(key, s)
}

// Remove takes a set out.
func (x *Index[K]) Remove(key K) {
	s, known := x.sets[key]
	if !known {
		return
	}
	delete(x.sets, key)
	if x.wide[key] {
		delete(x.wide, key)
		return
	}
	done := make(map[uint32]bool, len(s.Permit))
	for _, p := range s.Permit {
		for b := range x.bucketsOf(cube4(p)) {
			if done[b] {
				continue
			}
			done[b] = true
			x.buckets[b] = slices.DeleteFunc(x.buckets[b], func(e indexed[K]) bool { return e.key == key })
			if len(x.buckets[b]) == 0 {
				delete(x.buckets, b)
			}
		}
	}
}

// Meeting returns the keys of all sets that permit an address which s permits, too, whatever either denies, and of some others. What
// they deny, Overlap takes into account.
func (x *Index[K]) Meeting(s Set) []K {
	if !x.narrow(s) {
		return slices.Collect(maps.Keys(x.sets))
	}
	seen := maps.Clone(x.wide)
	left := indexLooks
	for _, p := range s.Permit {
		c := cube4(p)
		for b := range x.bucketsOf(c) {
			if left -= len(x.buckets[b]); left < 0 {
				return slices.Collect(maps.Keys(x.sets))
			}
			for _, e := range x.buckets[b] {
				if (c.addr^e.addr)&c.mask&e.mask == 0 {
					seen[e.key] = true
				}
			}
		}
	}
	return slices.Collect(maps.Keys(seen))
}

// choose takes the bits that most portions fix.
func (x *Index[K]) choose() {
	var votes [32]int
	for _, s := range x.sets {
		for _, p := range s.Permit {
			if !p.Is4() {
				continue
			}
			for m := cube4(p).mask; m != 0; m &= m - 1 {
				votes[bits.TrailingZeros32(m)]++
			}
		}
	}
	x.bits = 0
	for range indexBits {
		best := -1
		for b, n := range votes {
			if n > 0 && (best < 0 || n > votes[best]) {
				best = b
			}
		}
		if best < 0 {
			break
		}
		x.bits |= 1 << best
		votes[best] = 0
	}
	x.chosen = len(x.sets)
	clear(x.buckets)
	clear(x.wide)
	for key, s := range x.sets {
		x.enter(key, s)
	}
}

func (x *Index[K]) enter(key K, s Set) {
	if !x.narrow(s) {
		x.wide[key] = true
		return
	}
	for _, p := range s.Permit {
		c := cube4(p)
		for b := range x.bucketsOf(c) {
			x.buckets[b] = append(x.buckets[b], indexed[K]{c.addr, c.mask, key})
		}
	}
}

// narrow says whether a set lies in few buckets.
func (x *Index[K]) narrow(s Set) bool {
	room := indexSpare + indexPer*len(s.Permit)
	for _, p := range s.Permit {
		if !p.IsValid() || !p.Is4() {
			return false
		}
		open := bits.OnesCount32(x.bits &^ cube4(p).mask)
		if open > maxFan {
			return false
		}
		if room -= 1 << open; room < 0 {
			return false
		}
	}
	return true
}

// bucketsOf yields the buckets that a portion lies in.
func (x *Index[K]) bucketsOf(c indexed[struct{}]) func(func(uint32) bool) {
	open := x.bits &^ c.mask
	return func(yield func(uint32) bool) {
		for v := uint32(0); ; v = (v - open) & open { // all values of the open bits
			if !yield(c.addr&x.bits | v) {
				return
			}
			if v == open {
				return
			}
		}
	}
}

func cube4(p Portion) indexed[struct{}] {
	addr, mask := p.Addr.As4(), p.Mask.As4()
	return indexed[struct{}]{addr: binary.BigEndian.Uint32(addr[:]), mask: binary.BigEndian.Uint32(mask[:])}
}
