package movement

import (
	"net/netip"
	"time"

	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// Flow is a connection as its user's application sees it, wherever it is served.
type Flow struct{ User, VIP netip.AddrPort }

// String is the user, then the VIP.
func (f Flow) String() string { return f.User.String() + " to " + f.VIP.String() }

func flowOf(c wire.Change) Flow { return Flow{c.User, c.VIP} }

// aheadMost is how far ahead of the time a sequence may be; the default of FollowerLimits.Future.
const aheadMost = 10 * time.Minute

// NextSequence is the sequence of a connection's next move, after the last one that is known of it; 0: none. It is the time in milliseconds since 1970, or
// one more than the last one where that is not behind it. So who has signed a high one with a key that has leaked is overtaken in time. A last one that
// is so far ahead that no user has followed it, if clocks are right, does not count.
func NextSequence(last uint64, now time.Time) uint64 {
	if last > sequenceAt(now.Add(aheadMost)) {
		last = 0
	}
	return max(last+1, sequenceAt(now))
}

func sequenceAt(now time.Time) uint64 { return uint64(max(now.UnixMilli(), 0)) }

// Action is what the caller has to do.
type Action interface{ action() }

// Of the announcer.
type (
	// Send sends a message to the port for them at the user's address.
	Send struct {
		Flow Flow
		Raw  []byte
	}
	// Listen wants the next segment of the user at the new destination told, though one was: that did not prove anything.
	Listen struct{ Flow Flow }
	// Report tells what became of a move.
	Report struct {
		Flow     Flow
		Sequence uint64
		Outcome  Outcome
		Sent     int           // messages
		After    time.Duration // from Took
	}
)

// Of the follower.
type (
	// Rewrite leads the connection's packets to a destination, and takes those from there for the connection's, of no other place.
	Rewrite struct {
		Flow        Flow
		Destination netip.AddrPort
		Sequence    uint64 // 0: what the SYN-ACK named
	}
	// Refuse tells of a destination that is not believed.
	Refuse struct {
		Flow    Flow // zero where the message does not say so much
		Service string
		Reason  Reason
	}
	// Ask wants a service's keys and destinations anew: what is known of it is over, or lacks a key.
	Ask struct{ Service string }
)

func (Send) action()    {}
func (Listen) action()  {}
func (Report) action()  {}
func (Rewrite) action() {}
func (Refuse) action()  {}
func (Ask) action()     {}
