package kernel

import (
	"errors"
	"net/netip"

	"github.com/manycast/manycast/igmpd/internal/kernel/mroute"
	"golang.org/x/sys/unix"
)

// routing is what a table needs of its mroute.Socket.
type routing interface {
	AddVIF(vif, ifindex int) error
	DelVIF(vif int) error
	Put(mroute.Entry) error
	Delete(mroute.Entry) error
	Flush() error
	Close() error
}

// table is a multicast routing table as the kernel has it, by our own account.
type table struct {
	routing
	vifs    map[int]int // number to interface index
	entries map[entryKey]mroute.Entry
	cut     mroute.VIFs // VIFs that were deleted since the last look: other entries may have lost them, too
}

// entryKey tells the kernel's entries apart: of one (*,G) there may be several with different parents.
type entryKey struct {
	sg
	parent int // 0 of a (S,G)
}

func keyOf(e mroute.Entry) entryKey {
	if e.Any() {
		return entryKey{sg{group: e.Group}, e.Parent}
	}
	return entryKey{sg: key(e)}
}

// adopt makes a table of a socket and of what the kernel has in it. numbers are those in use in other tables, by interface
// index: a table that has others starts afresh.
func adopt(sock routing, found mroute.Table, numbers map[int]int) (*table, error) {
	t := &table{routing: sock, vifs: map[int]int{}, entries: map[entryKey]mroute.Entry{}}
	for n, ifindex := range found.VIFs {
		if other, ok := numbers[ifindex]; ok && other != n {
			return t, sock.Flush()
		}
	}
	for n, ifindex := range found.VIFs {
		t.vifs[n] = ifindex
	}
	for _, e := range found.Entries {
		t.entries[keyOf(e)] = e
	}
	for _, e := range found.Lost {
		t.deleteLost(e)
	}
	return t, nil
}

// has reports whether an entry of a source is in t's account.
func (t *table) has(k sg) bool {
	_, ok := t.entries[entryKey{sg: k}]
	return ok
}

// deleteLost deletes an entry whose parent's number is not known: it is none of those that exist.
func (t *table) deleteLost(e mroute.Entry) {
	for e.Parent = range mroute.VIFsMax {
		if _, exists := t.vifs[e.Parent]; !exists {
			_ = t.Delete(e) // ENOENT but once
		}
	}
}

// ensure adds what is missing and changes what differs, without a gap for what does not.
func (t *table) ensure(vifs map[int]int, entries []mroute.Entry) error {
	var errs []error
	for n, ifindex := range vifs {
		if err := t.ensureVIF(n, ifindex); err != nil {
			errs = append(errs, err)
		}
	}
	for _, e := range entries {
		if have, ok := t.entries[keyOf(e)]; ok && have == e {
			continue
		}
		if err := t.Put(e); err != nil {
			errs = append(errs, err)
			continue
		}
		t.entries[keyOf(e)] = e
	}
	return errors.Join(errs...)
}

func (t *table) ensureVIF(n, ifindex int) error {
	have, ok := t.vifs[n]
	if ok && have == ifindex {
		return nil
	}
	if ok {
		if err := t.dropVIF(n); err != nil {
			return err
		}
	}
	if err := t.AddVIF(n, ifindex); err != nil {
		return err
	}
	t.vifs[n] = ifindex
	return nil
}

// dropVIF deletes a VIF. Entries that name it leave t's account, so that they are put again where they are wanted: the kernel
// may have cut it out of them.
func (t *table) dropVIF(n int) error {
	err := t.DelVIF(n)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		err = nil
	}
	delete(t.vifs, n)
	t.cut |= mroute.VIF(n)
	for k, e := range t.entries {
		if e.Out.Has(n) || e.Parent == n {
			t.entries[k] = mroute.Entry{Source: e.Source, Group: e.Group, Parent: e.Parent} // put again if wanted
		}
	}
	return err
}

// prune deletes entries that are not wanted, then VIFs.
func (t *table) prune(vifs map[int]int, entries []mroute.Entry) error {
	wanted := make(map[entryKey]bool, len(entries))
	for _, e := range entries {
		wanted[keyOf(e)] = true
	}
	var errs []error
	for k, e := range t.entries {
		if wanted[k] {
			continue
		}
		if err := t.Delete(e); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
			continue
		}
		delete(t.entries, k)
	}
	for n := range t.vifs {
		if _, ok := vifs[n]; !ok {
			errs = append(errs, t.dropVIF(n))
		}
	}
	return errors.Join(errs...)
}

// release takes the (S,G) entries that are not wanted out of t's account and leaves them in the kernel.
func (t *table) release(wanted map[sg]bool) []mroute.Entry {
	var released []mroute.Entry
	for k, e := range t.entries {
		if k.source != (netip.Addr{}) && !wanted[k.sg] {
			released = append(released, e)
			delete(t.entries, k)
		}
	}
	return released
}
