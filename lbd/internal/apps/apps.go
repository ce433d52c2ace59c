// Package apps is the agent's end of package migrate: the applications beside the agent, where they listen, and how a connection
// gets out of one and into another. What is done to the sockets in between is the caller's.
package apps

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// Flow names a connection by both ends' addresses.
type Flow struct{ Local, Remote netip.AddrPort }

func (f Flow) String() string { return fmt.Sprintf("%v-%v", f.Local, f.Remote) }

// Apps are the applications beside this agent.
type Apps interface {
	// Serves reports whether an application that can move connections listens at an address.
	Serves(local netip.AddrPort) bool
	// Export has an application give a connection away. It waits for the application until ctx is done, and may be called for thousands of
	// connections at once. Errors: ErrUnknown, *StaysError, ErrGone, or ctx's.
	Export(ctx context.Context, f Flow) (Exported, error)
	// Import gives a connection to an application that listens at f.Local; fd is in repair mode and stays the caller's.
	// Errors: ErrUnknown where nobody listens there, *StaysError where all that do refuse it, ErrGone, or ctx's.
	Import(ctx context.Context, f Flow, fd int, app []byte) (Imported, error)
}

// Exported is a connection that an application has given away, and does not touch until it hears Gone or Back. One of them is to be called,
// also where the application has died meanwhile. An application that loses its agent goes on with the connection, unless it finds it in repair mode: so
// what is given back is thawed before.
type Exported interface {
	// FD is the connection's descriptor, the caller's to close.
	FD() int
	// App is what the application wants its other half to have.
	App() []byte
	// Gone says that the connection is elsewhere, or lost: the application closes its descriptor, which is silent in repair mode.
	Gone()
	// Back gives the connection back.
	Back()
}

// Imported is a connection that an application has taken, and does not use before Live. One of them is to be called.
type Imported interface {
	// Live hands the connection over, out of repair mode and with all written that its queues had.
	Live()
	// Cancel has the application close its descriptor. In repair mode that is silent; else its user hears a reset.
	Cancel()
}

var (
	// ErrUnknown says that no application here has the connection, or listens at its address.
	ErrUnknown = errors.New("no application here has this connection or address")
	// ErrGone says that the application ended before it answered.
	ErrGone = errors.New("the application is gone")
)

// StaysError says that an application does not give a connection away, or does not take it.
type StaysError struct {
	Reason string // the application's words, at most 255 bytes of anything
}

func (e *StaysError) Error() string { return fmt.Sprintf("the application declines: %q", e.Reason) }
