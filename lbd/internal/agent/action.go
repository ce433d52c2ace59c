// Package agent executes the allocations of the services that a server is in. Core is the state machine, without I/O, clock
// and log: events come in by its methods, actions come back; Loop carries them out.
package agent

import (
	"net/netip"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/joiner"
	"github.com/manycast/manycast/lbd/internal/store"
)

// Action is one of Apply, Prepare, Pin, Keep, Send, Takeover, Close and Warn.
type Action interface{ action() }

// Apply makes this all that the server accepts and joins: first the one, then what it has ceased to accept is told, then the
// other. Before the services are known there is the status alone: the data plane and routers have what the last run left them.
type Apply struct {
	Known  bool
	Accept []dataplane.AgentService
	Peers  []netip.Addr // who may hand packets over
	Revive bool         // the data plane may have lapsed, and takes users again
	Status *control.Status
	Ceased []announce.Ceased
	Join   []joiner.Membership
}

// Prepare readies the data plane for what the server will accept.
type Prepare struct {
	Accept []dataplane.AgentService
	Peers  []netip.Addr // with those of now
}

// Keep puts a service's allocation on disk, to be had again after a restart without a bus, and since when former users' connections are kept.
type Keep struct {
	Service    string
	Allocation alloc.Allocation
	Losses     []store.Loss
}

// Send hands a message to the Announcer.
type Send struct{ Message announce.Message }

// Takeover tells on the control channel that this server serves in the stead of a silent one.
type Takeover struct {
	Service string
	Epoch   epoch.Epoch
	From    string
	First   bool // it was not told before
}

// Close closes the TCP connections of users who are lost to this server. Core.Closed has to follow.
type Close struct {
	Service string
	Epoch   epoch.Epoch
	VIPs    []netip.Addr
	Ports   []dataplane.Port
	Lost    func(user netip.AddrPort) bool
	How     dataplane.Ending
	Why     string // for the counters
}

// Warn tells the operator.
type Warn struct {
	Service string
	Text    string
}

func (Apply) action()    {}
func (Prepare) action()  {}
func (Keep) action()     {}
func (Send) action()     {}
func (Takeover) action() {}
func (Close) action()    {}
func (Warn) action()     {}
