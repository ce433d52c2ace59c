package dataplane

import (
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/portion"
)

// AgentService is one service on a server: packets for Group from users in Accept, for one of Ports, go up to the application at
// VIP; all others for Group are dropped. Tagged ones come to the VIP itself, and are of whomever the routers say; those of IPv6 go up
// uncounted, for any port.
type AgentService struct {
	VIP    netip.Addr // IPv4 unicast
	VIP6   netip.Addr // IPv6 unicast; zero: none
	Group  netip.Addr // IPv4 multicast; one service each; zero: none
	Tagged bool       // packets come to the VIP, which is this service's alone
	Ports  []Port     // at least one; services may share a VIP by different ports
	Accept portion.Union
	// InStead are those of Accept who are a silent server's on this link: where Leased they are taken while this agent can hear that it is back, which
	// Pause does not prolong.
	InStead portion.Union
	Leased  bool // a leader gives the users to others once this agent is dead: they are taken while it is alive
	// Keeps: connections of users who moved are kept. Packets of TCP and UDP that are of none here go to who may have it, by Chains; what
	// comes from peers goes up for whatever user has it here. Needs AgentConfig.Forward.
	Keeps  bool
	Chains []Chain // where Keeps; disjoint: of two that have a user the first holds
}

// AgentPlane rewrites group -> VIP on the interface where the server joins. One goroutine sets and closes it; any
// may renew it and read the counters until then.
type AgentPlane interface {
	// Set makes services the complete set. The accepted users of a group switch in one step: no packet sees a mix. It fails,
	// and changes nothing, when the services contradict each other.
	Set(services []AgentService) error
	// Prepare does what a Set of services would have to wait for, and puts their chains in force, so that whoever gets users finds
	// their connections from the first packet on. Else it changes nothing that packets meet.
	Prepare(services []AgentService) error
	// Revive says that the agent is alive: from now on users of leased services are taken for AgentConfig.Hold, and no longer.
	// Like the next three it may be called beside Set and Counters.
	Revive() error
	// Renew does so where they are taken still; else it returns ErrLapsed: others may have them.
	Renew() error
	// Alive reports whether users of leased services are taken, be it by what a former agent said.
	Alive() (bool, error)
	// Pause is the last word before a planned restart: they are taken for d, but those of InStead, and Renew does nothing any more. It
	// returns ErrLapsed where they are not.
	Pause(d time.Duration) error
	// Counters are totals since the plane was first set up; they go on over a restart.
	Counters() (AgentCounters, error)
	// Traffic is what was done for each group since it was first set; it goes on over a restart. Here and below a service without a
	// group goes by its VIP.
	Traffic() (map[netip.Addr]Traffic, error)
	// Senders are the users of each group whose packets were seen since the last call, by a sample of one packet in sixteen. Where
	// there are thousands, the light ones are missing. One goroutine calls it.
	Senders() (map[netip.Addr][]Sender, error)
	// Shed refuses new TCP connections of group by a reset: those of share of 1,024 users, always the same ones. Connections that
	// are there stay; UDP knows no connections, and is not refused. It goes on over a restart.
	Shed(group netip.Addr, share int) error
	// Shedding is what Shed said last of group, be it in an earlier run.
	Shedding(group netip.Addr) (share int, err error)
	// Redirect sends the first segments of connections that can move (dynamic TCP, IPv4) to another server, which answers the user itself: those of
	// share of 1,024 users of group, always the same ones. Share 0 ends that. It needs AgentConfig.Forward, goes before Shed, and on over a restart.
	Redirect(group netip.Addr, share int, to netip.Addr) error
	// Redirecting is what Redirect said last of group, be it in an earlier run; share 0: nothing.
	Redirecting(group netip.Addr) (share int, to netip.Addr, err error)
	Forwarder
	// Close lets go of the plane. keep: packets go on and the next OpenAgent takes it over; else VIPs, ARP settings and programs
	// are as they were before.
	Close(keep bool) error
}

// ErrLapsed says that the users of leased services are not taken any more: nobody said in time that the agent is alive.
var ErrLapsed = errors.New("the agent was not alive for too long")

// AgentCounters count packets as the program sees them, where a super-packet (GRO) is one.
type AgentCounters struct {
	Delivered  uint64 // group -> VIP, up the stack
	Bytes      uint64 // of the delivered packets, with their link-layer header
	Fragments  uint64 // of the delivered packets, later fragments
	ICMPErrors uint64 // of the delivered packets, ICMP errors about our users' packets
	NotMine    uint64 // dropped: the user is another server's
	NoPort     uint64 // dropped: for a port or protocol that the service does not have
	Malformed  uint64 // dropped: too short for its own headers
	Clamped    uint64 // answers whose MSS option was lowered
	Lapsed     uint64 // dropped: of a leased service, and the agent was not alive
	Shed       uint64 // refused: first segments of new connections, for the server has too much to do

	ForwardedOut      uint64 // straight from a router, sent to a server that may know it
	ForwardedOn       uint64 // from a server, sent to an earlier one
	ForwardedIn       uint64 // from a server, delivered
	ForwardReturned   uint64 // of UDP, from a server, known to none: sent back to the owner
	ForwardEnded      uint64 // of connections that nobody knows, sent up the stack, which resets them
	ForwardFailed     uint64 // dropped: could not be sent
	NotPeer           uint64 // dropped: from who is no peer
	HopsSpent         uint64 // dropped: servers sent it on too often
	Held              uint64 // kept until Release
	HeldLost          uint64 // of these, dropped: too many; this process' alone
	Passed            uint64 // sent on by Pass
	Strays            uint64 // given to Strays
	StraysLost        uint64 // dropped beyond its rate, or not read in time
	FragmentsFollowed uint64 // later fragments, sent where their first was
	Redirected        uint64 // first segments that Redirect sent on
}

// Traffic is what a server did for a service.
type Traffic struct {
	Packets uint64 // both directions, as the programs see them
	Bytes   uint64 // of these, with their link-layer header
	Opened  uint64 // first segments of TCP connections that were let through
	Refused uint64 // those that were refused
}

// Sender is a user and how many packets of it there were, about.
type Sender struct {
	User    netip.Addr
	Packets uint64
}

// ShedAll is the share of Shed that refuses all users.
const ShedAll = 1024

// AgentConfig is what does not change while an agent runs.
type AgentConfig struct {
	Interface string // Ethernet-like interface where the groups are joined
	Bpffs     string // directory for pins, on a bpffs
	VIPDevice string // VIPs are added here; "": lo
	PathMTU   int    // bytes; the MSS of answers is clamped to PathMTU-40; 0: the interface's MTU
	Forward   Forward
	Hold      time.Duration // leased users are taken that long after the last sign of life; 0: like others
	Log       *slog.Logger
}
