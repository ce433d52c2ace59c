package portion

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// words is an address of 128 bits; IPv4 is in its mapped form (::ffff:a.b.c.d).
type words struct{ hi, lo uint64 }

func toWords(a netip.Addr) words {
	b := a.As16()
	return words{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// ones returns n leading ones.
func ones(n int) words {
	if n > 64 {
		return words{^uint64(0), ^uint64(0) << (128 - n)}
	}
	return words{^uint64(0) << (64 - n), 0}
}

func (w words) and(o words) words    { return words{w.hi & o.hi, w.lo & o.lo} }
func (w words) or(o words) words     { return words{w.hi | o.hi, w.lo | o.lo} }
func (w words) xor(o words) words    { return words{w.hi ^ o.hi, w.lo ^ o.lo} }
func (w words) andNot(o words) words { return words{w.hi &^ o.hi, w.lo &^ o.lo} }
func (w words) not() words           { return words{^w.hi, ^w.lo} }
func (w words) isZero() bool         { return w.hi|w.lo == 0 }

// bit returns the word with bit i alone; bit 0 is the lowest.
func bit(i int) words {
	if i >= 64 {
		return words{1 << (i - 64), 0}
	}
	return words{0, 1 << i}
}

// top returns the number of the highest bit; w must not be zero.
func (w words) top() int {
	if w.hi != 0 {
		return 127 - bits.LeadingZeros64(w.hi)
	}
	return 63 - bits.LeadingZeros64(w.lo)
}

// bottom returns the number of the lowest bit; w must not be zero.
func (w words) bottom() int {
	if w.lo != 0 {
		return bits.TrailingZeros64(w.lo)
	}
	return 64 + bits.TrailingZeros64(w.hi)
}

func (w words) addr(is4 bool) netip.Addr {
	if is4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(w.lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], w.hi)
	binary.BigEndian.PutUint64(b[8:], w.lo)
	return netip.AddrFrom16(b)
}

func fromWords(addr, mask words, is4 bool) Portion {
	return Portion{addr.addr(is4), mask.addr(is4)}
}

// cube is a portion in words; the upper 96 bits of an IPv4 one are fixed.
type cube struct{ addr, mask words }

func (p Portion) cube() cube {
	if !p.Is4() {
		return cube{toWords(p.Addr), toWords(p.Mask)}
	}
	return cube{toWords(p.Addr), toWords(p.Mask).or(ones(96))}
}

func (c cube) contains(a words) bool { return a.and(c.mask) == c.addr }
func (c cube) overlaps(o cube) bool  { return c.addr.xor(o.addr).and(c.mask).and(o.mask).isZero() }
func (c cube) covers(o cube) bool    { return c.mask.andNot(o.mask).isZero() && c.overlaps(o) }

// without returns what cs have outside d, in cubes that do not overlap where cs do not.
func without(cs []cube, d cube) []cube {
	var out []cube
	for _, c := range cs {
		if !c.overlaps(d) {
			out = append(out, c)
			continue
		}
		for rest := d.mask.andNot(c.mask); !rest.isZero(); {
			b := bit(rest.top())
			rest = rest.andNot(b)
			c.mask = c.mask.or(b)
			out = append(out, cube{c.addr.or(b.andNot(d.addr)), c.mask})
			c.addr = c.addr.or(b.and(d.addr))
		}
	}
	return out
}

// cubes returns the valid portions of one family.
func cubes(ps []Portion, is4 bool) []cube {
	var cs []cube
	for _, p := range ps {
		if p.IsValid() && p.Is4() == is4 {
			cs = append(cs, p.cube())
		}
	}
	return cs
}
