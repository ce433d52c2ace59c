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
var MapNames = [...]string{"steer_groups", "steer_current", "steer_plans", "steer_slots", "steer_entries", "steer_users"}

// Maps puts plans into the maps of bpf/steer.h. One goroutine at a time may use it, and one Maps at a time the maps.
type Maps struct {
	groups, current, plans, entries *ebpf.Map

	inForce     *words // of current
	installed   map[netip.Addr]installed
	numbers     []bool // of groups, in use
	generations []bool // in use, old ones not yet cleaned up included; 0 is none
	slots       *tables
	users       *tables
	keys        map[uint32][]mapKey // in entries, by generation
	cleaner     cleaner
}

// installed is what the maps have of a group.
type installed struct {
	number, generation uint32
	digest             digest
	hasUsers           bool
	byPort             netip.Addr // as Plan.WithByPort; zero: none
	plan               *Plan      // that was given; nil: a former process' one
	users              int        // lines of its table of users
}

// NewMaps takes the maps of a loaded collection by their names in bpf/steer.h (Collection.Maps will do). What pinned maps
// hold already is taken over; what a former process left half done is cleaned up by the next Set.
func NewMaps(byName map[string]*ebpf.Map) (*Maps, error) {
	m := &Maps{
		installed: map[netip.Addr]installed{}, keys: map[uint32][]mapKey{},
		slots: newTables("slot table", slotTable), users: newTables("table of users", userTable),
	}
	for i, to := range []**ebpf.Map{&m.groups, &m.current, &m.plans, &m.slots.outer, &m.entries, &m.users.outer} {
		if *to = byName[MapNames[i]]; *to == nil {
			return nil, fmt.Errorf("map %s is missing; the program must include steer.h", MapNames[i])
		}
	}
	m.numbers = make([]bool, min(m.groups.MaxEntries(), m.current.MaxEntries()))
	m.generations = make([]bool, min(m.plans.MaxEntries(), m.slots.outer.MaxEntries(), m.users.outer.MaxEntries()))
	m.generations[0] = true
	var err error
	if m.inForce, err = mapWords(m.current); err != nil {
		return nil, fmt.Errorf("map steer_current: %w", err)
	}
	if err := m.takeOver(); err != nil {
		return nil, fmt.Errorf("take over steering maps: %w", err)
	}
	if err := m.cleaner.open(m.slots.outer, m.users.outer, m.entries); err != nil {
		return nil, fmt.Errorf("steering maps: %w", err)
	}
	return m, nil
}

// change is a group on its way to a new plan.
type change struct {
	group netip.Addr
	plan  *Plan
	to    installed
	lines []line
}

// Set makes plans the plans of all groups: new ones are added, changed ones switched in one step, others removed. Plans that
// are in the maps already are not touched. Every lookup sees one plan as a whole. After an error, groups that could not be
// switched keep their plans, all others are switched; Set again. What is out of force is cleaned up in the background.
func (m *Maps) Set(plans map[netip.Addr]*Plan) error {
	cleanErr := m.collect(false)
	var changes []change
	err := m.makeRoom(plans)
	if err == nil {
		changes, err = m.prepare(plans)
	}
	if err == nil {
		changes, err = m.write(changes)
		err = errors.Join(err, m.switchTo(changes))
	}
	for _, c := range changes {
		if is, known := m.installed[c.group]; is != c.to { // not in force
			m.retire(c.to, !known)
		}
	}
	err = errors.Join(err, m.removeOthers(plans))
	m.cleaner.start()
	return errors.Join(err, cleanErr)
}

// Groups are those that have a plan.
func (m *Maps) Groups() []netip.Addr { return slices.Collect(maps.Keys(m.installed)) }

// ByPort is the group of the plan that the one in force leads users to who are told apart by port, too; false: it leads nobody.
func (m *Maps) ByPort(group netip.Addr) (netip.Addr, bool) {
	g := m.installed[group].byPort
	return g, g.IsValid()
}

// Remove removes all groups, and waits until nothing of them is left.
func (m *Maps) Remove() error { return errors.Join(m.Set(nil), m.settle()) }

// makeRoom removes the groups that are not wanted before the new ones come, where the maps have no room for both.
func (m *Maps) makeRoom(plans map[netip.Addr]*Plan) error {
	all := len(m.installed)
	for group := range plans {
		if _, known := m.installed[group]; !known {
			all++
		}
	}
	if all <= len(m.numbers) {
		return nil
	}
	return m.removeOthers(plans)
}

// prepare reserves a generation, and for a new group a number, for each plan that differs from what is installed.
func (m *Maps) prepare(plans map[netip.Addr]*Plan) ([]change, error) {
	var changes []change
	for _, group := range slices.SortedFunc(maps.Keys(plans), netip.Addr.Compare) {
		plan := plans[group]
		if !group.Is4() || plan == nil {
			return changes, fmt.Errorf("steer group %s: want an IPv4 group and its plan", group)
		}
		is, known := m.installed[group]
		if known && is.plan == plan {
			continue
		}
		d := plan.digest()
		if known && is.digest == d {
			is.plan = plan
			m.installed[group] = is
			continue
		}
		number := is.number
		if !known {
			var err error
			if number, err = m.freeNumber(); err != nil {
				return changes, fmt.Errorf("steer group %s: %w", group, err)
			}
		}
		lines := plan.lines()
		g, err := m.freeGeneration(len(lines), is.users)
		if err != nil {
			return changes, fmt.Errorf("steer group %s: %w", group, err)
		}
		m.numbers[number], m.generations[g] = true, true
		to := installed{number: number, generation: g, digest: d, hasUsers: plan.Users() > 0, byPort: plan.byPort, plan: plan}
		changes = append(changes, change{group, plan, to, lines})
	}
	return changes, nil
}

