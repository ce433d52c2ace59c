package service

import (
	"net/netip"
	"time"
)

// Packet is an IGMP packet as it came in, with what its IP header said.
type Packet struct {
	Port        string
	Source      netip.Addr
	Destination netip.Addr
	TTL         uint8
	RouterAlert bool
	Payload     []byte // the IGMP message; the receiver's to keep
	At          time.Time
}

// PortState is what the system says of an interface that igmpd serves.
type PortState struct {
	Name     string
	Index    int    // another one: the interface was made anew
	Hardware string // address of the link
	Up       bool
	Address  netip.Addr     // primary; invalid: none
	Prefixes []netip.Prefix // connected
	MTU      int
}

// Hop is where the unicast route to an address leads.
type Hop struct {
	Port  string // name of the interface it leaves by
	Local bool   // the address is this router's own
}

// Network is the seam to sockets and routing. Packets and Changed may be received from at any time; the other methods are
// called by one goroutine.
type Network interface {
	Packets() <-chan Packet
	// Changed tells, coalesced, that links, addresses or routes have changed.
	Changed() <-chan struct{}
	// Ports returns the interfaces as they are now and receives on those that are up.
	Ports() ([]PortState, error)
	// Route looks a unicast route up; false: there is none.
	Route(netip.Addr) (Hop, bool)
	// Send sends an IGMP message with TTL 1, router alert and the port's own address.
	Send(port string, to netip.Addr, payload []byte) error
	Close() error
}
