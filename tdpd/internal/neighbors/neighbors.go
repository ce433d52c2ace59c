// Package neighbors follows who is a neighbor on the link: Ethernet addresses of neighbors and of this router's interfaces, for who builds
// frames. The kernel resolves and keeps them; here they are read, and asked for.
package neighbors

import (
	"maps"
	"net"
	"net/netip"
	"slices"
)

// Key is a neighbor.
type Key struct {
	Interface int // index
	Address   netip.Addr
}

// Link is an interface that frames leave by.
type Link struct {
	Name string
	MAC  net.HardwareAddr // 6 bytes
	MTU  int              // of what is in a frame
	Up   bool
}

// Table is what is known. It is immutable.
type Table struct {
	Neighbors map[Key]net.HardwareAddr // those that can be sent to
	Links     map[int]Link             // Ethernet interfaces, by index
}

// Equal says whether two tables say the same.
func (t Table) Equal(o Table) bool {
	same := func(a, b net.HardwareAddr) bool { return string(a) == string(b) }
	return maps.EqualFunc(t.Neighbors, o.Neighbors, same) && maps.EqualFunc(t.Links, o.Links, func(a, b Link) bool {
		return a.Name == b.Name && same(a.MAC, b.MAC) && a.MTU == b.MTU && a.Up == b.Up
	})
}

// Addresses are those that a neighbor has on a link, by its Ethernet address, sorted; none: it is not known.
func (t Table) Addresses(iface int, mac net.HardwareAddr) []netip.Addr {
	var out []netip.Addr
	for key, m := range t.Neighbors {
		if key.Interface == iface && string(m) == string(mac) {
			out = append(out, key.Address)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// Source is the seam between the kernel and the fake.
type Source interface {
	// Tables has the newest table each time that it has changed; it never closes before Close.
	Tables() <-chan Table
	// Want makes these all the neighbors that are to be known: those that are not are resolved, again and again.
	Want(keys []Key)
	Close() error
}

// Fake is a Source without a kernel.
type Fake struct {
	tables chan Table
	wanted chan []Key
}

// NewFake returns one; Send says what its table is.
func NewFake() *Fake { return &Fake{make(chan Table, 16), make(chan []Key, 1)} }

// Send makes t the table.
func (f *Fake) Send(t Table) { f.tables <- t }

// Tables implements Source.
func (f *Fake) Tables() <-chan Table { return f.tables }

// Want implements Source.
func (f *Fake) Want(keys []Key) {
	select {
	case <-f.wanted:
	default:
	}
	f.wanted <- keys
}

// Wanted are the keys of the last Want, which it waits for.
func (f *Fake) Wanted() []Key { return <-f.wanted }

// Close implements Source.
func (f *Fake) Close() error { return nil }
