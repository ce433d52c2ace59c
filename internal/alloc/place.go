package alloc

import (
	"cmp"
	"slices"
)

// place gives each of slots an owner. Before, owner holds who has the slot (None: nobody); a server of weight 0 gets
// nothing. prefer, if not nil, holds who gets a slot first when it has to move.
func place(slots []int, owner, prefer []uint16, weights []int) {
	held := make([][]int, len(weights))
	var free []int
	for _, i := range slots {
		if o := owner[i]; o == None || weights[o] == 0 {
			free = append(free, i)
		} else {
			held[o] = append(held[o], i)
		}
	}
	room := shares(len(slots), held, weights)
	for o, mine := range held {
		room[o] -= len(mine)
		if room[o] < 0 {
			free = append(free, spread(mine, -room[o])...)
			room[o] = 0
		}
	}
	slices.Sort(free)
	if prefer != nil {
		free = placePreferred(free, owner, prefer, room)
	}
	interleave(free, owner, room)
}

// shares returns how many of n slots each server gets: the exact share rounded down, and the rest one by one, first to
// those who hold that one more already (so it need not move), then by the size of the fraction, then in order of names.
func shares(n int, held [][]int, weights []int) []int {
	total := 0
	for _, w := range weights {
		total += w
	}
	share := make([]int, len(weights))
	rests := n
	var ask []int
	for o, w := range weights {
		share[o] = n * w / total
		rests -= share[o]
		if n*w%total > 0 {
			ask = append(ask, o)
		}
	}
	for _, o := range first(ask, rests, func(a, b int) int {
		holdsA, holdsB := len(held[a]) > share[a], len(held[b]) > share[b]
		if holdsA != holdsB {
			if holdsA {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(n*weights[b]%total, n*weights[a]%total), a-b)
	}) {
		share[o]++
	}
	return share
}

// first returns the first k of s in the order of compare, which tells all elements apart. Standbys are placed once for each
// server, a few slots among thousands of others: those are not worth being sorted.
func first(s []int, k int, compare func(a, b int) int) []int {
	const few = 64
	if k > few {
		slices.SortFunc(s, compare)
		return s[:k]
	}
	best := make([]int, 0, k+1)
	for _, v := range s {
		if len(best) == k && (k == 0 || compare(best[k-1], v) < 0) {
			continue
		}
		at, _ := slices.BinarySearchFunc(best, v, compare)
		best = slices.Insert(best, at, v)
		best = best[:min(len(best), k)]
	}
	return best
}

// spread returns k of slots, evenly apart, so that neither what goes nor what stays is one cluster.
func spread(slots []int, k int) []int {
	out := make([]int, 0, k)
	for j := range k {
		out = append(out, slots[(2*j+1)*len(slots)/(2*k)])
	}
	return out
}

// placePreferred gives each preferred server of free slots as many of them as it has room for; the others are returned.
func placePreferred(free []int, owner, prefer []uint16, room []int) (left []int) {
	offer := make([][]int, len(room))
	for _, i := range free {
		if p := prefer[i]; p != None && p != owner[i] {
			offer[p] = append(offer[p], i)
		}
	}
	taken := map[int]bool{}
	for p, slots := range offer {
		take := min(room[p], len(slots))
		for _, i := range spread(slots, take) {
			owner[i], taken[i] = uint16(p), true
		}
		room[p] -= take
	}
	for _, i := range free {
		if !taken[i] {
			left = append(left, i)
		}
	}
	return left
}

// interleave deals the free slots out to the servers that have room, each server's turns evenly apart.
func interleave(free []int, owner []uint16, room []int) {
	type turn struct{ num, den, server int } // the turn comes at num/den of the way
	turns := make([]turn, 0, len(free))
	for o, n := range room {
		for j := range n {
			turns = append(turns, turn{2*j + 1, 2 * n, o})
		}
	}
	slices.SortFunc(turns, func(a, b turn) int {
		if c := cmp.Compare(a.num*b.den, b.num*a.den); c != 0 {
			return c
		}
		return cmp.Compare(a.server, b.server)
	})
	for i, slot := range free {
		owner[slot] = uint16(turns[i].server)
	}
}
