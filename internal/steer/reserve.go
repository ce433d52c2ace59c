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
	var reserved, fresh []uint32
	for _, group := range slices.SortedFunc(maps.Keys(plans), netip.Addr.Compare) {
		plan := plans[group]
		if plan == nil || m.installed[group].digest == plan.digest() {
			continue
		}
		lines := len(plan.lines())
		g, gErr := m.freeGeneration(lines)
		if gErr != nil {
			err = errors.Join(err, fmt.Errorf("steer group %s: %w", group, gErr))
			break
		}
		m.generations[g] = true // not to be found again by the next one
		reserved = append(reserved, g)
		if t := m.tables[g]; t != nil && int(t.MaxEntries()) == lines {
			continue
		}
		m.dropTables([]uint32{g})
		t, tErr := newTable(lines)
		if tErr != nil {
			err = errors.Join(err, fmt.Errorf("slot table: %w", tErr))
			break
		}
		m.tables[g], fresh = t, append(fresh, g)
	}
	err = errors.Join(err, m.putTables(fresh))
	for _, g := range reserved {
		m.generations[g] = false
	}
	return err
}
