package steer

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/manycast/manycast/internal/portion"
)

// ErrTooComplex says that the claims do not fit into a plan.
var ErrTooComplex = errors.New("portions do not fit into 16 index bits and 32 masks; use fewer distinct masks or fewer denied portions")

// Compile makes a plan of claims: the owner of an address is the claim of the highest rank, and within it of the highest epoch,
// whose set contains it, of several at one epoch the one with the smallest owner number. It fails on owners that are not 1..MaxOwner, on portions
// that are not IPv4, and with ErrTooComplex.
func Compile(claims []Claim) (*Plan, error) {
	cubes, owners, err := cubesOf(claims)
	if err != nil {
		return nil, err
	}
	index := indexBits(cubes, maxIndexBits)
	if p := painted(cubes, owners, index); p != nil {
		return p, nil
	}
	for _, c := range candidates(cubes) {
		p, err := compile(cubes, owners, c.index, budgets[0])
		if !errors.Is(err, ErrTooComplex) {
			return p, err
		}
	}
	p, err := compile(cubes, owners, index, budgets[1])
	if err != nil {
		return nil, fmt.Errorf("compile %d claims with %d portions: %w", len(claims), len(cubes), err)
	}
	return p, nil
}

// budget bounds a plan. Slots on bits that few portions fix multiply the entries of all others, so other indexes are tried
// before a plan is let grow.
type budget struct{ entries, work int }

var budgets = []budget{{1 << 15, 1 << 21}, {1 << 20, 1 << 24}}

func newCompiler(cubes []cube, owners []Owner, index uint32, b budget) *compiler {
	c := &compiler{
		owners:  owners,
		index:   index,
		tables:  map[uint32]map[uint32]Owner{},
		exact:   map[uint32]Owner{},
		entries: b.entries,
		work:    b.work + 256*len(cubes),
	}
	for m := c.index; m != 0; m &^= topBit(m) {
		c.order = append(c.order, topBit(m))
	}
	c.slots = make([]uint32, 1<<len(c.order))
	return c
}

// painted is the plan of portions that are made of whole slots; nil: they are not.
func painted(cubes []cube, owners []Owner, index uint32) *Plan {
	if c := newCompiler(cubes, owners, index, budgets[0]); c.paint(cubes) {
		return c.plan()
	}
	return nil
}

func compile(cubes []cube, owners []Owner, index uint32, b budget) (*Plan, error) {
	c := newCompiler(cubes, owners, index, b)
	c.kept = make([][]cube, len(c.order)+1)
	if err := c.node(0, 0, 0, 0, cubes); err != nil {
		return nil, err
	}
	return c.plan(), nil
}

// cube is a portion of a claim. Claims are numbered from the first to win.
type cube struct {
	addr, mask uint32
	claim      int32
	deny       bool
}

func (c cube) overlaps(addr, mask uint32) bool { return (c.addr^addr)&c.mask&mask == 0 }

// cubesOf returns the portions in the order of their claims, and the owner of each claim.
func cubesOf(claims []Claim) ([]cube, []Owner, error) {
	sorted := slices.SortedStableFunc(slices.Values(claims), func(a, b Claim) int {
		return cmp.Or(cmp.Compare(b.Rank, a.Rank), b.Epoch.Compare(a.Epoch), cmp.Compare(a.Owner, b.Owner))
	})
	n := 0
	for _, c := range sorted {
		n += len(c.Set.Permit) + len(c.Set.Deny)
	}
	cubes := make([]cube, 0, n)
	owners := make([]Owner, len(sorted))
	for i, c := range sorted {
		if c.Owner == 0 || c.Owner > MaxOwner {
			return nil, nil, fmt.Errorf("claim of owner %d: owners are numbered 1..%d", c.Owner, MaxOwner)
		}
		owners[i] = c.Owner
		add := func(ps []portion.Portion, deny bool) error {
			for _, p := range ps {
				if !p.IsValid() || !p.Is4() {
					return fmt.Errorf("claim of owner %d: %s is not an IPv4 portion", c.Owner, p)
				}
				cubes = append(cubes, cube{toUint32(p.Addr), toUint32(p.Mask), int32(i), deny})
			}
			return nil
		}
		if err := errors.Join(add(c.Set.Permit, false), add(c.Set.Deny, true)); err != nil {
			return nil, nil, err
		}
	}
	return cubes, owners, nil
}

// compiler halves the space by the index bits until a part has one owner or is one slot; what is left in a slot becomes
// entries.
type compiler struct {
	owners  []Owner
	index   uint32   // index bits
	order   []uint32 // the same one by one, highest first
	kept    [][]cube // buffer of each depth
	slots   []uint32
	tables  map[uint32]map[uint32]Owner // other bits of a masked portion -> its address, index bits included -> owner
	exact   map[uint32]Owner
	entries int // that may still be made in tables
	work    int // cubes that may still be looked at
}

// node looks at the slots whose first index bits (fixed) are at. number is the number of those bits alone.
func (c *compiler) node(depth, number int, at, fixed uint32, cubes []cube) error {
	if c.work -= len(cubes) + 1; c.work < 0 {
		return ErrTooComplex
	}
	kept := c.keep(c.kept[depth][:0], at, fixed, cubes)
	c.kept[depth] = kept
	switch {
	case len(kept) == 0:
		return nil // slots are made with no owner
	case len(kept) == 1 && kept[0].mask&^fixed == 0:
		first := number << (len(c.order) - depth)
		part := c.slots[first : first+1<<(len(c.order)-depth)]
		for i := range part {
			part[i] = uint32(c.owners[kept[0].claim])
		}
		return nil
	case depth == len(c.order):
		return c.slot(number, at, kept)
	}
	b := c.order[depth]
	if err := c.node(depth+1, 2*number, at, fixed|b, kept); err != nil {
		return err
	}
	return c.node(depth+1, 2*number+1, at|b, fixed|b, kept)
}

// keep appends the cubes that still matter to the users with a & fixed == at: neither those of claims that are denied there
// altogether, nor those behind a claim that has them all.
func (c *compiler) keep(out []cube, at, fixed uint32, cubes []cube) []cube {
	for group := range byClaim(cubes) {
		start, permits, denies := len(out), 0, 0
		var all *cube
		denied := false
		for i, q := range group {
			if !q.overlaps(at, fixed) {
				continue
			}
			switch covers := q.mask&^fixed == 0; {
			case covers && q.deny:
				denied = true
			case covers:
				all = &group[i]
			case q.deny:
				denies++
				out = append(out, q)
			default:
				permits++
				out = append(out, q)
			}
		}
		switch {
		case denied || all == nil && permits == 0:
			out = out[:start]
		case all != nil && denies == 0:
			return append(out[:start], *all)
		case all != nil: // it stands for the other permits
			denied := slices.DeleteFunc(out[start:], func(q cube) bool { return !q.deny })
			out = append(out[:start+len(denied)], *all)
		}
	}
	return out
}

// byClaim yields the cubes of each claim.
func byClaim(cubes []cube) func(func([]cube) bool) {
	return func(yield func([]cube) bool) {
		for len(cubes) > 0 {
			n := 1
			for n < len(cubes) && cubes[n].claim == cubes[0].claim {
				n++
			}
			if !yield(cubes[:n]) {
				return
			}
			cubes = cubes[n:]
		}
	}
}

func topBit(m uint32) uint32 { return 1 << (31 - bits.LeadingZeros32(m)) }
