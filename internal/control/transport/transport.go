// Package transport brings frames of the control channel in and out: Link on sockets, Fake in memory.
package transport

import (
	"context"
	"errors"
	"net/netip"
)

// Packet is a UDP payload to the control group.
type Packet struct {
	Interface string
	Source    netip.Addr
	Payload   []byte
}

// Transport is the seam.
type Transport interface {
	// Run hands on what comes in, until ctx is done. It waits where packets is full: sockets have room for what comes meanwhile.
	Run(ctx context.Context, packets chan<- Packet) error
	// Send sends a payload by all interfaces, without waiting. An error wraps ErrNowhere: it left by none.
	Send(payload []byte) error
}

// ErrNowhere says that a payload left by no interface; the errors of each are joined to it.
var ErrNowhere = errors.New("not sent by any interface")
