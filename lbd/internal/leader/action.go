// Package leader decides the allocations of all services, in one director at a time. Core is the state machine, without I/O,
// clock and log: events come in by its methods, actions come back; Loop carries them out. Lease says who leads.
package leader

import (
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/store"
)

// Registration is what an agent says of itself, again and again.
type Registration struct {
	Service string
	Server  string
	Address netip.Addr // invalid: not said
	Weight  int
	Healthy bool
	BootID  uint64 // another one at each start of the agent

	Load *alloc.Load // nil: not said; a change of it is no news
}

// Operator is what the operator wants of a server.
type Operator struct {
	Drained bool
	Weight  *int // in place of the registered one
}

// Move tells what a reallocation did.
type Move struct {
	Service  string
	Epoch    epoch.Epoch
	Moved    float64 // fraction of the source space
	Needed   float64 // the least that the new shares allow
	Closed   int     // connections
	Took     time.Duration
	Reason   string
	Missing  []string // servers that did not say Done
	Finished time.Time
}

// Action is one of Save, Send, Record, Dampened and Warn.
type Action interface{ action() }

// Save writes the state of a service where its newest revision is Revision (0: there is none). Core.Saved or Core.Loaded
// has to follow.
type Save struct {
	Service  string
	Revision uint64
	State    store.State
}

// Send hands a message to the Announcer.
type Send struct{ Message announce.Message }

// Record adds a move to the service's history.
type Record struct{ Move Move }

// Dampened makes these all the servers on record that are kept out of a service for having died again and again.
type Dampened struct {
	Service string
	Servers []DampenedServer // in order of names
}

// DampenedServer is kept out until then.
type DampenedServer struct {
	Name  string
	Until time.Time
}

// Warn tells the operator.
type Warn struct {
	Service string
	Text    string
}

func (Save) action()     {}
func (Send) action()     {}
func (Record) action()   {}
func (Dampened) action() {}
func (Warn) action()     {}
