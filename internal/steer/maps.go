package steer

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// MapNames are the maps of bpf/steer.h, for a loader that pins them.
var MapNames = [...]string{"steer_groups", "steer_current", "steer_plans", "steer_slots", "steer_entries"}

// Maps puts plans into the maps of bpf/steer.h. One goroutine at a time may use it, and one Maps at a time the maps.
type Maps struct {
	groups, current, plans, slots, entries *ebpf.Map

	installed   map[netip.Addr]installed
	numbers     []bool              // of groups, in use
	generations []bool              // in use, old ones not yet cleaned up included; 0 is none
	keys        map[uint32][]mapKey // in entries, by generation
	old         []uint32            // generations out of force, to be cleaned up after a grace period
}

// installed is what the maps have of a group.
type installed struct {
	number, generation uint32
	digest             digest
}

// NewMaps takes the maps of a loaded collection by their names in bpf/steer.h (Collection.Maps will do). What pinned maps
// hold already is taken over; what a former process left half done is cleaned up by the next Set.
func NewMaps(byName map[string]*ebpf.Map) (*Maps, error) {
	m := &Maps{installed: map[netip.Addr]installed{}, keys: map[uint32][]mapKey{}}
	for i, to := range []**ebpf.Map{&m.groups, &m.current, &m.plans, &m.slots, &m.entries} {
		if *to = byName[MapNames[i]]; *to == nil {
			return nil, fmt.Errorf("map %s is missing; the program must include steer.h", MapNames[i])
		}
	}
	m.numbers = make([]bool, min(m.groups.MaxEntries(), m.current.MaxEntries()))
	m.generations = make([]bool, min(m.plans.MaxEntries(), m.slots.MaxEntries()))
	m.generations[0] = true
	if err := m.takeOver(); err != nil {
		return nil, fmt.Errorf("take over steering maps: %w", err)
	}
	return m, nil
}

// change is a group on its way to a new plan.
type change struct {
	group netip.Addr
	plan  *Plan
	to    installed
	slots *ebpf.Map
}

// Set makes plans the plans of all groups: new ones are added, changed ones switched in one step, others removed. Plans that
// are in the maps already are not touched. Every lookup sees one plan as a whole. After an error before the switch nothing
// has changed; after a later one, of cleaning up, the new plans are in force and the next Set cleans up.
func (m *Maps) Set(plans map[netip.Addr]*Plan) error {
	changes, err := m.prepare(plans)
	defer func() {
		for _, c := range changes {
			if c.slots != nil {
				c.slots.Close()
			}
		}
	}()
	if err == nil {
		err = m.write(changes)
	}
	if err == nil {
		err = m.switchTo(changes)
	}
	for _, c := range changes {
		if m.installed[c.group] != c.to { // not in force
			m.old = append(m.old, c.to.generation)
			m.numbers[c.to.number] = m.installed[c.group].generation != 0
		}
	}
	if err == nil {
		err = m.removeOthers(plans)
	}
	return errors.Join(err, m.cleanUp())
}

// Remove removes all groups.
func (m *Maps) Remove() error { return m.Set(nil) }

// prepare reserves a generation, and for a new group a number, for each plan that differs from what is installed.
func (m *Maps) prepare(plans map[netip.Addr]*Plan) ([]change, error) {
	var changes []change
	for _, group := range slices.SortedFunc(maps.Keys(plans), netip.Addr.Compare) {
		plan := plans[group]
		if !group.Is4() || plan == nil {
			return changes, fmt.Errorf("steer group %s: want an IPv4 group and its plan", group)
		}
		is, known := m.installed[group]
		d := plan.digest()
		if known && is.digest == d {
			continue
		}
		number := is.number
		if !known {
			n := slices.Index(m.numbers, false)
			if n < 0 {
				return changes, fmt.Errorf("steer group %s: the maps have room for %d groups", group, len(m.numbers))
			}
			number = uint32(n)
		}
		g := slices.Index(m.generations, false)
		if g < 0 {
			return changes, fmt.Errorf("steer group %s: the maps have room for %d plans, old and new", group, len(m.generations)-1)
		}
		m.numbers[number], m.generations[g] = true, true
		changes = append(changes, change{group: group, plan: plan, to: installed{number, uint32(g), d}})
	}
	return changes, nil
}

// write writes the new generations, which no lookup sees yet.
func (m *Maps) write(changes []change) error {
	var at, fds []uint32
	for i := range changes {
		c := &changes[i]
		var err error
		if c.slots, err = newSlots(c.plan.lines()); err != nil {
			return fmt.Errorf("steer group %s: slot table: %w", c.group, err)
		}
		at, fds = append(at, c.to.generation), append(fds, uint32(c.slots.FD()))
		if err := m.plans.Put(c.to.generation, c.plan.header(c.to.digest)); err != nil {
			return fmt.Errorf("steer group %s: plan: %w", c.group, err)
		}
		if err := m.writeEntries(c.to.generation, c.plan); err != nil {
			return fmt.Errorf("steer group %s: %d entries: %w", c.group, c.plan.Entries(), err)
		}
	}
	if len(at) == 0 {
		return nil
	}
	if _, err := m.slots.BatchUpdate(at, fds, nil); err != nil {
		return fmt.Errorf("steer slot tables: %w", err)
	}
	return nil
}

