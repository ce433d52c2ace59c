// Package fastpath is tdpd's own forwarding: XDP programs that find a user's server and push the label of its tree, and that swap and
// pop labels. It stands in front of the kernel's tables, with the same answers, or in their place where the kernel has no MPLS.
package fastpath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/manycast/manycast/tdpd/internal/kernel"
)

// Hop is where packets leave, and how.
type Hop struct {
	Interface int              // index
	How       How              //
	Label     uint32           // of Label: 0 to 1,048,575
	To        net.HardwareAddr // the neighbour, 6 bytes
	From      net.HardwareAddr // the interface
	MTU       int              // of the link: the longest packet, all that is added included, 68 to 65,535; of UDP at least 128
	Tunnel    netip.Addr       // of UDP: the far end
	Next      kernel.Hop       // what it comes of, for the next process: a neighbor, and a label or none; zero: it is nobody's
}

// How is what is done to a packet's labels.
type How uint8

// What may be done. The values are those of the programs.
const (
	Kernel How = iota // nothing: the kernel's tables do it
	Label             // push it, or swap it in
	Bare              // a packet leaves without a label, or with what is below the one that came in
	UDP               // as Label, and in UDP to the far end of a tunnel (RFC 7510)
	Local             // what is below the label is given to this host
)

// Counters are what has been done since the maps were made.
type Counters struct {
	Pushed, Swapped, Popped uint64
	Bare                    uint64 // sent to a next hop that wants no label
	Kernel                  uint64 // left to the kernel's tables
	Expiring                uint64 // with a TTL that ends here: left to them, or of NoTables
	TooLong                 uint64 // for the link's MTU: the sender was told so, or as above
	Told                    uint64 // of these: told
	Nobody                  uint64 // dropped or refused: the user has no owner, or the owner no tree; dropped: a label leads nowhere
	Reset, Unreachable      uint64 // of these: refused by a reset, by an ICMP error
	Outsider                uint64 // dropped: with a label, on an interface toward users
	NoLabel                 uint64 // dropped: with a label that is not known, and no tables behind
	NoTables                uint64 // dropped: with one that is, but what tables should have done, and there are none
	Malformed               uint64 // dropped
	Tunneled                uint64 // of those pushed and swapped: sent in UDP
	Untunneled              uint64 // taken out of UDP
	Stranger                uint64 // dropped: in UDP, from an address that may not send it
	Congested               uint64 // dropped: marked on the way in UDP, and what is inside cannot say so (RFC 6040)
	Local                   uint64 // given to this host
}

// ByName are the counters by their names in metrics and status.
func (c Counters) ByName() map[string]uint64 {
	return map[string]uint64{
		"pushed": c.Pushed, "swapped": c.Swapped, "popped": c.Popped, "bare": c.Bare, "kernel": c.Kernel, "expiring": c.Expiring,
		"too_long": c.TooLong, "told": c.Told, "nobody": c.Nobody, "reset": c.Reset, "unreachable": c.Unreachable, "outsider": c.Outsider,
		"no_label": c.NoLabel, "no_tables": c.NoTables, "malformed": c.Malformed,
		"tunneled": c.Tunneled, "untunneled": c.Untunneled, "stranger": c.Stranger, "congested": c.Congested, "local": c.Local,
	}
}

// Traffic is what went to an owner, counted where labels are pushed.
type Traffic struct {
	Packets uint64
	Bytes   uint64 // from the IP header on
}

// Tagless is a packet for a VIP that came from another router without a tag, and went along a tree.
type Tagless struct {
	VIP, User netip.Addr       // a user of IPv6 by its first 64 bits
	Interface int              // index of the one that it came by
	From      net.HardwareAddr // who sent it
}

// Listener reads of which packets the programs tell.
type Listener interface {
	// Read waits for packets, and returns those that there are, 1,024 at most. After Close the error wraps os.ErrClosed.
	Read() ([]Tagless, error)
	// Close ends it, and a Read that waits.
	Close() error
}

// Bounds of the maps.
const (
	MaxSources = 1 << 10
	MaxOwners  = 1 << 16
	MaxLabels  = 1 << 20
	MaxHops    = 1 << 20
)

// ErrFull says that there is no room for an entry.
var ErrFull = errors.New("the fast path's maps are full")

func (h Hop) check() error {
	switch {
	case h.How == Kernel || h.How == Local:
		return nil
	case h.Interface <= 0:
		return fmt.Errorf("hop by interface %d", h.Interface)
	case len(h.To) != 6 || len(h.From) != 6:
		return fmt.Errorf("hop by interface %d: from %q to %q, want Ethernet addresses", h.Interface, h.From, h.To)
	case h.MTU < 68 || h.MTU > 65535:
		return fmt.Errorf("hop by interface %d: MTU %d, want 68 to 65535", h.Interface, h.MTU)
	case h.How == UDP && (!h.Tunnel.IsValid() || h.MTU < 128):
		return fmt.Errorf("hop by interface %d: in UDP to %v with MTU %d, want an address and 128 or more", h.Interface, h.Tunnel, h.MTU)
	case h.Label >= 1<<20:
		return fmt.Errorf("hop by interface %d: label %d, want 20 bits", h.Interface, h.Label)
	}
	return nil
}

// encode is struct fast_hop.
func (h Hop) encode() (e fastpathFastHop) {
	e.How = uint8(h.How)
	if h.Next.Via.IsValid() {
		e.Ifindex, e.Via.In6U.U6Addr8 = uint32(h.Next.Interface), h.Next.Via.As16()
		if h.Next.Tunnel.IsValid() {
			e.Far.In6U.U6Addr8 = h.Next.Tunnel.As16()
		}
		if len(h.Next.Labels) > 0 {
			e.Labelled, e.Entry = 1, h.Next.Labels[0]<<12
		}
	}
	switch h.How {
	case Kernel:
		return e
	case Local:
		e.Ifindex = uint32(h.Interface)
		return e
	case UDP:
		e.Far.In6U.U6Addr8 = h.Tunnel.As16()
	}
	e.Ifindex, e.Entry, e.Mtu = uint32(h.Interface), h.Label<<12, uint16(h.MTU)
	copy(e.Macs[:6], h.To)
	copy(e.Macs[6:], h.From)
	return e
}

// next is what an encoded hop comes of; false: it is nobody's.
func (e fastpathFastHop) next() (kernel.Hop, bool) {
	if How(e.How) == Local {
		return kernel.Hop{Interface: int(e.Ifindex)}, true
	}
	via := netip.AddrFrom16(e.Via.In6U.U6Addr8).Unmap()
	if via.IsUnspecified() {
		return kernel.Hop{}, false
	}
	h := kernel.Hop{Via: via, Interface: int(e.Ifindex)}
	if e.Labelled != 0 {
		h.Labels = []uint32{e.Entry >> 12}
	}
	if far := netip.AddrFrom16(e.Far.In6U.U6Addr8).Unmap(); !far.IsUnspecified() {
		h.Tunnel = far
	}
	return h, true
}
