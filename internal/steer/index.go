package steer

import "math/bits"

// indexBits chooses the bits of the address that are the index into the slot table: at most limit of them in at most
// maxRuns runs. All bits that the portions fix where that is possible, else those that most of them fix.
func indexBits(cubes []cube, limit int) uint32 {
	var votes [32]int
	hosts := 0
	for _, c := range cubes {
		if c.mask == hostMask {
			hosts++
			continue
		}
		for m := c.mask; m != 0; m &= m - 1 {
			votes[bits.TrailingZeros32(m)]++
		}
	}
	var chosen uint32
	for {
		best := -1
		for b := 31; b >= 0; b-- {
			if votes[b] > 0 && (best < 0 || votes[b] > votes[best]) {
				best = b
			}
		}
		if best < 0 {
			break
		}
		votes[best] = 0
		if with := chosen | 1<<best; fits(with, limit) {
			chosen = with
		}
	}
	// Overrides of one address cost a probe in their slot alone: spread them by the low bits, which tell users apart best.
	for b := 0; b < 32 && 1<<bits.OnesCount32(joinRuns(chosen)) < 8*hosts; b++ {
		if with := chosen | 1<<b; fits(with, limit) {
			chosen = with
		}
	}
	return joinRuns(chosen)
}

func fits(mask uint32, limit int) bool { return bits.OnesCount32(joinRuns(mask)) <= limit }

// joinRuns adds the bits of the narrowest gaps until there are no more than maxRuns runs.
func joinRuns(mask uint32) uint32 {
	for len(runsOf(mask)) > maxRuns {
		var narrowest uint32
		for rest := mask; ; {
			low := rest & -rest
			rest &= rest + low // without the lowest run
			if rest == 0 {
				break
			}
			gap := (rest&-rest - 1) &^ (low - 1) &^ mask
			if narrowest == 0 || bits.OnesCount32(gap) < bits.OnesCount32(narrowest) {
				narrowest = gap
			}
		}
		mask |= narrowest
	}
	return mask
}
