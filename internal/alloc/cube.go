package alloc

import (
	"math/bits"

	"github.com/manycast/manycast/internal/portion"
)

// cube is an IPv4 portion in words.
type cube struct{ addr, mask uint32 }

func cubeOf(p portion.Portion) cube { return cube{uint4(p.Addr), uint4(p.Mask)} }

func (c cube) portion() portion.Portion {
	return portion.Portion{Addr: addr4(c.addr), Mask: addr4(c.mask)}
}

// size is how many addresses lie in c.
func (c cube) size() uint64 { return 1 << (32 - bits.OnesCount32(c.mask)) }

func (c cube) overlaps(o cube) bool { return (c.addr^o.addr)&c.mask&o.mask == 0 }

// and is what lies in both of two that overlap.
func (c cube) and(o cube) cube { return cube{c.addr | o.addr, c.mask | o.mask} }

func cubesOf(ps []portion.Portion) []cube {
	out := make([]cube, len(ps))
	for i, p := range ps {
		out[i] = cubeOf(p)
	}
	return out
}
