package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// ServerService is a service whose connections are served where this server is, once their users know.
type ServerService struct {
	VIP netip.AddrPort
	// Destination is an address of this server's host, of the VIP's family, and a port, which nobody else of its services has. A SYN-ACK of IPv4
	// says it. Who connects to it as such is left alone.
	Destination netip.AddrPort
	// Also are other places of this server, to which users of Adopt's connections may have been sent.
	Also []netip.AddrPort
}

// Held is what a server knows of a connection that can move.
type Held struct {
	Tag         uint16
	Cookie      wire.Cookie
	Sequence    uint64         // of the last change of destination that was said of it; 0: none
	Destination netip.AddrPort // where this server has it
	Heard       bool           // its user sends there
}

// Heard says that a segment of a user has come to this server's destination, the first one there after Adopt, or after a handshake that ended at
// the VIP. It was the next one that the connection's TCP had to expect, by sequence and acknowledgement: who does not see them cannot forge it.
type Heard struct {
	Flow     Flow
	Tag      uint16
	Cookie   wire.Cookie
	Sequence uint64
	// Elsewhere: it has come by way of another server, not to the destination; told once a second at most. The next segment at the destination
	// is told anew.
	Elsewhere bool
}

// Server is the server's side. One goroutine sets and closes it; any may do the rest until then. Sockets are descriptors of TCP sockets in the
// server's network namespace; what is known of one ends with it.
type Server interface {
	// Set makes services the complete set. Who listens already is told of, where the kernel can (Linux 6.12, CAP_PERFMON); else connections of
	// such listeners are plain, and Set warns. Connections that are there go on as they are.
	Set(services []ServerService) error
	// Held returns what is known of a socket's connection; ErrGone: it cannot move.
	Held(socket int) (Held, error)
	// Find returns what is known of the connection of a flow, whoever has its descriptor; ErrGone: there is none that can move. The caller's thread is
	// in the server's network namespace.
	Find(flow Flow) (Held, error)
	// Adopt says what is known of a connection that was made elsewhere: it is served here like one that was made here. Heard ends its Heard,
	// false has the next segment at its destination told.
	Adopt(socket int, h Held) error
	// Listen has the next segment of a flow at its destination told, though one was; ErrGone: there is no connection that can move. The caller's
	// thread is in the server's network namespace.
	Listen(flow Flow) error
	// Follow has segments of flows that come to this server's destination go to the VIP although no socket has them: their connections were here, and
	// a data plane that is asked next knows where they are. It goes on over a restart, as what the data plane knows of its users' owners does.
	Follow(flows []Flow) error
	// Followed are those flows, also of former processes.
	Followed() ([]Flow, error)
	// Forget ends that.
	Forget(flows []Flow) error
	// Heard are users that have come. Those that are not read in time are lost, and counted. The channel ends with the server.
	Heard() <-chan Heard
	// Counters are totals since the server was first opened; they go on over a restart.
	Counters() (ServerCounters, error)
	// Close lets go of it. keep: all goes on, but that nobody is told who is heard; the next OpenServer takes it over. Else all is as it was before,
	// and connections whose users have moved end.
	Close(keep bool) error
}

// ServerCounters count connections, and packets as the programs see them, where a super-packet is one.
type ServerCounters struct {
	Answered    uint64 // SYN-ACKs with tag and cookie, repeated ones, too
	NoRoom      uint64 // SYN-ACKs that had no room for them
	Established uint64 // connections that can move
	NoMemory    uint64 // connections that could, and are plain
	Received    uint64 // for this server's destinations, given to the VIP's socket
	Sent        uint64 // answers, from there
	Followed    uint64 // of those received, of connections that were here
	Errors      uint64 // ICMP errors about those that were sent
	Failed      uint64 // dropped: could not be rewritten
	Heard       uint64 // users that have come
	HeardLost   uint64 // of these, not told: nobody has read in time
	Doubted     uint64 // segments for a destination where the user is not heard yet that are not its connection's next: late, or forged
	Elsewhere   uint64 // segments that other servers sent on here, for their users are elsewhere: those that were told
}

func checkServer(services []ServerService) error {
	vips, destinations := make(map[netip.AddrPort]bool), make(map[netip.AddrPort]bool)
	var errs []error
	for _, s := range services {
		errs = append(errs, checkPlace("VIP", s.VIP))
		if vips[s.VIP] {
			errs = append(errs, fmt.Errorf("VIP %s: said twice", s.VIP))
		}
		vips[s.VIP] = true
		for _, d := range s.destinations() {
			errs = append(errs, checkPlace("destination", d))
			if d.Addr().Is4() != s.VIP.Addr().Is4() {
				errs = append(errs, fmt.Errorf("VIP %s: destination %s is of another family", s.VIP, d))
			}
			if destinations[d] {
				errs = append(errs, fmt.Errorf("VIP %s: destination %s: said twice", s.VIP, d))
			}
			destinations[d] = true
		}
	}
	for vip := range vips {
		if destinations[vip] {
			errs = append(errs, fmt.Errorf("VIP %s: is a destination, too", vip))
		}
	}
	return errors.Join(errs...)
}

func (s ServerService) destinations() []netip.AddrPort {
	return append([]netip.AddrPort{s.Destination}, s.Also...)
}

// heardWaiting are users that nobody has read yet.
const heardWaiting = 4096
