package mover

import "math/bits"

// Sizes counts states by their size, in steps of an eighth of a power of two, from 64 bytes up to 64 MiB, which none exceeds (peer.MaxKernel,
// peer.MaxApplication).
type Sizes struct {
	counts [steps * octaves]uint64
	Max    uint64 // bytes
}

const (
	steps     = 8 // of an octave
	octaves   = 20
	firstBits = 6 // the first octave begins behind 1<<firstBits
)

// Size is how many states had at most so many bytes, and more than the next smaller one has.
type Size struct{ UpTo, Count uint64 }

// Add counts a state.
func (s *Sizes) Add(bytes uint64) {
	s.Max = max(s.Max, bytes)
	s.counts[sizeIndex(bytes)]++
}

// sizeIndex is the first step that has room for so many bytes.
func sizeIndex(bytes uint64) int {
	if bytes <= 1<<firstBits {
		return 0
	}
	octave := bits.Len64(bytes-1) - 1 - firstBits
	within := (bytes - 1) >> (octave + firstBits - 3) & (steps - 1) // 1<<3 steps
	return min(octave*steps+int(within), steps*octaves-1)
}

// upTo is the most bytes that a state of a step has.
func upTo(index int) uint64 {
	return uint64(steps+index%steps+1) << (index/steps + firstBits - 3)
}

// Steps are those that there are states of, the smallest first.
func (s *Sizes) Steps() (out []Size) {
	for i, n := range s.counts {
		if n > 0 {
			out = append(out, Size{upTo(i), n})
		}
	}
	return out
}

// Count is how many states there were.
func (s *Sizes) Count() (n uint64) {
	for _, c := range s.counts {
		n += c
	}
	return n
}

// Octaves are how many states had at most so many bytes, for each power of two.
func (s *Sizes) Octaves() map[float64]uint64 {
	out, n := map[float64]uint64{}, uint64(0)
	for i, c := range s.counts {
		if n += c; i%steps == steps-1 {
			out[float64(upTo(i))] = n
		}
	}
	return out
}
