package policy

import (
	"fmt"
	"slices"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
)

const (
	maxWanted      = 64  // portions that one server may ask for
	maxWantedShare = 0.5 // of the space, for one server; less where range times its weight's share is less
)

// grant gives servers the portions that they ask for (Fig 19), the operator's prefixes first; the rest goes by weight. Who has a portion
// keeps it while asking for it. Of others who ask for the same, or for one that overlaps, the first by name gets it; all are served in turns,
// one portion each, for there is room for alloc.MaxFixed. A server's portions are at most maxWantedShare of the space, and at most Range times
// its weight's share. What a dead server had goes back to its slots' owners, and so does what is not asked for any more.
func (p *pool) grant() {
	asks := make([][]portion.Portion, len(p.names))
	had := map[portion.Portion]bool{}
	for _, f := range p.present {
		i, ok := p.index[f.Owner]
		if !ok || p.in.Due && !p.stillWants(f) {
			continue
		}
		had[f.Portion] = true
		asks[i] = append(asks[i], f.Portion)
	}
	p.serve(asks, had)
	if !p.in.Due {
		return
	}
	for i, name := range p.names {
		asks[i] = nil
		for _, q := range first(p.in.Loads[name].Wanted, maxWanted) {
			if !had[q] || !p.owns(name, q) {
				asks[i] = append(asks[i], q)
			}
		}
	}
	p.serve(asks, nil)
}

// stillWants is true for those, too, of whom there is no report.
func (p *pool) stillWants(f alloc.Fixed) bool {
	l, ok := p.in.Loads[f.Owner]
	return !ok || slices.Contains(first(l.Wanted, maxWanted), f.Portion)
}

func (p *pool) owns(server string, q portion.Portion) bool {
	return slices.ContainsFunc(p.fixed, func(f alloc.Fixed) bool { return f.Owner == server && f.Portion == q })
}

// serve goes round and gives everybody one portion at a time. isOld are those that need no mention.
func (p *pool) serve(asks [][]portion.Portion, isOld map[portion.Portion]bool) {
	left := make([]float64, len(p.names))
	for i := range left {
		left[i] = min(maxWantedShare, p.in.Rules.Balance.Range*p.share(i))
		for _, f := range p.fixed {
			if f.Owner == p.names[i] {
				left[i] -= size(f.Portion)
			}
		}
	}
	for turn, more := 0, true; more; turn++ {
		more = false
		for i, wanted := range asks {
			if turn >= len(wanted) {
				continue
			}
			more = true
			q := wanted[turn]
			r := Reason{Server: p.names[i], Portion: q, Text: "asked for"}
			if why := p.refusal(q, left[i]); why != "" {
				r.Text, r.Refused = "is refused ("+why+")", true
			} else {
				p.fixed = append(p.fixed, alloc.Fixed{Portion: q, Owner: p.names[i]})
				left[i] -= size(q)
			}
			if r.Refused || !isOld[q] {
				p.why = append(p.why, r)
			}
		}
	}
}

// refusal says why a portion is not given; empty: it is.
func (p *pool) refusal(q portion.Portion, left float64) string {
	if !q.IsValid() || !q.Is4() {
		return "not IPv4"
	}
	if size(q) > left {
		return fmt.Sprintf("%.3g%% of the space, %.3g%% left for it", 100*size(q), 100*max(left, 0))
	}
	if at := slices.IndexFunc(p.fixed, func(f alloc.Fixed) bool { return f.Portion.Overlaps(q) }); at >= 0 {
		return "overlaps " + p.fixed[at].Owner + "'s " + p.fixed[at].Portion.String()
	}
	if !p.room(portion.Portion{}, q) {
		return "too many portions or masks"
	}
	return ""
}

// size is how much of the IPv4 space a portion is: 0 to 1.
func size(q portion.Portion) float64 { return 1 / float64(uint64(1)<<q.MaskBits()) }

func first[T any](s []T, n int) []T { return s[:min(len(s), n)] }
