package policy

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
)

const (
	maxWanted      = 64  // portions that one server may ask for
	maxWantedShare = 0.5 // of the space, for one server; less where range times its weight's share is less
)

// grants are what servers may still be given in one decision.
type grants struct {
	left  []float64 // per server, of the space
	count []int     // per server, of portions
	step  float64   // of the space: what may still move, back to slots and to who asks
	back  []portion.Portion
}

// grant gives servers the portions that they ask for (Fig 19), the operator's prefixes first; the rest goes by weight. All are served in
// turns, one portion each, the smallest of a turn first, then by name; of others who ask for the same the first gets it. Who has a portion keeps
// it while asking for it. What a dead server had is its standby's, for as long as the dead one is on record as asking for it: it has it back
// when it returns, and its users move no more than that.
//
// Why nobody gains by lying. A server's portions are at most maxWantedShare of the space, at most Range times its weight's share, and no
// more than its quota of alloc.MaxFixed. What one decision gives and takes back is at most Balance.Step in all. Going back comes first, with at most
// half of that, or with one portion: so neither do the many wishes of one keep others' from being granted, nor does who asks and takes it back.
// Who asks now for this and now for that moves nobody: see Wishes.
func (p *pool) grant() {
	g := grants{left: make([]float64, len(p.names)), count: make([]int, len(p.names)), step: p.in.Rules.Balance.Step}
	for i := range p.names {
		g.left[i] = min(maxWantedShare, p.in.Rules.Balance.Range*p.share(i))
		for _, f := range p.fixed {
			if f.Owner == p.names[i] {
				g.left[i] -= f.Portion.Size()
			}
		}
	}
	p.keepWanted(&g)
	if p.in.Due {
		p.serve(&g)
	}
}

// keepWanted keeps what servers have, as far as it may and they ask for it, or it cannot go back yet.
func (p *pool) keepWanted(g *grants) {
	present := slices.SortedFunc(slices.Values(p.present), func(a, b alloc.Fixed) int { return a.Portion.Compare(b.Portion) })
	back := 0.0
	for _, f := range present {
		f = p.inherited(f)
		i, ok := p.index[f.Owner]
		if !ok || p.isFixed(f.Portion) || !p.room(portion.Portion{}, f.Portion) {
			continue
		}
		if why := p.surplus(g, i, f); why != "" && p.in.Due {
			r := Reason{Server: f.Owner, Portion: f.Portion, Text: "gives back, for " + why + ":"}
			if back == 0 || back+f.Portion.Size() <= p.in.Rules.Balance.Step/2 {
				back += f.Portion.Size()
				g.back = append(g.back, f.Portion)
				p.why = append(p.why, r)
				continue
			}
			r.Text, r.Refused = "keeps for now, a decision moves so much only, though "+why+":", true
			p.why = append(p.why, r)
		}
		p.fixed = append(p.fixed, f)
		g.left[i] -= f.Portion.Size()
		g.count[i]++
	}
	g.step -= back
}

// surplus says why a portion should go back to its slots; empty: it should not.
func (p *pool) surplus(g *grants, i int, f alloc.Fixed) string {
	asked, said := p.in.asked(f.Owner)
	switch {
	case said && !slices.Contains(asked, f.Portion) && !p.heldFor(f.Portion): // who says nothing says nothing of that, either
		return "it asks for it no more"
	case f.Portion.Size() > g.left[i]:
		return "it has too much of the space"
	case g.count[i] >= p.quota(alloc.MaxFixed):
		return "it has too many portions"
	}
	return ""
}

// heldFor reports whether somebody who is not there has asked for the portion.
func (p *pool) heldFor(q portion.Portion) bool {
	return slices.ContainsFunc(p.in.Servers, func(s alloc.Server) bool {
		asked, _ := p.in.asked(s.Name)
		return !p.may(s.Name) && slices.Contains(asked, q)
	})
}

// wish is a portion that a server asks for and does not have.
type wish struct {
	server  int
	portion portion.Portion
}

// serve goes round and gives everybody one portion at a time.
func (p *pool) serve(g *grants) {
	asks := make([][]wish, len(p.names))
	for i, name := range p.names {
		for _, q := range p.in.wanted(name) {
			if !p.owns(name, q) {
				asks[i] = append(asks[i], wish{i, q})
			}
		}
	}
	for turn := range maxWanted {
		var round []wish
		for _, of := range asks {
			if turn < len(of) {
				round = append(round, of[turn])
			}
		}
		slices.SortStableFunc(round, func(a, b wish) int { return cmp.Compare(a.portion.Size(), b.portion.Size()) })
		for _, w := range round {
			p.answer(g, w)
		}
	}
}

// answer gives a portion, or says why not.
func (p *pool) answer(g *grants, w wish) {
	r := Reason{Server: p.names[w.server], Portion: w.portion, Text: "asked for"}
	if why := p.refusal(g, w); why != "" {
		r.Text, r.Refused = "is refused ("+why+")", true
	} else {
		p.fixed = append(p.fixed, alloc.Fixed{Portion: w.portion, Owner: r.Server})
		g.left[w.server] -= w.portion.Size()
		g.count[w.server]++
		g.step -= g.cost(w.portion)
	}
	p.why = append(p.why, r)
}

// cost is what a grant moves of the space that this decision does not move anyway.
func (g *grants) cost(q portion.Portion) float64 {
	if slices.Contains(g.back, q) {
		return 0
	}
	return q.Size()
}

func (p *pool) owns(server string, q portion.Portion) bool {
	return slices.ContainsFunc(p.fixed, func(f alloc.Fixed) bool { return f.Owner == server && f.Portion == q })
}

// refusal says why a portion is not given; empty: it is.
func (p *pool) refusal(g *grants, w wish) string {
	q, step := w.portion, p.in.Rules.Balance.Step
	if !q.IsValid() || !q.Is4() {
		return "not IPv4"
	}
	size, left := q.Size(), g.left[w.server]
	if size > left {
		return fmt.Sprintf("%.3g%% of the space, %.3g%% left for it", 100*size, 100*max(left, 0))
	}
	if most := p.quota(alloc.MaxFixed); g.count[w.server] >= most {
		return fmt.Sprintf("it has %d portions, the most for one server", most)
	}
	if at := slices.IndexFunc(p.fixed, func(f alloc.Fixed) bool { return f.Portion.Overlaps(q) }); at >= 0 {
		return "overlaps " + p.fixed[at].Owner + "'s " + p.fixed[at].Portion.String()
	}
	if size > step {
		return fmt.Sprintf("%.3g%% of the space, step lets a decision move %.3g%%: ask for parts of it, or set balance.step", 100*size, 100*step)
	}
	if !p.room(portion.Portion{}, q) {
		return "too many portions or masks"
	}
	if g.cost(q) > g.step {
		return fmt.Sprintf("for now: step lets this decision move another %.3g%% of the space", 100*max(g.step, 0))
	}
	return ""
}

func first[T any](s []T, n int) []T { return s[:min(len(s), n)] }
