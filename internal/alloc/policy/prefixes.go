package policy

import (
	"errors"
	"fmt"
	"slices"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
)

// Prefix is a portion that the operator gives to servers: the first of them that may own something owns it, the next stands by.
// When none may, its users are shared out like all others.
type Prefix struct {
	Portion portion.Portion // IPv4; mostly a prefix, but any mask will do
	Servers []string
}

// MaxPrefixServers bounds the servers of one prefix.
const MaxPrefixServers = 16

// Cut makes prefixes disjoint: of one inside another the former has its users, and the other is cut into what remains of it.
// An error says why prefixes cannot be given away, and the way out.
func Cut(prefixes []Prefix) ([]Prefix, error) {
	if len(prefixes) > alloc.MaxFixed {
		return nil, fmt.Errorf("%d of them: at most %d", len(prefixes), alloc.MaxFixed)
	}
	ordered := slices.Clone(prefixes)
	slices.SortStableFunc(ordered, func(a, b Prefix) int { return a.Portion.Compare(b.Portion) })
	var out []Prefix
	for i, p := range ordered {
		if err := p.check(); err != nil {
			return nil, err
		}
		rest := []portion.Portion{p.Portion}
		for _, q := range ordered[:i] {
			if q.Portion.Overlaps(p.Portion) && (p.Portion == q.Portion || !p.Portion.Covers(q.Portion)) {
				return nil, clash(q.Portion, p.Portion)
			}
			rest = without(rest, q.Portion)
		}
		for _, r := range rest {
			out = append(out, Prefix{r, p.Servers})
		}
		if len(out) > alloc.MaxFixed {
			return nil, fmt.Errorf("more than %d portions, once those inside others are cut out of them: "+
				"have fewer, or nest them less deeply (a /24 inside a /8 leaves 16 pieces of it)", alloc.MaxFixed)
		}
	}
	return out, nil
}

func clash(a, b portion.Portion) error {
	if a == b {
		return fmt.Errorf("%v is there twice", a)
	}
	return fmt.Errorf("%v and %v overlap, and neither lies in the other: write one of them in smaller pieces", a, b)
}

func (p Prefix) check() error {
	switch {
	case !p.Portion.IsValid():
		return errors.New("prefix is missing")
	case !p.Portion.Is4():
		return fmt.Errorf("%v: want IPv4", p.Portion)
	case p.Portion.MaskBits() == 0:
		return fmt.Errorf("%v is everybody: share users out by weights", p.Portion)
	case len(p.Servers) == 0 || len(p.Servers) > MaxPrefixServers:
		return fmt.Errorf("%v: %d servers, want 1 to %d: the first that is there owns it, the next is its standby",
			p.Portion, len(p.Servers), MaxPrefixServers)
	}
	for i, name := range p.Servers {
		if slices.Contains(p.Servers[:i], name) {
			return fmt.Errorf("%v: server %s is there twice", p.Portion, name)
		}
	}
	return nil
}

func without(ps []portion.Portion, q portion.Portion) []portion.Portion {
	var out []portion.Portion
	for _, p := range ps {
		out = append(out, p.Without(q)...)
	}
	return out
}
