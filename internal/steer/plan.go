package steer

import (
	"encoding/binary"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
)

// Bounds of a plan; steer.h has the same.
const (
	maxIndexBits = 16
	maxRuns      = 4
	maxMasks     = 32
	slotExact    = 1 << 31
	slotMasked   = 1 << 30
	slotOwner    = slotMasked - 1
	hostMask     = ^uint32(0)
)

// MaxOwner is the highest owner number.
const MaxOwner Owner = slotOwner

// MaxGroups is how many groups the maps have room for; steer.h has the same.
const MaxGroups = 1023

// Plan answers who owns a user. It is immutable. Some bits of the address are an index into a table of slots; a slot says
// whether its users have overrides of one address or lie in masked portions beside the slot's own owner.
type Plan struct {
	runs    []run
	slots   []uint32 // owner and flags
	masks   []uint32 // most specific first; the first entry found holds
	entries map[entry]Owner
	users   []override // overrides of one address, sorted
	byPort  netip.Addr // of bpf/vips.h; zero: none
}

// run gathers neighbouring bits of the address into the index.
type run struct{ shift, mask uint32 }

// entry is a masked portion.
type entry struct{ mask, addr uint32 }

// Lookup returns the owner of a user, 0 if nobody owns it. Users of IPv6 have no owner.
func (p *Plan) Lookup(user netip.Addr) Owner {
	user = user.Unmap()
	if !user.Is4() {
		return 0
	}
	a := toUint32(user)
	slot := p.slots[p.index(a)]
	if slot&slotExact != 0 {
		if i, ok := slices.BinarySearchFunc(p.users, a, compareUser); ok {
			return p.users[i].owner()
		}
	}
	if slot&slotMasked != 0 {
		for _, m := range p.masks {
			if o, ok := p.entries[entry{m, a & m}]; ok {
				return o
			}
		}
	}
	return Owner(slot & slotOwner)
}

func (p *Plan) index(a uint32) uint32 {
	var i uint32
	for _, r := range p.runs {
		i |= a >> r.shift & r.mask
	}
	return i
}

// Renumber is the plan with other owners: of says who takes the users of each, 0: nobody.
func (p *Plan) Renumber(of func(Owner) Owner) *Plan {
	q := *p
	q.slots = make([]uint32, len(p.slots))
	for i, slot := range p.slots {
		if q.slots[i] = slot &^ slotOwner; slot&slotOwner != 0 {
			q.slots[i] |= uint32(of(Owner(slot & slotOwner)))
		}
	}
	q.entries = make(map[entry]Owner, len(p.entries))
	for e, o := range p.entries {
		if q.entries[e] = 0; o != 0 {
			q.entries[e] = of(o)
		}
	}
	q.users = make([]override, len(p.users))
	for i, u := range p.users {
		if q.users[i] = newOverride(u.addr(), 0); u.owner() != 0 {
			q.users[i] |= override(of(u.owner()))
		}
	}
	return &q
}

// WithByPort is the plan with the group of the plan for users that are told apart by port, too (Flow): IPv4. What is in maps has it for
// programs; Lookup does not look at it.
func (p *Plan) WithByPort(group netip.Addr) *Plan {
	q := *p
	q.byPort = group
	return &q
}

// leads is 1 where the plan leads on to another group's, else 0.
func (p *Plan) leads() int {
	if p.byPort.IsValid() {
		return 1
	}
	return 0
}

// Equal reports whether both plans are the same, not only alike in their answers.
func (p *Plan) Equal(o *Plan) bool {
	return slices.Equal(p.runs, o.runs) && slices.Equal(p.slots, o.slots) && slices.Equal(p.masks, o.masks) &&
		maps.Equal(p.entries, o.entries) && slices.Equal(p.users, o.users) && p.byPort == o.byPort
}

// Slots returns the size of the slot table: 1..65536.
func (p *Plan) Slots() int { return len(p.slots) }

// Entries returns how many overrides and masked portions stand beside the slot table.
func (p *Plan) Entries() int { return len(p.entries) + len(p.users) }

// Masks returns how many probes a user in a masked portion may cost: 0..32.
func (p *Plan) Masks() int { return len(p.masks) }

// runsOf returns the runs that gather the bits of mask, in their order, into an index.
func runsOf(mask uint32) []run {
	var runs []run
	for at := 0; mask != 0; {
		shift := bits.TrailingZeros32(mask)
		n := bits.TrailingZeros32(^(mask >> shift))
		runs = append(runs, run{shift: uint32(shift - at), mask: (1<<n - 1) << at})
		mask &^= (1<<n - 1) << shift
		at += n
	}
	return runs
}

func toUint32(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}
