package labels

import (
	"math/bits"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// allocator gives labels of a range out in a circle, so that one that was released rests for as long as there are others: packets
// with it may still be on their way.
type allocator struct {
	first wire.Label
	size  int
	used  int
	at    int      // where the search goes on
	taken []uint64 // a bit a label; those beyond size are set
}

func newAllocator(first, last wire.Label) *allocator {
	size := int(last-first) + 1
	a := &allocator{first: first, size: size, taken: make([]uint64, (size+63)/64)}
	for i := size; i < 64*len(a.taken); i++ {
		a.taken[i/64] |= 1 << (i % 64)
	}
	return a
}

func (a *allocator) free() int { return a.size - a.used }

func (a *allocator) next() (wire.Label, bool) {
	if a.free() == 0 {
		return NoLabel, false
	}
	word, mask := a.at/64, ^uint64(0)<<(a.at%64)
	for {
		if open := ^a.taken[word] & mask; open != 0 {
			i := 64*word + bits.TrailingZeros64(open)
			a.set(i)
			a.at = (i + 1) % a.size
			return a.first + wire.Label(i), true
		}
		word, mask = (word+1)%len(a.taken), ^uint64(0)
	}
}

func (a *allocator) set(i int) {
	a.taken[i/64] |= 1 << (i % 64)
	a.used++
}

// take takes a label that was given out in a former life; false: it is not of the range, or taken.
func (a *allocator) take(label wire.Label) bool {
	i := int(label) - int(a.first)
	if i < 0 || i >= a.size || a.taken[i/64]&(1<<(i%64)) != 0 {
		return false
	}
	a.set(i)
	return true
}

// after has the search go on behind a label.
func (a *allocator) after(label wire.Label) {
	if i := int(label) - int(a.first); i >= 0 && i < a.size {
		a.at = (i + 1) % a.size
	}
}

func (a *allocator) release(label wire.Label) {
	i := int(label) - int(a.first)
	if i < 0 || i >= a.size || a.taken[i/64]&(1<<(i%64)) == 0 {
		return
	}
	a.taken[i/64] &^= 1 << (i % 64)
	a.used--
}
