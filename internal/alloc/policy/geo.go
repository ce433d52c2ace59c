package policy

import (
	"slices"

	"github.com/manycast/manycast/internal/alloc"
)

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
			p.why = append(p.why, absent(piece))
			continue
		}
		f := alloc.Fixed{Portion: piece.Portion, Owner: there[0]}
		if len(there) > 1 {
			f.Standby = there[1]
		}
		p.fixed = append(p.fixed, f)
	}
}

// absent says of whom nobody is there.
func absent(piece Prefix) Reason {
	text := "may own nothing now"
	if len(piece.Servers) > 1 {
		text += ", nor may the others that it was given to"
	}
	return Reason{
		Server: piece.Servers[0], Portion: piece.Portion, Refused: true, Warning: true,
		Text: text + "; shared out with the rest:",
	}
}

// Late says what of the decision has to wait for the allocation after, and warns where that is the operator's.
func (r Rules) Late(m alloc.Move) []Reason {
	var out []Reason
	for _, f := range m.Waiting {
		out = append(out, Reason{
			Server: f.Owner, Portion: f.Portion, Refused: true,
			Warning: slices.ContainsFunc(r.Prefixes, func(p Prefix) bool { return p.Portion.Covers(f.Portion) }),
			Text:    "has to wait, for routers have no room for what was and what is to be at once:",
		})
	}
	return out
}
