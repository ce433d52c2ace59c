package portion

import "net/netip"

// status says how much of the cube at hand a region takes.
type status uint8

const (
	no    status = iota // nothing
	yes                 // all of it
	maybe               // to be seen by splitting
)

// verdict is what a search does with the cube at hand.
type verdict uint8

const (
	split   verdict = iota
	found           // every address of the cube is what was searched for
	prune           // no address of it is
	tooHard         // the bound of work was reached
)

func verdictOf(isFound, isNone bool) verdict {
	switch {
	case isFound:
		return found
	case isNone:
		return prune
	}
	return split
}

// region is the part of a set that concerns the cube at hand.
type region struct{ permit, deny []cube }

func (r region) status(c cube) status {
	if len(r.permit) == 0 {
		return no
	}
	for _, d := range r.deny {
		if d.covers(c) {
			return no
		}
	}
	if len(r.deny) > 0 {
		return maybe
	}
	for _, p := range r.permit {
		if p.covers(c) {
			return yes
		}
	}
	return maybe
}

// searcher halves the address space until decide knows each part: a decision tree over the bits that matter.
type searcher struct {
	decide func([]status) verdict
	left   int // cubes that may still be looked at
}

// search looks for an address for which decide, given the status of every region, says found. It returns found with such an
// address, prune when there is none, or tooHard.
func search(is4 bool, regions []region, decide func([]status) verdict) (netip.Addr, verdict) {
	space := All6().cube()
	if is4 {
		space = All4().cube()
	}
	n := 0
	for _, r := range regions {
		n += len(r.permit) + len(r.deny)
	}
	// A partition by slots takes some 20 looks at each cube.
	s := searcher{decide: decide, left: 1<<20 + 256*n}
	w, v := s.walk(space, regions)
	if v != found {
		return netip.Addr{}, v
	}
	return w.addr(is4), v
}

func (s *searcher) walk(c cube, regions []region) (words, verdict) {
	states := make([]status, len(regions))
	for i, r := range regions {
		s.left -= 1 + len(r.permit) + len(r.deny)
		states[i] = r.status(c)
	}
	v := s.decide(states)
	if v != split {
		return c.addr, v
	}
	if s.left < 0 {
		return words{}, tooHard
	}
	b := splitBit(c, regions, states)
	for _, value := range []words{{}, b} {
		half := cube{addr: c.addr.or(value), mask: c.mask.or(b)}
		parts := make([]region, len(regions))
		for i, r := range regions {
			if states[i] != no { // what is nothing here stays nothing
				parts[i] = region{permit: within(r.permit, half), deny: within(r.deny, half)}
			}
		}
		if w, v := s.walk(half, parts); v != prune {
			return w, v
		}
	}
	return words{}, prune
}

// within returns the cubes that overlap half; the same slice when all do.
func within(cs []cube, half cube) []cube {
	i := 0
	for i < len(cs) && cs[i].overlaps(half) {
		i++
	}
	if i == len(cs) {
		return cs
	}
	out := make([]cube, i, len(cs))
	copy(out, cs)
	for _, c := range cs[i+1:] {
		if c.overlaps(half) {
			out = append(out, c)
		}
	}
	return out
}

// splitBit returns the bit that most of a sample of the undecided cubes fix. Any bit gives the right answer, a good one soon.
func splitBit(c cube, regions []region, states []status) words {
	const sample = 16
	var votes [128]uint8
	best := -1
	for i, r := range regions {
		if states[i] != maybe {
			continue
		}
		for _, cs := range [][]cube{r.deny, r.permit} {
			for j := range min(sample, len(cs)) {
				for m := cs[j*len(cs)/min(sample, len(cs))].mask.andNot(c.mask); !m.isZero(); {
					b := m.top()
					m = m.andNot(bit(b))
					if votes[b] < 255 {
						votes[b]++
					}
					if best < 0 || votes[b] > votes[best] {
						best = b
					}
				}
			}
		}
	}
	return bit(best)
}
