// Package page takes pages out of what has no order: one pass over all, and memory for the page alone.
package page

import (
	"iter"
	"slices"
)

// Behind returns the first of all that come after a place, in their order: at most as many as most.
func Behind[T any](all iter.Seq[T], compare func(a, b T) int, after func(T) bool, most int) []T {
	var out []T
	full := false // what out[most-1] is less than is on no page
	cut := func() {
		slices.SortFunc(out, compare)
		if full = len(out) >= most; full {
			out = out[:most]
		}
	}
	for x := range all {
		if full && compare(out[most-1], x) <= 0 || !after(x) {
			continue
		}
		out = append(out, x)
		if len(out)/2 >= most {
			cut()
		}
	}
	cut()
	return out
}
