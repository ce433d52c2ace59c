package policy

import "github.com/manycast/manycast/internal/alloc"

// fixPrefixes gives the operator's prefixes away: each to the first of its servers that may own something, with the next as its
// standby. When none may, its users are shared out like all others. It goes with any policy, and under geo it is all there is beside
// weights.
func (p *pool) fixPrefixes() {
	pieces, err := Cut(p.in.Rules.Prefixes)
	if err != nil {
		return // a service with such prefixes is refused before
	}
	for _, piece := range pieces {
		var there []string
		for _, name := range piece.Servers {
			if p.may(name) {
				there = append(there, name)
			}
		}
		if len(there) == 0 {
			continue
		}
		f := alloc.Fixed{Portion: piece.Portion, Owner: there[0]}
		if len(there) > 1 {
			f.Standby = there[1]
		}
		p.fixed = append(p.fixed, f)
	}
}
