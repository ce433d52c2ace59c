// Package bfd is the seam to who keeps BFD sessions (RFC 5880) with BGP neighbors, and says what follows of them (RFC 5882): Watch, which is pure.
// Fake is one without a network.
package bfd

import (
	"context"
	"net/netip"
	"time"
)

// Session is one that is to be kept with a neighbor.
type Session struct {
	Peer     netip.Addr
	Local    netip.Addr    // our end; zero: as routes have it, not with Multihop
	Multihop bool          // RFC 5883
	Transmit time.Duration // desired minimum between packets of ours, whole milliseconds, IntervalLeast to IntervalMost
	Receive  time.Duration // required minimum between the neighbor's, likewise
	// Multiplier is how many packets in a row may be lost: 2 to 255.
	Multiplier int
}

// What a Session may have.
const (
	IntervalLeast, IntervalMost     = 10 * time.Millisecond, time.Minute
	MultiplierLeast, MultiplierMost = 2, 255
)

// State is how a session is.
type State uint8

// The states. Who has stopped BFD on purpose is no failure (RFC 5882 section 4.2).
const (
	Down   State = iota + 1 // not up yet, or ended on purpose by one of the ends
	Failed                  // one of the ends no longer hears the other
	Up
)

// Keeper keeps sessions. What it keeps stays when this process dies.
type Keeper interface {
	// Apply has it keep just these. Sessions of others are left alone.
	Apply(ctx context.Context, all []Session) error
	// States are those of sessions that there are, by the neighbor's address.
	States(ctx context.Context) (map[netip.Addr]State, error)
}
