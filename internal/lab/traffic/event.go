// Package traffic is the lab's load: users with addresses of their own and a real HTTP client, on new and on keep-alive
// connections. What happens to them is a stream of events.
package traffic

import (
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/lab/numbered"
)

// Kind is what an event is about.
type Kind string

// The kinds of events.
const (
	Request Kind = "request" // a request came to its end
	Open    Kind = "open"    // a connection was established
	Close   Kind = "close"   // a connection came to its end
	Wait    Kind = "wait"    // of a stream: the longest time without data in a while
	Flow    Kind = "flow"    // a flow of UDP came to its end
	Switch  Kind = "switch"  // of a stream: from the last data of one server, or connection, to the first of the next one
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

// Relay is what Event.Via says of users of `lbd relay`.
const Relay = "relay"

// Event is one line of the stream.
type Event struct {
	Kind   Kind       `json:"ev"`
	User   netip.Addr `json:"user"`
	Start  time.Time  `json:"start"`            // of the request, of the connection
	End    time.Time  `json:"end"`              // now
	Retry  time.Time  `json:"retry,omitzero"`   // when the second attempt started
	Server string     `json:"server,omitempty"` // who answered; of a connection: who answered last; of a flow: first
	OK     bool       `json:"ok,omitempty"`     // request: it was answered, at the second attempt at the latest; switch: on the same connection
	Conn   int64      `json:"conn,omitempty"`   // connection's number
	Heard  time.Time  `json:"heard,omitzero"`   // of a connection: when it was last answered
	Opened time.Time  `json:"opened,omitzero"`  // of a request: when the connection was that it had in common with others
	How    How        `json:"how,omitempty"`
	Err    string     `json:"err,omitempty"`
	Via    string     `json:"via,omitempty"` // what stands before the server

	Stream string        `json:"stream,omitempty"` // what kind of stream it is about
	Pace   time.Duration `json:"pace,omitempty"`   // of its data from the server
	Bytes  *Bytes        `json:"bytes,omitempty"`  // of a stream that came to its end

	Datagrams *Datagrams `json:"datagrams,omitempty"` // of a flow
}

// Datagrams are those of a flow of UDP.
type Datagrams struct {
	Sent     int `json:"sent"`
	Answered int `json:"answered"`
	Doubled  int `json:"doubled"` // answers to what had been answered
}

// Bytes are those of a stream that came to either end.
type Bytes struct {
	Down numbered.Counts  `json:"down"`         // to the user
	Up   *numbered.Counts `json:"up,omitempty"` // to the server, which tells it at a stream's end in peace
}

// Whole says whether all that came is what was sent.
func (b Bytes) Whole() bool { return b.Down.Whole() && (b.Up == nil || b.Up.Whole()) }
