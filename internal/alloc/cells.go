package alloc

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/internal/portion"
)

// Cells returns how many cells there are: the slots are 0 to Slots.Count()-1, the fixed portions follow.
func (a Allocation) Cells() int { return a.Slots.Count() + len(a.Fixed) }

// CellOf returns the cell of an IPv4 user.
func (a Allocation) CellOf(user netip.Addr) int {
	if i := slices.IndexFunc(a.Fixed, func(p portion.Portion) bool { return p.Contains(user) }); i >= 0 {
		return a.Slots.Count() + i
	}
	return a.Slots.Index(user)
}

// OwnerOf returns the server that owns the cell.
func (a Allocation) OwnerOf(cell int) string { return a.Servers[a.Owner[cell]] }

// StandbyOf returns the server that stands by for the cell; empty: there is none.
func (a Allocation) StandbyOf(cell int) string {
	if s := a.Standby[cell]; s != None {
		return a.Servers[s]
	}
	return ""
}

// Users are those that server owns, in few portions.
func (a Allocation) Users(server string) portion.Set { return a.usersOf(server, a.Owner) }

// StandbyUsers are those that server stands by for, in few portions.
func (a Allocation) StandbyUsers(server string) portion.Set { return a.usersOf(server, a.Standby) }

func (a Allocation) usersOf(server string, of []uint16) portion.Set {
	i, ok := a.index(server)
	if !ok {
		return portion.Set{}
	}
	return a.Select(func(cell int) bool { return of[cell] == i })
}

// Select returns the users of the cells that want says yes to: their slots and fixed portions, less the other fixed portions that
// overlap these slots. As all fixed portions are disjoint, the set denies nothing that it is to permit. A fixed portion that lies
// in its own cells' slots alone is not mentioned.
func (a Allocation) Select(want func(cell int) bool) portion.Set {
	n := a.Slots.Count()
	wanted := make([]bool, n)
	var set portion.Set
	for slot := range n {
		if wanted[slot] = want(slot); wanted[slot] {
			set.Permit = append(set.Permit, a.Slots.Portion(slot))
		}
	}
	set.Permit = portion.Minimize(set.Permit)
	for i, p := range a.Fixed {
		isWanted := want(n + i)
		for slot := range a.Slots.overlapping(cubeOf(p)) {
			if wanted[slot] == isWanted {
				continue
			}
			if isWanted {
				set.Permit = append(set.Permit, p)
			} else {
				set.Deny = append(set.Deny, p)
			}
			break
		}
	}
	return set
}

// Sizes returns how many addresses of the IPv4 space (2^32) each server owns; every server of the allocation is in it.
func (a Allocation) Sizes() map[string]uint64 {
	sizes := make(map[string]uint64, len(a.Servers))
	for _, name := range a.Servers {
		sizes[name] = 0
	}
	if a.Zero() {
		return sizes
	}
	for cell := range a.Owner {
		sizes[a.OwnerOf(cell)] += cubeOf(a.portionOf(cell)).size()
	}
	for _, p := range a.Fixed {
		c := cubeOf(p)
		for slot := range a.Slots.overlapping(c) {
			sizes[a.OwnerOf(slot)] -= c.and(a.Slots.cube(slot)).size()
		}
	}
	return sizes
}

// slotsOf is what owners or standbys of cells are of slots.
func (a Allocation) slotsOf(of []uint16) []uint16 {
	if a.Zero() {
		return nil
	}
	return of[:a.Slots.Count()]
}

// portionOf is the whole portion of a cell, whatever fixed ones take of it.
func (a Allocation) portionOf(cell int) portion.Portion {
	if n := a.Slots.Count(); cell >= n {
		return a.Fixed[cell-n]
	}
	return a.Slots.Portion(cell)
}

func (a Allocation) cellName(cell int) string {
	if n := a.Slots.Count(); cell >= n {
		return "fixed portion " + a.Fixed[cell-n].String()
	}
	return fmt.Sprintf("slot %d", cell)
}
