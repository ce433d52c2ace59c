package steer

import (
	"cmp"
	"maps"
	"math/bits"
	"slices"
)

// maxShapes is how many masked portions may lie in one slot, intersections included.
const maxShapes = 256

// shape is a masked portion within a slot: bits beside the index.
type shape struct{ addr, mask uint32 }

func (s shape) covers(o shape) bool { return s.mask&^o.mask == 0 && (s.addr^o.addr)&s.mask == 0 }

// slot fills a slot whose users do not all have one owner: its own owner is that of the users in no masked portion, each
// masked portion (and each intersection of several, where the smallest that has a user holds) and each override becomes
// an entry.
func (c *compiler) slot(number int, at uint32, cubes []cube) error {
	var masked, hosts []cube // index bits left out; hosts fix all others
	for _, q := range cubes {
		q.addr, q.mask = q.addr&^c.index, q.mask&^c.index
		if q.mask|c.index == hostMask {
			hosts = append(hosts, q)
		} else {
			masked = append(masked, q)
		}
	}
	shapes, err := c.shapes(masked)
	if err != nil {
		return err
	}
	base := c.ownerOf(shape{}, masked)
	c.slots[number] |= uint32(base)
	for _, s := range shapes {
		c.slots[number] |= slotMasked
		if err := c.enter(s.mask, at|s.addr, c.ownerOf(s, masked)); err != nil {
			return err
		}
	}
	return c.hosts(number, at, base, shapes, masked, hosts)
}

// shapes returns the masked portions of a slot and all of their intersections, most specific first.
func (c *compiler) shapes(masked []cube) ([]shape, error) {
	var list []shape
	seen := map[shape]bool{{}: true}
	add := func(s shape) {
		if !seen[s] {
			seen[s] = true
			list = append(list, s)
		}
	}
	for _, q := range masked {
		add(shape{q.addr, q.mask})
	}
	for i := 1; i < len(list); i++ {
		for j := range i {
			if a, b := list[i], list[j]; (a.addr^b.addr)&a.mask&b.mask == 0 {
				add(shape{a.addr | b.addr, a.mask | b.mask})
			}
		}
		if c.work -= i; c.work < 0 || len(list) > maxShapes {
			return nil, ErrTooComplex
		}
	}
	slices.SortFunc(list, func(a, b shape) int { return byMask(a.mask, b.mask) })
	return list, nil
}

// byMask orders masks with the more specific first.
func byMask(a, b uint32) int {
	return cmp.Or(cmp.Compare(bits.OnesCount32(b), bits.OnesCount32(a)), cmp.Compare(a, b))
}

// ownerOf returns the owner of the users for whom s is the smallest of the slot's shapes: exactly the cubes that cover s
// have them.
func (c *compiler) ownerOf(s shape, cubes []cube) Owner {
	c.work -= len(cubes)
	for group := range byClaim(cubes) {
		permitted := false
		for _, q := range group {
			if !(shape{q.addr, q.mask}).covers(s) {
				continue
			}
			if permitted = !q.deny; q.deny {
				break
			}
		}
		if permitted {
			return c.owners[group[0].claim]
		}
	}
	return 0
}

// hosts enters the overrides of one address where they differ from what the slot says without them.
func (c *compiler) hosts(number int, at uint32, base Owner, shapes []shape, masked, hosts []cube) error {
	slices.SortStableFunc(hosts, func(a, b cube) int { return cmp.Compare(a.addr, b.addr) })
	for len(hosts) > 0 {
		n := 1
		for n < len(hosts) && hosts[n].addr == hosts[0].addr {
			n++
		}
		s := shape{hosts[0].addr, hosts[0].mask}
		all := slices.Concat(masked, hosts[:n])
		slices.SortStableFunc(all, func(a, b cube) int { return cmp.Compare(a.claim, b.claim) })
		hosts = hosts[n:]
		without := base
		if i := slices.IndexFunc(shapes, func(m shape) bool { return m.covers(s) }); i >= 0 {
			without = c.tables[shapes[i].mask][at|shapes[i].addr]
		}
		owner := c.ownerOf(s, all)
		if c.work < 0 {
			return ErrTooComplex
		}
		if owner == without {
			continue
		}
		c.slots[number] |= slotExact
		c.exact[at|s.addr] = owner
	}
	return nil
}

func (c *compiler) enter(mask, addr uint32, o Owner) error {
	t := c.tables[mask]
	if t == nil {
		t = map[uint32]Owner{}
		c.tables[mask] = t
	}
	t[addr] = o
	if c.entries--; c.entries < 0 || len(c.tables) > maxMasks || c.work < 0 {
		return ErrTooComplex
	}
	return nil
}

// plan puts the parts together. A mask needs only the index bits in which its entries differ.
func (c *compiler) plan() *Plan {
	p := &Plan{runs: runsOf(c.index), slots: c.slots, entries: map[entry]Owner{}, users: overrides(c.exact)}
	for _, m := range slices.SortedFunc(maps.Keys(c.tables), byMask) {
		t, full := c.tables[m], m|c.index
		for _, b := range c.order {
			if alike(t, b) {
				full &^= b
				maps.DeleteFunc(t, func(a uint32, _ Owner) bool { return a&b != 0 })
			}
		}
		p.masks = append(p.masks, full)
		for a, o := range t {
			p.entries[entry{full, a}] = o
		}
	}
	return p
}

// alike reports whether bit b makes no difference to the owners in t.
func alike(t map[uint32]Owner, b uint32) bool {
	for a, o := range t {
		if other, ok := t[a^b]; !ok || other != o {
			return false
		}
	}
	return true
}
