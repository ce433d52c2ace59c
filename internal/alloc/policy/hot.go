package policy

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
)

const (
	maxSplits = 24 // portions of hot slots in one allocation; of one server's slots its quota of them
	maxNew    = 4  // that one decision adds, of one server
	maxDepth  = 5  // times that a slot is halved: two masks each are used up
	maxHot    = 16 // portions of one server that are looked at
)

// split halves hot slots: a portion with more than Balance.Split of the mean reading gives half of its sources, by a mask one bit longer,
// to the server with the lowest reading. A single source cannot be halved: it is fixed where it is, so that it does not wander while
// its server gives other slots away. The current allocation's fixed portions are the state: they stay while some portion of their slot is
// hotter than half of Balance.Split, as its owner says, and nobody else, and then the slot is whole again. A server can give away by this only what it owns,
// and at most maxNew portions in a decision, none larger than half a slot.
func (p *pool) split(r *reading) {
	limit := p.in.Rules.Balance.Split * r.mean
	now := p.splits()
	hot := slices.DeleteFunc(p.hot(r, limit/2), func(h heat) bool { return !p.isOwn(h, now) })
	for _, f := range now {
		slot := p.slotOf(f.Portion)
		if limit > 0 && slices.ContainsFunc(hot, func(h heat) bool { return slot.Covers(h.portion) }) {
			p.fixed = append(p.fixed, f)
			continue
		}
		p.why = append(p.why, Reason{Server: f.Owner, Portion: f.Portion, Text: "gives back, for its slot is hot no more:"})
	}
	if limit == 0 || p.in.Current.Slots != p.in.Rules.Slots {
		return
	}
	added := make([]int, len(p.names))
	for _, h := range hot {
		if h.load > limit && added[h.server] < maxNew && p.isOwn(h, p.fixed) {
			added[h.server] += p.halve(r, h, limit, hot)
		}
	}
}

// keepSplits keeps what was split between decisions; those of the dead go to their standbys.
func (p *pool) keepSplits() {
	if p.in.Rules.Balance.Split > 0 {
		p.fixed = append(p.fixed, p.splits()...)
	}
}

// splits are the present portions of parts of slots, with owners that are there.
func (p *pool) splits() []alloc.Fixed {
	var out []alloc.Fixed
	for _, f := range p.present {
		f = p.inherited(f)
		slot := p.slotOf(f.Portion)
		if p.may(f.Owner) && slot.Covers(f.Portion) && slot != f.Portion && len(out) < maxSplits {
			out = append(out, f)
		}
	}
	return out
}

// heat is a portion of a server's sources with what it has of its reading.
type heat struct {
	portion portion.Portion
	server  int
	load    float64
}

