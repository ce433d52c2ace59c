package portion

import "slices"

// Minimize returns the same union in fewer portions where pairs differ in one bit, as the slots of one server often do.
// Disjoint portions stay disjoint. The result is sorted by Compare and not always the smallest possible.
func Minimize(ps []Portion) []Portion {
	out := append(minimize(ps, true), minimize(ps, false)...)
	slices.SortFunc(out, Portion.Compare)
	return out
}

func minimize(ps []Portion, is4 bool) []Portion {
	have := map[cube]struct{}{}
	var varies words
	for _, c := range cubes(ps, is4) {
		have[c] = struct{}{}
		varies = varies.or(c.mask)
	}
	if is4 {
		varies = varies.and(words{0, 0xffffffff})
	}
	// A merge on one bit can open the way for one on another, so go round until nothing changes.
	for merged := true; merged; {
		merged = false
		for rest := varies; !rest.isZero(); {
			b := bit(rest.top())
			rest = rest.andNot(b)
			merged = mergeBit(have, b) || merged
		}
	}
	out := make([]Portion, 0, len(have))
	for c := range have {
		out = append(out, fromWords(c.addr, c.mask, is4))
	}
	return out
}

// mergeBit replaces every pair that differs in bit b alone by one cube without that bit.
func mergeBit(have map[cube]struct{}, b words) bool {
	var halves []cube
	for c := range have {
		if c.mask.and(b).isZero() || !c.addr.and(b).isZero() {
			continue
		}
		if _, ok := have[cube{c.addr.or(b), c.mask}]; ok {
			halves = append(halves, c)
		}
	}
	for _, c := range halves {
		delete(have, c)
		delete(have, cube{c.addr.or(b), c.mask})
		have[cube{c.addr, c.mask.andNot(b)}] = struct{}{}
	}
	return len(halves) > 0
}
