package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// ClientService is a service whose connections say that they can move.
type ClientService struct {
	VIP netip.AddrPort
	// Published is where its servers may be. What a SYN-ACK says counts inside of it alone; a change of destination is signed, and whether
	// it counts is who calls SetDestination's to say.
	Published []netip.Prefix
}

// Connection is one that can move, as the user's host knows it.
type Connection struct {
	Flow
	Tag         uint16
	Cookie      wire.Cookie
	Destination netip.AddrPort // where it is; the VIP where no server has said another
	Before      netip.AddrPort // where it was before the last move: what comes from there is taken still; zero: it has not moved
	Sequence    uint64         // of the last change of destination; 0: none
	Moves       uint32
	Opened      time.Duration // since boot
}

// Change is a message that claims a move of a connection that there is, with its tag, its cookie and a sequence that is not over. It may be
// anybody's on the path until its signature is verified.
type Change struct {
	Flow    Flow
	Message []byte // wire.ChangeSize bytes
}

// Client is the user's side. Others may be beside it, of other control groups, each with pins of its own; where one is below another, the
// inner one has its sockets. One goroutine sets and closes it; any may do the rest until then.
type Client interface {
	// Set makes services the complete set. Connections of those that are no more go on as they are.
	Set(services []ClientService) error
	// Connections are all that can move, in no order.
	Connections() ([]Connection, error)
	// Connection returns that of the flow, or ErrGone.
	Connection(flow Flow) (Connection, error)
	// SetDestination makes segments of the flow go to another place from the next one on. It returns ErrGone where the flow is no more the
	// connection of that cookie, and ErrOld for a sequence that is not above the last one.
	SetDestination(flow Flow, cookie wire.Cookie, to netip.AddrPort, sequence uint64) error
	// Changes are the messages that passed, at most 20 at once and 50/s of a connection, 64 at once and 1000/s of each CPU. Those that are not read in time are lost, and counted. The channel
	// ends with the client.
	Changes() <-chan Change
	// Counters are totals since the client was first opened; they go on over a restart.
	Counters() (ClientCounters, error)
	// Close lets go of it. keep: connections go on, and new ones are made, and the next OpenClient takes it over; messages are lost
	// until then. Else all is as it was before, and connections that have moved end.
	Close(keep bool) error
}

// ErrOld says that a change of destination is not later than the last one.
var ErrOld = errors.New("a later change of destination has come before")

// ClientCounters count connections, packets as the programs see them, where a super-packet is one, and changes of destination, all of which
// are dropped.
type ClientCounters struct {
	Offered      uint64 // connections to services; not counted below are handshakes under way, or whose place others took
	Agreed       uint64 // of these, connections whose server has answered with tag and cookie
	Plain        uint64 // whose server has not
	Mismatched   uint64 // whose server has answered with others
	NotPublished uint64 // agreed ones whose destination is none of the service's: they stay at the VIP
	NoRoom       uint64 // SYNs that had no room for the option
	TableFull    uint64 // connections beyond the table: they are plain
	Sent         uint64 // to where a connection is
	Received     uint64 // from there
	Errors       uint64 // ICMP errors about those that were sent
	Failed       uint64 // dropped: could not be rewritten
	ResetsAhead  uint64 // dropped: resets of what has not come, which no server sends

	ChangeMalformed uint64 // not of its length, magic or version, or fragmented; or behind too many extension headers, whatever it is
	ChangeUnknown   uint64 // of no connection here
	ChangeTag       uint64 // of another tag
	ChangeCookie    uint64 // of another cookie
	ChangeOld       uint64 // of a sequence that is over: a replay, or a copy that came late
	ChangePassed    uint64 // given to Changes
	ChangeLost      uint64 // beyond their rate, or not read in time
}

func checkServices(services []ClientService) error {
	taken := make(map[netip.AddrPort]bool, len(services))
	var errs []error
	for _, s := range services {
		errs = append(errs, checkPlace("VIP", s.VIP))
		if taken[s.VIP] {
			errs = append(errs, fmt.Errorf("VIP %s: said twice", s.VIP))
		}
		taken[s.VIP] = true
		for _, p := range s.Published {
			if !p.IsValid() || p.Addr().Is4() != s.VIP.Addr().Is4() || p.Addr().Is4In6() {
				errs = append(errs, fmt.Errorf("VIP %s: published prefix %s: want one of its family", s.VIP, p))
			}
		}
	}
	return errors.Join(errs...)
}

// checkMove says whether a change of destination of a connection counts.
func checkMove(c Connection, cookie wire.Cookie, to netip.AddrPort, sequence uint64) error {
	if err := checkPlace("destination", to); err != nil {
		return err
	}
	switch {
	case to.Addr().Is4() != c.VIP.Addr().Is4():
		return fmt.Errorf("destination %s of %s: of another family", to, c.Flow)
	case c.Cookie != cookie:
		return fmt.Errorf("connection of %s with cookie %s: %w", c.Flow, cookie, ErrGone)
	case sequence <= c.Sequence:
		return fmt.Errorf("change %d of %s to %s, after change %d: %w", sequence, c.Flow, to, c.Sequence, ErrOld)
	}
	return nil
}

// changesWaiting are messages that nobody has read yet.
const changesWaiting = 256

// moved is the connection after a change of destination.
func (c Connection) moved(to netip.AddrPort, sequence uint64) Connection {
	if to != c.Destination {
		c.Before, c.Destination = c.Destination, to
		c.Moves++
	}
	c.Sequence = sequence
	return c
}
