// Package bgp is the seam to a BGP speaker in a process of its own: what it is to announce and with whom it is to speak goes in as a whole,
// what neighbors say comes out as events. The speaker is GoBGP, driven through its gRPC API; none of its types leaves this package, so
// that another one can take its place. Fake is one without a network.
package bgp

import (
	"context"
	"errors"
	"net/netip"
)

// Desired is all that a speaker is to have. Who wants nothing of it says Desired{}.
type Desired struct {
	AS        uint32 // our own, four octets
	RouterID  netip.Addr
	Listen    []netip.Addr // none: all addresses
	Port      uint16       // 0: nobody may connect
	Restart   Restart
	Neighbors []Neighbor // by address, each once
	Policies  []Policy   // by name, each once
	// VIPs and Martians are prefixes that no neighbor may tell us, nor anything inside them, whatever policies say.
	VIPs, Martians []netip.Prefix
	Unicast        []Path         // ours, by prefix, each once
	Labelled       []LabelledPath // likewise
	Rules          []FlowRule     // ours, by match, each once
	// Keep leaves what somebody before told a speaker that goes on, though it is not named here: who has just started may have yet to hear of it. What was
	// named once is withdrawn when it is not any more; of rules nothing is left beside those that are named.
	Keep bool
	// Silent has a speaker that was restarted speak to nobody yet: neighbors keep what the one before told until they hear this one out (RFC 4724).
	Silent bool
}

// Speaker is a BGP speaker. Its methods may be called from any goroutine.
type Speaker interface {
	// Apply makes the speaker have just this. What it has already is left alone: a session goes on where its neighbor is as it was. An
	// error says what could not be had; the rest is there. Applied again, after an error or to a speaker that was restarted, it does what is missing.
	// ErrWaits: the rest comes with time, and another Apply before long.
	Apply(ctx context.Context, d Desired) error
	// Watch tells events until ctx is done, in batches of at most EventsMost. Who reads slowly hears the latest word about each prefix, and
	// holds up nobody.
	Watch(ctx context.Context) (<-chan []Event, error)
	// Neighbors are the sessions, by address.
	Neighbors(ctx context.Context) ([]NeighborState, error)
	// Routes calls each with the paths to prefixes that there are, ours too, the best first, until it returns false. ErrNoNeighbor: the query's is none.
	Routes(ctx context.Context, q Query, each func(Route) bool) error
	// Clear ends the session with a neighbor, which may come back at once, as one may that was closed for its limit; softly, both sides tell all again and the session
	// goes on (RFC 2918). ErrNoNeighbor: there is none of this address.
	Clear(ctx context.Context, neighbor netip.Addr, soft bool) error
}

// ErrWaits: a speaker that has restarted takes its neighbors one after the other, and some have not had their turn. All else that was wanted is there.
var ErrWaits = errors.New("neighbors have their turn one after the other, since the speaker has restarted")

// ErrNoNeighbor: the speaker has no neighbor of that address.
var ErrNoNeighbor = errors.New("there is no such neighbor")

// ErrNone: this router has no speaker, and is asked for what only one knows.
var ErrNone = errors.New("it does not speak BGP: set bgp.as in tdpd.toml")

// EventsMost is how many events come at a time.
const EventsMost = 1024

// Query says which routes are meant.
type Query struct {
	Family   Family
	Prefix   netip.Prefix // this one alone; invalid: all
	Neighbor netip.Addr   // valid: what it has told, before policies, or with Told what it was told
	Told     bool
}

// Route is a path that the speaker has. Exactly one of Unicast, Labelled and FlowRule is there.
type Route struct {
	Learned
	Best     bool
	Filtered bool // by policy; of what a neighbor has told
}
