package steer

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// cleaner waits for grace periods beside the work of Maps, which owns all state: a batch goes out, then comes back.
type cleaner struct {
	slots, users, entries *ebpf.Map // its own descriptors
	noSlots, noUsers      *ebpf.Map // take the place of tables
	next                  batch
	out                   *batch // with the goroutine
	done                  chan error
}

// batch is what is out of force: lookups that began before may still use it.
type batch struct {
	generations []uint32
	numbers     []uint32 // of removed groups
	unused      []uint32 // generations whose slot tables are to go
	users       []uint32 // generations whose tables of users are to go
	keys        []mapKey
}

func (c *cleaner) open(slots, users, entries *ebpf.Map) (err error) {
	c.done = make(chan error, 1)
	if c.slots, err = slots.Clone(); err != nil {
		return err
	}
	if c.users, err = users.Clone(); err != nil {
		return err
	}
	if c.entries, err = entries.Clone(); err != nil {
		return err
	}
	if c.noSlots, err = newTable(slotTable, 1); err != nil {
		return err
	}
	c.noUsers, err = newTable(userTable, 1)
	return err
}

// start sends the next batch out unless one is out already.
func (c *cleaner) start() {
	if c.out != nil || len(c.next.generations) == 0 {
		return
	}
	b := c.next
	c.out, c.next = &b, batch{}
	go func() { c.done <- c.clean(b) }()
}

func (c *cleaner) removesGroups() bool {
	return len(c.next.numbers) > 0 || c.out != nil && len(c.out.numbers) > 0
}

func (c *cleaner) clean(b batch) error {
	// An update of a map of maps returns after a grace period: the programs that run from now on see what is in force.
	if err := c.slots.Put(uint32(0), c.noSlots); err != nil {
		return fmt.Errorf("clean up steering maps: grace period: %w", err)
	}
	if err := c.deleteEntries(b.keys); err != nil {
		return fmt.Errorf("clean up steering maps: entries: %w", err)
	}
	err := errors.Join(putAll(c.slots, b.unused, c.noSlots), putAll(c.users, b.users, c.noUsers))
	if err != nil {
		return fmt.Errorf("clean up steering maps: tables: %w", err)
	}
	return nil
}

// putAll puts one table in the place of those of some generations.
func putAll(outer *ebpf.Map, generations []uint32, table *ebpf.Map) error {
	if len(generations) == 0 {
		return nil
	}
	fds := make([]uint32, len(generations))
	for i := range fds {
		fds[i] = uint32(table.FD())
	}
	_, err := outer.BatchUpdate(generations, fds, nil)
	return err
}

// deleteEntries deletes keys that need not be there.
func (c *cleaner) deleteEntries(keys []mapKey) error {
	for len(keys) > 0 {
		n, err := c.entries.BatchDelete(keys, nil)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			n, err = n+1, nil // go on behind the missing one
		}
		if err != nil {
			return err
		}
		keys = keys[min(n, len(keys)):]
	}
	return nil
}

// retire gives what is out of force to the next batch.
func (m *Maps) retire(i installed, removed bool) {
	b := &m.cleaner.next
	b.generations = append(b.generations, i.generation)
	b.keys = append(b.keys, m.keys[i.generation]...)
	delete(m.keys, i.generation)
	if i.hasUsers || m.users.len(i.generation) > 0 {
		b.users = append(b.users, i.generation)
	}
	if removed {
		b.numbers = append(b.numbers, i.number)
		b.unused = append(b.unused, i.generation)
	}
}

// collect frees what the batch that is out has cleaned; it waits for it or not.
func (m *Maps) collect(wait bool) error {
	c := &m.cleaner
	if c.out == nil {
		return nil
	}
	var err error
	if wait {
		err = <-c.done
	} else {
		select {
		case err = <-c.done:
		default:
			return nil
		}
	}
	b := *c.out
	c.out = nil
	if err != nil { // once more
		c.next.generations = append(c.next.generations, b.generations...)
		c.next.numbers = append(c.next.numbers, b.numbers...)
		c.next.unused = append(c.next.unused, b.unused...)
		c.next.users = append(c.next.users, b.users...)
		c.next.keys = append(c.next.keys, b.keys...)
		return err
	}
	for _, g := range b.generations {
		m.generations[g] = false
	}
	m.slots.drop(b.unused...)
	m.users.drop(b.users...)
	for _, n := range b.numbers {
		m.numbers[n] = false
	}
	return nil
}

// settle waits until all that is out of force is cleaned up.
func (m *Maps) settle() error {
	for {
		if err := m.collect(true); err != nil {
			return err
		}
		if m.cleaner.start(); m.cleaner.out == nil {
			return nil
		}
	}
}
