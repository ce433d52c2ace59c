// Package transport is LDP's sockets: hellos by UDP and sessions by TCP, both at port 646 (RFC 5036 section 3.10), with TCP MD5
// signatures (RFC 5036 section 2.9) and GTSM (RFC 6720). It frames and hands over; it knows nothing of adjacencies and of the states
// of sessions. Fake is the same without sockets.
package transport

import (
	"net/netip"

	"github.com/manycast/manycast/tdpd/internal/discovery"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// Network is how LDP enters and leaves this router. Its methods are called by one goroutine, which reads Events; they do not wait.
type Network interface {
	// Events has what comes in. Nothing is thrown away where the reader is slow: senders wait.
	Events() <-chan Event
	// SetInterfaces makes these all that link hellos are taken from, by name. The error says which cannot be used.
	SetInterfaces(all []discovery.Interface) error
	// Hello sends a hello.
	Hello(h discovery.Send) error
	// SetSecret has connections from and to a transport address signed by TCP MD5 (RFC 2385); empty: not any more.
	SetSecret(peer netip.Addr, secret string) error
	// Connect opens a connection; Connected or Failed follows.
	Connect(o Options) Conn
	// Close ends all, after what connections have to send has left, or soon.
	Close()
}

// Options of a connection that this router opens.
type Options struct {
	Local, Peer netip.Addr // transport addresses
	Secret      string     // TCP MD5; empty: none
	GTSM        bool       // packets of the peer have to come from the same link
}

// Conn is a connection. Its methods do not wait.
type Conn interface {
	// Remote is the peer's transport address.
	Remote() netip.Addr
	// Send queues a message. A connection whose peer takes too little ends by Closed.
	Send(m wire.Message)
	// SetMaxPDU bounds PDUs, both ways, in bytes. A message that fits into none is not sent; Dropped tells.
	SetMaxPDU(n uint16)
	// SetMaxQueue bounds how many messages may wait for the peer.
	SetMaxQueue(n int)
	// SetGTSM takes packets of the same link only from now on.
	SetGTSM() error
	// SetSecret takes segments that are signed by TCP MD5 only from now on, and signs: for who connected before it was known whose
	// secret counts.
	SetSecret(secret string) error
	// Close ends the connection after what was sent has left, or soon. No event of it comes after those on their way.
	Close()
}

// Event is one of Hello, Connected, Failed, Accepted, Received, Dropped and Closed.
type Event interface{ event() }

// Hello is a hello that came. Where Err is set, nothing but its sender and how it came is known of it.
type Hello struct {
	discovery.Received
	Err *wire.Error
}

// Connected tells that a connection is open.
type Connected struct{ Conn Conn }

// Failed tells that it could not be opened.
type Failed struct {
	Conn Conn
	Err  error
}

// Accepted tells that somebody has connected.
type Accepted struct{ Conn Conn }

// Received is a PDU. Where a message of it cannot be used there is the error in its place; behind one that is fatal nothing comes.
type Received struct {
	Conn     Conn
	Sender   wire.Identifier
	Messages []Message
}

// Message is a message, or the error in its place.
type Message struct {
	Message wire.Message
	Err     *wire.Error
}

// Dropped tells of a message that was not sent.
type Dropped struct {
	Conn    Conn
	Message wire.Message
	Err     error
}

// Closed tells that a connection has ended otherwise than by Close. Err is nil where the peer has closed it.
type Closed struct {
	Conn Conn
	Err  error
}

func (Hello) event()     {}
func (Connected) event() {}
func (Failed) event()    {}
func (Accepted) event()  {}
func (Received) event()  {}
func (Dropped) event()   {}
func (Closed) event()    {}
