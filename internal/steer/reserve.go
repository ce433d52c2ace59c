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
		g, gErr := m.freeGeneration(lines)
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
