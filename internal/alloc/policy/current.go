package policy

import "github.com/manycast/manycast/internal/alloc"

// fixedOf are the portions that the allocation gives away beside its slots, with who has them.
func fixedOf(a alloc.Allocation) []alloc.Fixed {
	var out []alloc.Fixed
	for i, p := range a.Fixed {
		cell := a.Slots.Count() + i
		out = append(out, alloc.Fixed{Portion: p, Owner: a.OwnerOf(cell), Standby: a.StandbyOf(cell)})
	}
	return out
}
