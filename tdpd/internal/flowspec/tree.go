package flowspec

import (
	"net/netip"
	"slices"

	"github.com/manycast/manycast/internal/portion"
)

// director is the server number of who has no server here.
const director = 0

// nodesMost bounds a tree: what would take more goes by the director.
const nodesMost = 1 << 18

// tree halves the space of users by the next bit of their addresses, until all of a part go to one server, or cannot be told apart by
// prefixes. Nodes are in order of depth, so that children come behind their parents.
type tree struct {
	is4    bool
	nested bool
	most   int // rules that there can ever be: no portion is spread out into more
	bounds []bound
	within []cube
	nodes  []node
	why    []Reason // of bounds that some users were left of; None: of none
}

// bound is a Bound of the tree; the last one has everybody.
type bound struct {
	cube
	server int // number; director
	prefix bool
}

type node struct {
	cube
	depth    int
	children int   // index of the first of two; 0: it is a leaf
	server   int   // of a leaf
	list     []int // bounds that have users here, until one that has all the rest
	cut      bool  // what is below goes to the director: there was no room
	choices  []int // servers that one rule for the whole part may redirect to, sorted; none: no rule may
}

// newTree makes a tree of bounds; number says what number a server has, and director if no rule can redirect to it.
func newTree(is4 bool, bounds []Bound, number func(netip.Addr) int, c Config) *tree {
	t := &tree{is4: is4, nested: c.Nested, most: c.Most, why: make([]Reason, len(bounds)+1)}
	for i, b := range bounds {
		k := cubeOf(b.Portion)
		t.bounds = append(t.bounds, bound{k, number(b.Server), k.isPrefix()})
		switch {
		case !b.Server.IsValid():
			t.why[i] = b.Why
		case t.bounds[i].server == director:
			t.why[i] = NoAddress
		}
	}
	t.bounds = append(t.bounds, bound{prefix: true})
	for _, w := range c.Within {
		if w.Addr().Is4() == is4 {
			t.within = append(t.within, cubeOf(portion.FromPrefix(w)))
		}
	}
	all := make([]int, len(t.bounds))
	for i := range all {
		all[i] = i
	}
	t.nodes = append(t.nodes, node{list: all})
	for i := 0; i < len(t.nodes); i++ {
		t.grow(i)
	}
	t.choose()
	return t
}

// grow makes a leaf of a node, or two children.
func (t *tree) grow(i int) {
	n := &t.nodes[i]
	n.list = t.in(n.cube, n.list)
	split, why := t.splits(n)
	if !split {
		if n.server = t.bounds[n.list[len(n.list)-1]].server; why != None {
			n.server = director
			t.leave(n, why)
		}
		return
	}
	n.children = len(t.nodes)
	for _, value := range []word{{}, bit(n.depth)} {
		c := cube{n.addr.or(value), n.mask.or(bit(n.depth))}
		t.nodes = append(t.nodes, node{cube: c, depth: n.depth + 1, list: n.list})
		n = &t.nodes[i] // may have moved
	}
}

// in are those bounds of a list that have users of a cube, up to one that has all the rest; the same slice where all do.
func (t *tree) in(c cube, list []int) []int {
	at := 0
	for ; at < len(list); at++ {
		b := t.bounds[list[at]]
		if b.covers(c) {
			return list[:at+1]
		}
		if !b.overlaps(c) {
			break
		}
	}
	out := slices.Clone(list[:at])
	for _, k := range list[at:] {
		b := t.bounds[k]
		if b.covers(c) {
			return append(out, k)
		}
		if b.overlaps(c) {
			out = append(out, k)
		}
	}
	return out
}

// splits says whether a node's users are to be told apart by the next bit, or else why they cannot be.
func (t *tree) splits(n *node) (bool, Reason) {
	last := t.bounds[n.list[len(n.list)-1]]
	inside, holds := t.place(n.cube)
	if !inside && !holds && last.server == director {
		t.dropMasks(n)
	}
	before := n.list[:len(n.list)-1]
	if !slices.ContainsFunc(before, func(k int) bool { return t.bounds[k].server != last.server }) {
		return false, None
	}
	if len(t.nodes)+2 > nodesMost {
		return false, OverLimit
	}
	byPrefix, open := false, 128
	for _, k := range before {
		b := t.bounds[k]
		if byPrefix = b.prefix; byPrefix {
			break
		}
		open = min(open, b.mask.leadingBeyond(n.depth)-n.depth)
	}
	switch {
	case byPrefix || holds || open == 0:
		return true, None
	case inside && open < 31 && 2<<open <= t.most: // below are so many parts at least that are alike
		return true, None
	}
	return false, NotPrefix
}

// dropMasks takes portions out of a node that are no prefixes, and have no prefix behind them which they keep users from: these go to the director.
func (t *tree) dropMasks(n *node) {
	at := len(n.list) - 1
	for at > 0 && !t.bounds[n.list[at-1]].prefix {
		at--
	}
	if at == len(n.list)-1 {
		return
	}
	for _, k := range n.list[at : len(n.list)-1] {
		if t.bounds[k].server != director && t.why[k] == None {
			t.why[k] = NotPrefix
		}
	}
	n.list = append(slices.Clone(n.list[:at]), n.list[len(n.list)-1])
}

// place says whether a cube lies in one of those where portions are spread out, or one of those in it.
func (t *tree) place(c cube) (inside, holds bool) {
	for _, w := range t.within {
		inside = inside || w.covers(c)
		holds = holds || c.covers(w)
	}
	return inside, holds && !inside
}

// leadingBeyond is the first bit at n or behind it that is one.
func (w word) leadingBeyond(n int) int {
	if f := first(n); n > 0 {
		w = word{w.hi &^ f.hi, w.lo &^ f.lo}
	}
	return w.leading()
}

// leave notes why users of a node have no rule.
func (t *tree) leave(n *node, why Reason) {
	for _, k := range n.list {
		if t.bounds[k].server != director && t.why[k] == None {
			t.why[k] = why
		}
	}
}
