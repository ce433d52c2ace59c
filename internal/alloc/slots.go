// Package alloc divides the source-address space among servers (Fig 10) and changes the division (Fig 11): the space is cut
// into slots by some of the address's bits, every slot has an owner and a standby, and of a new division only what has to
// move moves. It is pure: the same input gives the same allocation on every machine.
package alloc

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"strconv"
	"strings"

	"github.com/manycast/manycast/internal/portion"
)

// By says which bits of a source address choose its slot.
type By string

// Suffix takes an address's last bits, which spreads neighbours over the servers; Prefix takes its first bits, which keeps
// networks together.
const (
	Suffix By = "suffix"
	Prefix By = "prefix"
)

// DefaultBits cuts the space into 256 slots.
const (
	DefaultBits = 8
	MaxBits     = 16
)

// Slots is how the IPv4 source space is cut: 2^Bits slots.
type Slots struct {
	By   By
	Bits int // 1..16
}

// Check returns an error for a By or Bits that do not exist.
func (s Slots) Check() error {
	if s.By != Suffix && s.By != Prefix {
		return fmt.Errorf("slots by %q: want suffix or prefix", s.By)
	}
	if s.Bits < 1 || s.Bits > MaxBits {
		return fmt.Errorf("slots of %d bits: want 1 to %d", s.Bits, MaxBits)
	}
	return nil
}

// String returns "suffix/8".
func (s Slots) String() string { return fmt.Sprintf("%s/%d", s.By, s.Bits) }

// ParseSlots reads "suffix/8", or "suffix" alone for DefaultBits.
func ParseSlots(text string) (Slots, error) {
	by, bits, ok := strings.Cut(text, "/")
	s := Slots{By: By(by), Bits: DefaultBits}
	if ok {
		n, err := strconv.Atoi(bits)
		if err != nil {
			return Slots{}, fmt.Errorf("slots %q: want suffix or prefix, and the number of bits behind a slash, such as suffix/8", text)
		}
		s.Bits = n
	}
	return s, s.Check()
}

// Count returns how many slots there are.
func (s Slots) Count() int { return 1 << s.Bits }

// Index returns the slot of an IPv4 source address.
func (s Slots) Index(a netip.Addr) int {
	return s.index(uint4(a.Unmap()))
}

// Portion returns the addresses of slot i.
func (s Slots) Portion(i int) portion.Portion { return s.cube(i).portion() }

func (s Slots) cube(i int) cube {
	if s.By == Prefix {
		return cube{uint32(i) << (32 - s.Bits), s.mask()}
	}
	return cube{uint32(i), s.mask()}
}

// mask has the bits that choose a slot.
func (s Slots) mask() uint32 {
	if s.By == Prefix {
		return ^uint32(0) << (32 - s.Bits)
	}
	return 1<<s.Bits - 1
}

func (s Slots) index(addr uint32) int {
	if s.By == Prefix {
		return int(addr >> (32 - s.Bits))
	}
	return int(addr & (1<<s.Bits - 1))
}

// overlapping yields the slots that c overlaps.
func (s Slots) overlapping(c cube) iter.Seq[int] {
	return func(yield func(int) bool) {
		free := s.mask() &^ c.mask
		for sub := uint32(0); ; sub = (sub - free) & free { // all subsets of free, in ascending order
			if !yield(s.index(c.addr&s.mask()|sub)) || sub == free {
				return
			}
		}
	}
}

func uint4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func addr4(v uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return netip.AddrFrom4(b)
}