// hot are the portions with at least so much load, the hottest first.
func (p *pool) hot(r *reading, least float64) []heat {
	var out []heat
	for i, name := range p.names {
		if math.IsNaN(r.said[i]) {
			continue
		}
		for _, h := range first(p.in.Loads[name].Hot, maxHot) {
			if load := number(h.Share, 1) * r.load[i]; load >= least && h.Portion.IsValid() && h.Portion.Is4() {
				out = append(out, heat{h.Portion, i, load})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b heat) int {
		return cmp.Or(cmp.Compare(b.load, a.load), a.portion.Compare(b.portion), a.server-b.server)
	})
	return out
}

// isOwn reports whether a server owns what it says is hot, beside or as one of the fixed portions, and that is a slot or less.
func (p *pool) isOwn(h heat, fixed []alloc.Fixed) bool {
	slot := p.slotOf(h.portion)
	if !slot.Covers(h.portion) {
		return false
	}
	for _, f := range fixed {
		if f.Portion.Covers(h.portion) {
			return f.Owner == p.names[h.server]
		}
	}
	return p.slotOwner(h.portion) == p.names[h.server]
}

// halve gives half of a hot portion away, or fixes a single source; it returns how many portions that added.
func (p *pool) halve(r *reading, h heat, limit float64, hot []heat) int {
	if h.portion.IsHost() {
		return p.pin(h)
	}
	if h.load-p.lone(h, hot) <= limit {
		return 0 // one source makes the heat: halves would not share it
	}
	half, rest, ok := p.half(h)
	if !ok {
		return 0
	}
	to := coolest(r.load)
	if r.load[to]+h.load/2 >= r.load[h.server] {
		return 0 // nobody is better off
	}
	why := fmt.Sprintf("is given half of %v, which is %.0f%% of a mean load:", h.portion, 100*h.load/r.mean)
	if at := slices.IndexFunc(p.fixed, func(f alloc.Fixed) bool { return f.Portion == h.portion }); at >= 0 {
		p.fixed[at].Portion = rest // it was fixed itself
	}
	p.fixed = append(p.fixed, alloc.Fixed{Portion: half, Owner: p.names[to]})
	p.why = append(p.why, Reason{Server: p.names[to], Portion: half, Text: why})
	r.load[h.server] -= h.load / 2
	r.load[to] += h.load / 2
	return 1
}

// pin fixes a single source where it is.
func (p *pool) pin(h heat) int {
	if p.isFixed(h.portion) || !p.roomForSplit(portion.Portion{}, h.portion) {
		return 0
	}
	name := p.names[h.server]
	p.fixed = append(p.fixed, alloc.Fixed{Portion: h.portion, Owner: name})
	p.why = append(p.why, Reason{Server: name, Portion: h.portion, Text: "keeps one source that cannot be split:"})
	return 1
}

// lone is the load of the hottest single source inside a portion.
func (p *pool) lone(h heat, hot []heat) float64 {
	for _, o := range hot {
		if o.portion.IsHost() && o.server == h.server && h.portion.Covers(o.portion) {
			return o.load
		}
	}
	return 0
}

// half finds a half of a hot portion that can be given away, and what is left then. Where others have parts of the portion already, what is said
// of the whole may be old: what is left is hot by itself if it still is.
func (p *pool) half(h heat) (half, rest portion.Portion, ok bool) {
	isWhole := false
	for _, f := range p.fixed {
		isWhole = isWhole || f.Portion == h.portion
		if f.Portion.Overlaps(h.portion) && f.Owner != p.names[h.server] {
			return half, rest, false
		}
	}
	if h.portion.MaskBits() >= min(p.in.Rules.Slots.Bits+maxDepth, 31) {
		return half, rest, false
	}
	half, rest, ok = h.portion.Halves(p.in.Rules.Slots.By == alloc.Prefix) // so masks grow as slots' do
	if !ok {
		return half, rest, false
	}
	if !isWhole && p.isFixed(half) {
		half, rest = rest, half
	}
	if isWhole {
		return half, rest, p.roomForSplit(h.portion, half, rest)
	}
	return half, rest, !p.isFixed(half) && p.roomForSplit(portion.Portion{}, half)
}

// roomForSplit bounds the parts of all slots, and of those that have the same owner as that of more.
func (p *pool) roomForSplit(instead portion.Portion, more ...portion.Portion) bool {
	all, same, owner := 0, 0, p.slotOwner(more[0])
	for _, f := range p.fixed {
		if slot := p.slotOf(f.Portion); slot.Covers(f.Portion) && slot != f.Portion {
			all++
			if p.slotOwner(f.Portion) == owner {
				same++
			}
		}
	}
	return all < maxSplits && same < p.quota(maxSplits) && p.room(instead, more...)
}

// slotOwner is who owns the slot of a portion now, whoever has the portion; empty: nobody.
func (p *pool) slotOwner(q portion.Portion) string {
	a, at := p.in.Current, p.in.Rules.Slots.Index(q.Addr)
	if at >= len(a.Owner) || int(a.Owner[at]) >= len(a.Servers) {
		return ""
	}
	return a.OwnerOf(at)
}

func (p *pool) slotOf(q portion.Portion) portion.Portion {
	return p.in.Rules.Slots.Portion(p.in.Rules.Slots.Index(q.Addr))
}

func coolest(load []float64) int {
	at := 0
	for i, f := range load {
		if f < load[at] {
			at = i
		}
	}
	return at
}
