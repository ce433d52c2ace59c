// Package portion is about parts of the source-address space: what a server takes and what it leaves (the masks of Fig 7C).
package portion

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"strings"
)

// Portion is the set of addresses a with a & Mask == Addr. The mask need not be a prefix. Addr and Mask are of one family
// (4 or 16 bytes), Addr has no bit outside Mask. The zero Portion is invalid and contains nothing. Portions are comparable.
type Portion struct {
	Addr netip.Addr
	Mask netip.Addr
}

// New returns the portion of mask that addr lies in. Bits of addr outside mask are dropped. It fails when the two are of
// different families, are not valid, or have a zone.
func New(addr, mask netip.Addr) (Portion, error) {
	switch {
	case !addr.IsValid() || !mask.IsValid():
		return Portion{}, errors.New("portion: address or mask missing; want address/mask, such as 0.0.0.3/0.0.0.255")
	case addr.Zone() != "" || mask.Zone() != "":
		return Portion{}, fmt.Errorf("portion %s/%s: zones are not part of a portion; leave %%zone out", addr, mask)
	}
	addr = addr.Unmap()
	if addr.Is4() != mask.Is4() {
		return Portion{}, fmt.Errorf("portion %s/%s: address and mask are of different families", addr, mask)
	}
	return fromWords(toWords(addr).and(toWords(mask)), toWords(mask), addr.Is4()), nil
}

// Parse reads a prefix ("10.0.0.0/8"), a host ("10.0.1.5") or address/mask ("0.0.0.3/0.0.0.255"). Unlike New it refuses
// addresses with bits outside the mask: they are most often slips of the hand.
func Parse(s string) (Portion, error) {
	left, right, found := strings.Cut(s, "/")
	addr, err := netip.ParseAddr(left)
	if err != nil {
		return Portion{}, fmt.Errorf("portion %q: want a prefix, an address or address/mask: %w", s, err)
	}
	mask := Host(addr).Mask
	if found && strings.ContainsAny(right, ".:") {
		if mask, err = netip.ParseAddr(right); err != nil {
			return Portion{}, fmt.Errorf("portion %q: mask: %w", s, err)
		}
	} else if found {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			return Portion{}, fmt.Errorf("portion %q: %w", s, err)
		}
		mask = FromPrefix(prefix).Mask
	}
	p, err := New(addr, mask)
	if err != nil {
		return Portion{}, err
	}
	if p.Addr != addr.Unmap() {
		return Portion{}, fmt.Errorf("portion %q: the address has bits outside the mask; did you mean %s?", s, p)
	}
	return p, nil
}

// MustParse is Parse for constants and tests; it panics on an error.
func MustParse(s string) Portion {
	p, err := Parse(s)
	if err != nil {
		panic(err)
	}
	return p
}

// Host returns the portion of one address.
func Host(a netip.Addr) Portion {
	a = a.Unmap()
	return FromPrefix(netip.PrefixFrom(a, a.BitLen()))
}

// FromPrefix returns the portion of a prefix; an invalid prefix gives the zero Portion.
func FromPrefix(p netip.Prefix) Portion {
	if !p.IsValid() {
		return Portion{}
	}
	mask := ones(p.Bits())
	if p.Addr().Is4() {
		mask = ones(96 + p.Bits())
	}
	return fromWords(toWords(p.Addr()).and(mask), mask, p.Addr().Is4())
}

// All4 is the whole IPv4 space.
func All4() Portion { return Portion{netip.IPv4Unspecified(), netip.IPv4Unspecified()} }

// All6 is the whole IPv6 space.
func All6() Portion { return Portion{netip.IPv6Unspecified(), netip.IPv6Unspecified()} }

// IsValid reports whether p was made by one of this package's functions.
func (p Portion) IsValid() bool {
	return p.Addr.IsValid() && p.Mask.IsValid() && p.Addr.Is4() == p.Mask.Is4()
}

// Is4 reports whether p is a portion of the IPv4 space.
func (p Portion) Is4() bool { return p.Addr.Is4() }

