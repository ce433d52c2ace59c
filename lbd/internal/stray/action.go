package stray

import (
	"net/netip"

	"github.com/manycast/manycast/lbd/internal/dataplane"
)

// Action is what the caller has to do.
type Action interface{ action() }

type (
	// SayAsks says a word of control.KindStray.
	SayAsks struct{ Asks []Ask }
	// SayHoldings says a word of control.KindHolder.
	SayHoldings struct{ Holdings []Holding }
	// Look looks for a flow in the socket table; Holder.Looked follows.
	Look struct {
		Asker string
		Ask   Ask
	}
	// Check looks whether a flow is in the socket table still; Holder.Checked follows.
	Check struct{ Flow dataplane.Flow }
	// Inject lets a frame go up the stack.
	Inject struct {
		Flow  dataplane.Flow
		Frame []byte
	}
	// Lead has the kernel send packets of the flow to a server.
	Lead struct {
		Flow dataplane.Flow
		To   netip.Addr
	}
	// Drop takes a Lead back.
	Drop struct{ Flow dataplane.Flow }
)

func (SayAsks) action()     {}
func (SayHoldings) action() {}
func (Look) action()        {}
func (Check) action()       {}
func (Inject) action()      {}
func (Lead) action()        {}
func (Drop) action()        {}
