package steer

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Reserve makes what a Set of these plans would have to wait for: a new slot table costs a grace period, some milliseconds. No
// plan is switched. A Set of plans like these that follows is a matter of stores.
func (m *Maps) Reserve(plans map[netip.Addr]*Plan) error {
	err := m.collect(false)
	var reserved []uint32
	for _, group := range slices.SortedFunc(maps.Keys(plans), netip.Addr.Compare) {
		plan := plans[group]
		if plan == nil || m.installed[group].digest == plan.digest() {
			continue
		}
		lines := len(plan.lines())
		g, gErr := m.freeGeneration(lines, 0)
		if gErr == nil {
			m.generations[g] = true // not to be found again by the next one
			reserved = append(reserved, g)
			gErr = m.slots.reserve(g, lines)
		}
		if gErr != nil {
			err = errors.Join(err, fmt.Errorf("steer group %s: %w", group, gErr))
			break
		}
	}
	err = errors.Join(err, m.slots.put())
	for _, g := range reserved {
		m.generations[g] = false
	}
	return err
}

// Spare makes what the next change of each group would have to wait for, where there is room: with as many slots and users of their own as
// now it is a matter of stores then, if not all groups change again at once.
func (m *Maps) Spare() error {
	err := m.collect(false)
	var held []uint32
	for _, group := range slices.SortedFunc(maps.Keys(m.installed), netip.Addr.Compare) {
		is := m.installed[group]
		if is.plan == nil || !slices.Contains(m.generations, false) {
			continue
		}
		lines := is.plan.lineCount()
		g, gErr := m.freeGeneration(lines, is.users)
		if gErr == nil {
			m.generations[g] = true // not to be found again by the next one
			held = append(held, g)
			gErr = m.slots.reserve(g, lines)
		}
		if gErr == nil && is.users > 0 {
			gErr = m.users.reserve(g, is.users)
		}
		if gErr != nil {
			err = errors.Join(err, fmt.Errorf("steer group %s: %w", group, gErr))
			break
		}
	}
	err = errors.Join(err, m.slots.put(), m.users.put())
	for _, g := range held {
		m.generations[g] = false
	}
	return err
}
