package flowspec

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"github.com/manycast/manycast/internal/portion"
)

// word is 128 bits, the first one first; an address of IPv4 is its first 32.
type word struct{ hi, lo uint64 }

func wordOf(a netip.Addr) word {
	if a.Is4() {
		b := a.As4()
		return word{uint64(binary.BigEndian.Uint32(b[:])) << 32, 0}
	}
	b := a.As16()
	return word{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (w word) and(o word) word { return word{w.hi & o.hi, w.lo & o.lo} }
func (w word) or(o word) word  { return word{w.hi | o.hi, w.lo | o.lo} }
func (w word) xor(o word) word { return word{w.hi ^ o.hi, w.lo ^ o.lo} }
func (w word) zero() bool      { return w.hi|w.lo == 0 }

// first are the first n bits.
func first(n int) word {
	if n <= 64 {
		return word{^uint64(0) << (64 - n), 0}
	}
	return word{^uint64(0), ^uint64(0) << (128 - n)}
}

// bit is bit n alone; bit 0 is the first.
func bit(n int) word {
	if n < 64 {
		return word{1 << (63 - n), 0}
	}
	return word{0, 1 << (127 - n)}
}

// leading is how many bits are zero before the first that is one; 128: all.
func (w word) leading() int {
	if w.hi != 0 {
		return bits.LeadingZeros64(w.hi)
	}
	return 64 + bits.LeadingZeros64(w.lo)
}

// ones is how many bits are one.
func (w word) ones() int { return bits.OnesCount64(w.hi) + bits.OnesCount64(w.lo) }

// cube is a portion.
type cube struct{ addr, mask word }

func cubeOf(p portion.Portion) cube { return cube{wordOf(p.Addr), wordOf(p.Mask)} }

func (c cube) overlaps(o cube) bool { return c.addr.xor(o.addr).and(c.mask).and(o.mask).zero() }

// covers says whether all of o lies in c.
func (c cube) covers(o cube) bool { return c.mask.and(o.mask) == c.mask && c.overlaps(o) }

// isPrefix says whether the mask is a prefix's.
func (c cube) isPrefix() bool { return c.mask == first(c.mask.ones()) }

// prefix is the cube's, which has to be one.
func (c cube) prefix(is4 bool) netip.Prefix {
	if is4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(c.addr.hi>>32))
		return netip.PrefixFrom(netip.AddrFrom4(b), c.mask.ones())
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], c.addr.hi)
	binary.BigEndian.PutUint64(b[8:], c.addr.lo)
	return netip.PrefixFrom(netip.AddrFrom16(b), c.mask.ones())
}
