package alloc

import (
	"cmp"
	"maps"
	"slices"
)

// placer keeps what it needs from one place to the next: standbys are placed once for each server.
type placer struct {
	held [][]int // per server
	ask  []int
}

func newPlacer(servers int) *placer { return &placer{held: make([][]int, servers)} }

// place gives each of slots an owner. Before, owner holds who has the slot (None: nobody); a server of weight 0 gets
// nothing. prefer, if not nil, holds who gets a slot first when it has to move; kept, if not nil, how many users stay in a slot that
// does not: those with the fewest move.
func (p *placer) place(slots []int, owner, prefer []uint16, weights []int, kept []uint64) {
	held := p.held
	for o := range held {
		held[o] = held[o][:0]
	}
	var free []int
	for _, i := range slots {
		if o := owner[i]; o == None || weights[o] == 0 {
			free = append(free, i)
		} else {
			held[o] = append(held[o], i)
		}
	}
	room := p.shares(len(slots), weights, kept)
	for o, mine := range held {
		room[o] -= len(mine)
		if room[o] < 0 {
			free = append(free, lightest(mine, -room[o], kept)...)
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
// those who hold that one more already (so it need not move) and have the most users in it, then by the size of the fraction, then in
// order of names.
func (p *placer) shares(n int, weights []int, kept []uint64) []int {
	total := 0
	for _, w := range weights {
		total += w
	}
	held, share := p.held, make([]int, len(weights))
	var more []uint64 // users in the slot that is one more than the share
	if kept != nil {
		more = make([]uint64, len(weights))
	}
	rests, ask := n, p.ask[:0]
	for o, w := range weights {
		share[o] = n * w / total
		rests -= share[o]
		if n*w%total == 0 {
			continue
		}
		ask = append(ask, o)
		if kept != nil && len(held[o]) > share[o] {
			byUsers := slices.SortedFunc(slices.Values(held[o]), func(a, b int) int { return cmp.Compare(kept[b], kept[a]) })
			more[o] = kept[byUsers[share[o]]]
		}
	}
	p.ask = ask
	for _, o := range first(ask, rests, func(a, b int) int {
		holdsA, holdsB := len(held[a]) > share[a], len(held[b]) > share[b]
		if holdsA != holdsB {
			if holdsA {
				return -1
			}
			return 1
		}
		if more != nil && more[a] != more[b] {
			return cmp.Compare(more[b], more[a])
		}
		return cmp.Or(cmp.Compare(n*weights[b]%total, n*weights[a]%total), a-b)
	}) {
		share[o]++
	}
	return share
}

// lightest returns k of slots: those with the fewest users, of those with as many evenly apart.
func lightest(slots []int, k int, kept []uint64) []int {
	if kept == nil {
		return spread(slots, k)
	}
	like := map[uint64][]int{}
	for _, i := range slots {
		like[kept[i]] = append(like[kept[i]], i)
	}
	var out []int
	for _, users := range slices.Sorted(maps.Keys(like)) {
		out = append(out, spread(like[users], min(k-len(out), len(like[users])))...)
	}
	return out
}

// first returns the first k of s in the order of compare, which tells all elements apart. Standbys are placed once for each
// server, a few slots among thousands of others: those are not worth being sorted.
func first(s []int, k int, compare func(a, b int) int) []int {
	const few = 256
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