// freeNumber returns a number for a new group. Numbers and elements of steer_groups are used again only after a grace period.
func (m *Maps) freeNumber() (uint32, error) {
	n := slices.Index(m.numbers, false)
	if n < 0 || m.cleaner.removesGroups() {
		if err := m.settle(); err != nil {
			return 0, err
		}
		n = slices.Index(m.numbers, false)
	}
	if n < 0 {
		return 0, fmt.Errorf("the maps have room for %d groups", len(m.numbers))
	}
	return uint32(n), nil
}

// freeGeneration returns one that has tables of these lengths if there is one, else one whose tables are replaced, that of slots at the last.
func (m *Maps) freeGeneration(lines, users int) (uint32, error) {
	if !slices.Contains(m.generations, false) {
		if err := m.settle(); err != nil {
			return 0, err
		}
	}
	best, rank := -1, 4
	for g, used := range m.generations {
		has := m.slots.len(uint32(g))
		switch {
		case used:
		case has == lines && m.users.len(uint32(g)) == users:
			return uint32(g), nil
		case has == lines && rank > 1:
			best, rank = g, 1
		case has > 0 && rank > 2:
			best, rank = g, 2
		case rank > 3:
			best, rank = g, 3
		}
	}
	if best < 0 {
		return 0, fmt.Errorf("the maps have room for %d plans, old and new", len(m.generations)-1)
	}
	return uint32(best), nil
}

// write writes the new generations, which no lookup sees yet. It returns those that may be switched to: a plan that does not
// fit keeps no other from its turn, and small ones come first, but those that lead on to others after all of these.
func (m *Maps) write(changes []change) ([]change, error) {
	slices.SortStableFunc(changes, func(a, b change) int {
		return cmp.Or(a.plan.leads()-b.plan.leads(), cmp.Compare(a.plan.Entries(), b.plan.Entries()))
	})
	var written []change
	var errs []error
	give := func(c change) {
		_, known := m.installed[c.group]
		m.retire(c.to, !known)
	}
	for i := range changes {
		c := &changes[i]
		if err := m.writePlan(c); err != nil {
			m.slots.drop(c.to.generation)
			m.users.drop(c.to.generation)
			give(*c)
			errs = append(errs, fmt.Errorf("steer group %s: %w", c.group, err))
			continue
		}
		written = append(written, *c)
	}
	if err := errors.Join(m.slots.put(), m.users.put()); err != nil {
		for _, c := range written {
			give(c)
		}
		return nil, errors.Join(append(errs, err)...)
	}
	return written, errors.Join(errs...)
}

// writePlan writes a generation, which no lookup sees yet. Tables that are fresh have still to be put.
func (m *Maps) writePlan(c *change) error {
	g := c.to.generation
	if err := m.slots.fill(g, len(c.lines), c.lines); err != nil {
		return err
	}
	var at usersAt
	if c.plan.Users() > 0 {
		var table []userLine
		table, at = layUsers(c.plan.users)
		c.to.users = len(table)
		if err := m.users.fill(g, int(at.Len), table); err != nil {
			return err
		}
	}
	if err := m.plans.Put(g, c.plan.header(c.to.digest, at)); err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	err := m.writeEntries(g, c.plan)
	if errors.Is(err, unix.E2BIG) { // old ones may still be there
		if err = m.settle(); err == nil {
			err = m.writeEntries(g, c.plan)
		}
	}
	if err != nil {
		return fmt.Errorf("%d entries: %w", len(c.plan.entries), err)
	}
	return nil
}

func (m *Maps) writeEntries(generation uint32, p *Plan) error {
	if len(p.entries) == 0 {
		return nil
	}
	keys, owners := make([]mapKey, 0, len(p.entries)), make([]uint32, 0, len(p.entries))
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
		m.inForce.store(c.to.number, c.to.generation)
		was, known := m.installed[c.group]
		if !known {
			if err := m.groups.Put(c.group.As4(), c.to.number); err != nil {
				return fmt.Errorf("steer group %s: add: %w", c.group, err)
			}
		} else if was.generation != 0 {
			m.retire(was, false)
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
		m.retire(is, true)
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
		if int(number) >= len(m.numbers) {
			return fmt.Errorf("group number %d is out of range; remove the pinned maps", number)
		}
		var h header
		g := m.inForce.load(number)
		if err := m.plans.Lookup(g, &h); err != nil {
			return fmt.Errorf("plan %d: %w", g, err)
		}
		m.installed[netip.AddrFrom4(group)] = installed{
			number: number, generation: g, digest: h.Digest, hasUsers: h.Users.Len > 0, byPort: h.byPort(), users: int(h.Users.Len),
		}
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
			m.retire(installed{generation: g, hasUsers: true}, false)
		}
	}
	return nil
}
