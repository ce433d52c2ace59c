// Package control is the control multicast channel (Fig 13): a private group in which the servers, routers and directors of
// one or more services hear each other's heartbeats and reports, and in which reallocations are announced before they are
// executed. It knows nothing of joins, tags or allocations: bodies of messages are its users'.
//
// The rooms below it: wire has the frames, members who is there and how, sender what is sent and when (all pure); transport
// the sockets; channel the task that joins them.
package control

import (
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/alloc"
)

// Role is what a member may say, by its certificate: only directors, and servers where they allocate by themselves, lead.
type Role uint8

// Roles, as they stand in certificates.
const (
	Server   Role = 1
	Router   Role = 2
	Director Role = 3
)

// String is the role in a word, as `manycast key create identity` takes it.
func (r Role) String() string {
	switch r {
	case Server:
		return "server"
	case Router:
		return "router"
	case Director:
		return "director"
	}
	return "no role"
}

// Kind numbers messages. Receivers ignore and count kinds that they do not know.
type Kind uint8

// Kinds of messages.
const (
	KindReport   Kind = 1 // control.v1.Report, by everybody; the channel's own
	KindAnnounce Kind = 2 // alloc.v1.Announce, by who leads
	KindPrepared Kind = 3 // alloc.v1.Prepared
	KindCommit   Kind = 4 // alloc.v1.Commit, by who leads
	KindCeased   Kind = 5 // alloc.v1.Ceased
	KindDone     Kind = 6 // alloc.v1.Done
	KindTakeover Kind = 7 // control.v1.Takeover

	// Of live connections that go from one server to another, or whose server is looked for (handover.v1).
	KindAsk     Kind = 8  // Ask
	KindQuery   Kind = 9  // Query
	KindVerdict Kind = 10 // Verdict
	KindStray   Kind = 11 // Strays
	KindHolder  Kind = 12 // Holdings

	kinds = 13 // how many there are
)

// Known reports whether this release knows the kind.
func (k Kind) Known() bool { return k > 0 && k < kinds }

// Health is how others see a member.
type Health uint8

// Available members serve. Unwell ones are heard, and say that they do not. Silent ones were heard, and are no more. Of Unknown
// ones nothing can be said: this process has not listened for long enough.
const (
	Unknown Health = iota
	Available
	Unwell
	Silent
)

// String is the health in a word.
func (h Health) String() string {
	switch h {
	case Available:
		return "available"
	case Unwell:
		return "unwell"
	case Silent:
		return "silent"
	}
	return "unknown"
}

// Member is who was heard on the channel.
type Member struct {
	Name    string
	Role    Role
	Leader  bool       // its certificate lets it announce and commit
	Address netip.Addr // by its certificate; the source of its frames
	Boot    uint64     // another one at each start
	Health  Health
	Why     string   // of Unwell, in the member's words
	Via     []string // interfaces by which it was heard within the dead interval, sorted
	Heard   time.Time
	Since   time.Time             // of Health
	Paused  time.Time             // it restarts, and is not silent before; zero: it does not
	Loads   map[string]alloc.Load // by service, of its last report
}

// Event is Changed or Received.
type Event interface{ event() }

// Changed tells that a member was first heard, or that its health, boot, loads or interfaces are others now.
type Changed struct{ Member Member }

// Received is a message of a member whose certificate allows it.
type Received struct {
	From Member
	Kind Kind
	Body []byte
}

func (Changed) event()  {}
func (Received) event() {}

// Status is what a member says of itself.
type Status struct {
	OK    bool
	Why   string                // where it is not OK
	Loads map[string]alloc.Load // by service
}

// Words of unwell members that mean something to others. Whoever is deaf hears nobody, but serves still; whoever is fenced says why
// after the word.
const (
	Deaf    = "hears nobody"
	Fenced  = "fenced"
	Leaving = "leaving"
)

// Channel is the seam: channel.Channel on sockets, Hub in memory.
type Channel interface {
	// Send hands a message to all other members, without waiting. An error means that it certainly went to nobody.
	Send(kind Kind, body []byte) error
	// SetStatus is what the next reports say; a change of OK is sent at once.
	SetStatus(Status)
	// Listen calls handle for each event, one at a time, until stop; first for all members known. handle must not block.
	Listen(handle func(Event)) (stop func())
	// Silence is how long a member may be silent before it counts as such.
	Silence() time.Duration
}
