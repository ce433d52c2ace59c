package dataplane

import (
	"log/slog"
	"net/netip"
)

// DirectorService is one service at the edge: packets for VIP and one of Ports go to Group.
type DirectorService struct {
	VIP   netip.Addr // IPv4 unicast
	Group netip.Addr // IPv4 multicast
	Ports []Port     // at least one; services may share a VIP by different ports

	// Refuse: users are told at once that nobody is there, by a reset or a port unreachable, in place of waiting for a server.
	// Fragments and ICMP go on to the group.
	Refuse bool
}

// DirectorPlane rewrites VIP -> group on the interfaces where users' packets enter. One goroutine sets and closes it; any
// may read the counters until then.
type DirectorPlane interface {
	// Set makes services the complete set of what is rewritten. Services that did not change are not touched. It fails, and
	// changes nothing, when the services contradict each other.
	Set(services []DirectorService) error
	// Counters are totals since the plane was first set up; they go on over a restart.
	Counters() (DirectorCounters, error)
	// Close lets go of the plane. keep: rewriting goes on and the next OpenDirector takes it over; else nothing is left.
	Close(keep bool) error
}

// DirectorCounters count packets as the program sees them, where a super-packet (GRO) is one.
type DirectorCounters struct {
	Rewritten     uint64 // VIP -> group
	Bytes         uint64 // of the rewritten packets, with their link-layer header
	Fragments     uint64 // of the rewritten packets, those that followed their first fragment
	ICMPErrors    uint64 // of the rewritten packets, ICMP errors given to the service that they are about
	FragmentsLost uint64 // dropped: a later fragment whose first was not seen
	NoService     uint64 // for a VIP, but for none of its services; left to the kernel
	Malformed     uint64 // for a VIP, but too short for its own headers; dropped
	Refused       uint64 // of a service with Refuse: answered
	Unanswered    uint64 // of a service with Refuse: dropped; resets, IP options, more UDP than 1,000 packets a second and CPU
}

// DirectorConfig is what does not change while a director runs.
type DirectorConfig struct {
	Interfaces   []string // Ethernet-like interfaces where users' packets enter
	Bpffs        string   // directory for pins, on a bpffs
	FragmentsMax int      // fragmented datagrams followed at a time; 0: 65536
	Log          *slog.Logger
}
