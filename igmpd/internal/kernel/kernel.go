// Package kernel brings igmpd's desired forwarding state into the Linux kernel: multicast routing tables, rules by mark, and
// the BPF classifier in front of them. Callers describe all that they want with Set; the package finds and makes the difference.
//
// On a multicast router an IGMPv1/v2 report, which is addressed to its own group, does not reach an ordinary raw IGMP socket:
// a receiver needs IP_ROUTER_ALERT (v2), or a packet socket (both).
package kernel

import (
	"context"
	"net/netip"

	"github.com/manycast/manycast/internal/steer"
)

// Forwarder carries a State out. Its methods may be called from several goroutines.
type Forwarder interface {
	// Set makes s the forwarding state. It is idempotent and never interrupts what stays the same. What can be done is done
	// even where a part fails (an interface that is gone, say); the error joins what could not be, and Set may be tried again.
	Set(s State) error
	// Secure sees to it that forwarding outlives this process, also where its holder was started anew. It is to be called now and then.
	Secure() error
	// Counters reads the counters, which go on over restarts as long as the kernel's state does.
	Counters() (Counters, error)
	// Run answers the kernel's questions about unknown sources until ctx ends. Returns nil then.
	Run(ctx context.Context) error
	// Close ends the work. Without keep all that was ever put into the kernel is removed; with keep forwarding goes on,
	// as it does when the process is killed: the next Forwarder takes everything over.
	Close(keep bool) error
}

// Interface is one of the router's interfaces with multicast; at most 32 (the kernel's limit per table).
type Interface struct {
	Name    string
	Users   bool // users' packets enter here
	Members bool // members may join here
}

// State is all that igmpd wants forwarded.
type State struct {
	Interfaces []Interface
	Private    map[netip.Addr]Private // by group
	Public     []Route                // at most one per (Group, Source)
}

// Private is a group of admitted, extended joins. A group with no owners stays known: its packets are dropped and counted.
type Private struct {
	Plan   *steer.Plan            // user to owner; nil: nobody owns anybody
	Owners map[steer.Owner]string // owner to the interface that its packets leave by
	In     []string               // interfaces that packets are accepted from
}

// Route is plain multicast forwarding of a public group.
type Route struct {
	Group  netip.Addr
	Source netip.Addr // the zero Addr: any
	In     []string   // interfaces that packets are accepted from
	Out    []string   // interfaces that they leave by; never back by the one of arrival
}

// Traffic counts packets and their bytes, from the IP header on.
type Traffic struct {
	Packets, Bytes uint64
}

// Counters of the forwarding plane.
type Counters struct {
	Owners      map[steer.Owner]Traffic // owner mode: packets found to be the owner's, whichever way they went on
	NoOwner     uint64                  // owner mode: packets of private groups whose user nobody owns, dropped; source mode: such sources
	Accelerated uint64                  // packets redirected in front of the tables
	Tables      uint64                  // packets marked and left to the tables
	Sources     int                     // (S,G) entries made on demand
	Refused     int                     // of those, entries that forward to nobody
	Evicted     uint64                  // (S,G) entries put out by the cap, by this process
}