func (m *Maps) writeEntries(generation uint32, p *Plan) error {
	if p.Entries() == 0 {
		return nil
	}
	keys, owners := make([]mapKey, 0, p.Entries()), make([]uint32, 0, p.Entries())
	for e, o := range p.entries {
		keys, owners = append(keys, mapKey{generation, e.mask, e.addr}), append(owners, uint32(o))
	}
	m.keys[generation] = keys // before they are there: what was written in part is cleaned up too
	_, err := m.entries.BatchUpdate(keys, owners, nil)
	if errors.Is(err, unix.E2BIG) {
		return fmt.Errorf("room for %d in all, old and new; raise max_entries of steer_entries: %w", m.entries.MaxEntries(), err)
	}
	return err
}

// switchTo puts the written generations into force, one store for each group.
func (m *Maps) switchTo(changes []change) error {
	for _, c := range changes {
		if err := m.current.Put(c.to.number, uint64(c.to.generation)); err != nil {
			return fmt.Errorf("steer group %s: switch: %w", c.group, err)
		}
		was, known := m.installed[c.group]
		if !known {
			if err := m.groups.Put(c.group.As4(), c.to.number); err != nil {
				return fmt.Errorf("steer group %s: add: %w", c.group, err)
			}
		} else if was.generation != 0 {
			m.old = append(m.old, was.generation)
		}
		m.installed[c.group] = c.to
	}
	return nil
}

func (m *Maps) removeOthers(plans map[netip.Addr]*Plan) error {
	for group, is := range m.installed {
		if plans[group] != nil {
			continue
		}
		if err := m.groups.Delete(group.As4()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("steer group %s: remove: %w", group, err)
		}
		delete(m.installed, group)
		m.old = append(m.old, is.generation)
		m.numbers[is.number] = false
	}
	return nil
}

// cleanUp frees the old generations once no lookup uses them any more.
func (m *Maps) cleanUp() error {
	if len(m.old) == 0 {
		return nil
	}
	none, err := newSlots(make([]line, 1))
	if err != nil {
		return fmt.Errorf("clean up steering maps: %w", err)
	}
	defer none.Close()
	// An update of a map of maps returns after a grace period: the programs that run from now on see what is in force.
	if err := m.slots.Put(uint32(0), none); err != nil {
		return fmt.Errorf("clean up steering maps: grace period: %w", err)
	}
	fds := make([]uint32, len(m.old))
	for i, g := range m.old {
		fds[i] = uint32(none.FD())
		if keys := m.keys[g]; len(keys) > 0 {
			if err := m.deleteEntries(keys); err != nil {
				return fmt.Errorf("clean up steering maps: entries: %w", err)
			}
			delete(m.keys, g)
		}
	}
	if _, err := m.slots.BatchUpdate(m.old, fds, nil); err != nil {
		return fmt.Errorf("clean up steering maps: slot tables: %w", err)
	}
	for _, g := range m.old {
		m.generations[g] = false
	}
	m.old = nil
	return nil
}

// deleteEntries deletes keys that need not be there.
func (m *Maps) deleteEntries(keys []mapKey) error {
	for len(keys) > 0 {
		n, err := m.entries.BatchDelete(keys, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		if err != nil {
			n++ // the missing one
		}
		keys = keys[min(n, len(keys)):]
	}
	return nil
}

// takeOver reads which plans are in force. Entries of all other generations are to be cleaned up; their slot tables go when
// the generation is used again.
func (m *Maps) takeOver() error {
	var group [4]byte
	var number uint32
	it := m.groups.Iterate()
	for it.Next(&group, &number) {
		var generation uint64
		var h header
		if err := m.current.Lookup(number, &generation); err != nil {
			return fmt.Errorf("group number %d: %w", number, err)
		}
		g := uint32(generation)
		if err := m.plans.Lookup(g, &h); err != nil {
			return fmt.Errorf("plan %d: %w", g, err)
		}
		m.installed[netip.AddrFrom4(group)] = installed{number, g, h.Digest}
		m.numbers[number], m.generations[g] = true, true
	}
	if err := it.Err(); err != nil {
		return err
	}
	found := map[uint32]bool{}
	var key mapKey
	var owner uint32
	it = m.entries.Iterate()
	for it.Next(&key, &owner) {
		m.keys[key.Generation] = append(m.keys[key.Generation], key)
		found[key.Generation] = true
	}
	if err := it.Err(); err != nil {
		return err
	}
	for g := range found {
		if int(g) < len(m.generations) && !m.generations[g] {
			m.generations[g] = true
			m.old = append(m.old, g)
		}
	}
	slices.SortFunc(m.old, cmp.Compare)
	return nil
}
