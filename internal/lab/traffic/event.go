// Package traffic is the lab's load: users with addresses of their own and a real HTTP client, on new and on keep-alive
// connections. What happens to them is a stream of events.
package traffic

import (
	"net/netip"
	"time"
)

// Kind is what an event is about.
type Kind string

// The kinds of events.
const (
	Request Kind = "request" // a request came to its end
	Open    Kind = "open"    // a connection was established
	Close   Kind = "close"   // a connection came to its end
)

// How a connection ended.
type How string

// The ends of a connection.
const (
	Own     How = "own"     // closed by the user, in peace
	Reset   How = "reset"   // RST
	EOF     How = "eof"     // closed by the server
	Timeout How = "timeout" // given up by the user: no answer in time
	Other   How = "other"   // another error
)

// Event is one line of the stream.
type Event struct {
	Kind   Kind       `json:"ev"`
	User   netip.Addr `json:"user"`
	Start  time.Time  `json:"start"`            // of the request, of the connection
	End    time.Time  `json:"end"`              // now
	Retry  time.Time  `json:"retry,omitzero"`   // when the second attempt started
	Server string     `json:"server,omitempty"` // who answered; of a connection: who answered last
	OK     bool       `json:"ok,omitempty"`     // request: it was answered, at the second attempt at the latest
	Conn   int64      `json:"conn,omitempty"`   // connection's number
	How    How        `json:"how,omitempty"`
	Err    string     `json:"err,omitempty"`
}
