package policy

import (
	"cmp"
	"slices"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
)

func compare(a, b string) int { return cmp.Compare(a, b) }

func portionsOf(fixed []alloc.Fixed) []portion.Portion {
	out := make([]portion.Portion, 0, len(fixed)+1)
	for _, f := range fixed {
		out = append(out, f.Portion)
	}
	return out
}

// carry finds how many slots everybody has that may own something, so that feedback goes on from there: who is gone leaves its slots to
// their standbys, who is new gets what its weight gives it, from all others alike. It is false where feedback makes no sense: there
// are fewer slots than servers, or nobody.
func (p *pool) carry() bool {
	slots := p.in.Rules.Slots.Count()
	if len(p.names) == 0 || slots < len(p.names) {
		return false
	}
	held, isNew := p.inherit()
	total, newcomers := 0, 0.0
	for i, h := range held {
		total += h
		if isNew[i] {
			newcomers += p.share(i)
		}
	}
	exact := make([]float64, len(held))
	for i, h := range held {
		switch {
		case total == 0:
			exact[i] = p.share(i)
		case isNew[i]:
			exact[i] = p.share(i)
		default:
			exact[i] = float64(h) / float64(total) * (1 - newcomers)
		}
	}
	if total > 0 && p.in.Current.Slots == p.in.Rules.Slots {
		slots = total
	}
	p.count, p.slots = apportion(slots, exact), slots
	p.atLeastOne()
	return true
}

// inherit counts slots held now: one's own, those that one stands by for where the owner is gone, and a part of those that are left.
func (p *pool) inherit() (held []int, isNew []bool) {
	a := p.in.Current
	held, isNew = make([]int, len(p.names)), make([]bool, len(p.names))
	for i, name := range p.names {
		_, known := slices.BinarySearch(a.Servers, name)
		isNew[i] = !known && !a.Zero()
	}
	here := make([]int, len(a.Servers))
	for i, name := range a.Servers {
		here[i] = -1
		if at, ok := p.index[name]; ok {
			here[i] = at
		}
	}
	holder := func(of []uint16, slot int) int {
		if slot < len(of) && int(of[slot]) < len(here) {
			return here[of[slot]]
		}
		return -1
	}
	left, weight := 0, make([]float64, len(held))
	for slot := range a.Slots.Count() {
		if slot >= len(a.Owner) {
			break
		}
		i := holder(a.Owner, slot)
		if i < 0 {
			i = holder(a.Standby, slot)
		}
		if i < 0 {
			left++
			continue
		}
		held[i]++
	}
	some := false
	for i, h := range held {
		weight[i] = float64(h)
		some = some || h > 0
	}
	if some && left > 0 {
		for i, n := range apportion(left, weight) {
			held[i] += n
		}
	}
	return held, isNew
}

// atLeastOne leaves nobody of the pool without a slot: without one it has no load, and never would get another.
func (p *pool) atLeastOne() {
	for i := range p.count {
		if p.count[i] > 0 {
			continue
		}
		most := 0
		for j, c := range p.count {
			if c > p.count[most] {
				most = j
			}
		}
		p.count[most]--
		p.count[i]++
	}
}

// apportion cuts n into whole parts that are as parts to each other: rounded down, and what is left to the largest rests, then in order.
func apportion(n int, parts []float64) []int {
	sum := 0.0
	for _, f := range parts {
		sum += f
	}
	out, rest := make([]int, len(parts)), make([]float64, len(parts))
	if sum <= 0 {
		return out
	}
	left := n
	order := make([]int, len(parts))
	for i, f := range parts {
		exact := float64(n) * f / sum
		out[i] = int(exact + 1e-9) // a whole number of slots stays it
		rest[i] = exact - float64(out[i])
		left -= out[i]
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(rest[b], rest[a]) })
	for k := range left {
		out[order[k%len(order)]]++
	}
	return out
}