// MaskBits returns how many bits the mask fixes: 0..32, or 0..128 for IPv6.
func (p Portion) MaskBits() int {
	m := p.cube().mask
	n := bits.OnesCount64(m.hi) + bits.OnesCount64(m.lo)
	if p.Is4() {
		n -= 96
	}
	return n
}

// IsHost reports whether p is one address.
func (p Portion) IsHost() bool { return p.IsValid() && p.MaskBits() == p.Addr.BitLen() }

// Contains reports whether a lies in p. An IPv4 address mapped into IPv6 counts as IPv4.
func (p Portion) Contains(a netip.Addr) bool {
	a = a.Unmap()
	return p.IsValid() && a.IsValid() && a.Is4() == p.Is4() && p.cube().contains(toWords(a))
}

// Overlaps reports whether some address lies in both.
func (p Portion) Overlaps(o Portion) bool {
	return p.IsValid() && o.IsValid() && p.Is4() == o.Is4() && p.cube().overlaps(o.cube())
}

// Covers reports whether all of o lies in p.
func (p Portion) Covers(o Portion) bool {
	return p.IsValid() && o.IsValid() && p.Is4() == o.Is4() && p.cube().covers(o.cube())
}

// Intersect returns the addresses that lie in both, false if there are none.
func (p Portion) Intersect(o Portion) (Portion, bool) {
	if !p.Overlaps(o) {
		return Portion{}, false
	}
	a, b := p.cube(), o.cube()
	return fromWords(a.addr.or(b.addr), a.mask.or(b.mask), p.Is4()), true
}

// Without returns the addresses of p that are not in o, in disjoint portions.
func (p Portion) Without(o Portion) []Portion {
	if !p.Overlaps(o) {
		return []Portion{p}
	}
	var out []Portion
	for _, c := range without([]cube{p.cube()}, o.cube()) {
		out = append(out, fromWords(c.addr, c.mask, p.Is4()))
	}
	return out
}

// Halves cuts p in two by the lowest bit that its mask leaves open, or by the highest: one with the bit set, and the other. It fails for a single
// address.
func (p Portion) Halves(highest bool) (one, other Portion, ok bool) {
	c := p.cube()
	open := c.mask.not()
	if !p.IsValid() || open.isZero() {
		return Portion{}, Portion{}, false
	}
	b := bit(open.bottom())
	if highest {
		b = bit(open.top())
	}
	return fromWords(c.addr.or(b), c.mask.or(b), p.Is4()), fromWords(c.addr, c.mask.or(b), p.Is4()), true
}

// Size is how much of its family's space p is: 0 to 1.
func (p Portion) Size() float64 {
	if !p.IsValid() {
		return 0
	}
	return math.Ldexp(1, -p.MaskBits())
}

// Compare orders portions by family, then by mask with the more specific first, then by address.
func (p Portion) Compare(o Portion) int {
	return cmp.Or(cmp.Compare(p.Addr.BitLen(), o.Addr.BitLen()), cmp.Compare(o.MaskBits(), p.MaskBits()),
		o.Mask.Compare(p.Mask), p.Addr.Compare(o.Addr))
}

// String writes what Parse reads: the address alone for a host, a prefix where the mask is one, else address/mask.
func (p Portion) String() string {
	switch {
	case !p.IsValid():
		return "invalid portion"
	case p.IsHost():
		return p.Addr.String()
	}
	n := p.MaskBits()
	if FromPrefix(netip.PrefixFrom(p.Addr, n)).Mask == p.Mask {
		return fmt.Sprintf("%s/%d", p.Addr, n)
	}
	return p.Addr.String() + "/" + p.Mask.String()
}

// MarshalText writes String, for JSON and YAML.
func (p Portion) MarshalText() ([]byte, error) {
	if !p.IsValid() {
		return nil, errors.New("portion: the zero Portion cannot be written")
	}
	return []byte(p.String()), nil
}

// UnmarshalText is Parse.
func (p *Portion) UnmarshalText(b []byte) error {
	q, err := Parse(string(b))
	if err != nil {
		return err
	}
	*p = q
	return nil
}
