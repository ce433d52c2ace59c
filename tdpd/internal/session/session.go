// Package session is one LDP session (RFC 5036 section 2.5): what comes from the connection and from the clock in, what to do out. It
// is pure: no sockets, no clock, no log. Not safe for concurrent use.
//
// Session's methods are the events and its states the rows of the transition tables of RFC 5036 section 2.5.4; table.go has them.
package session

import (
	"net/netip"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// Role says who opens the connection (RFC 5036 section 2.5.2): whose transport address is the greater number.
type Role uint8

// Roles.
const (
	Passive Role = iota
	Active
)

// String is the role in a word.
func (r Role) String() string {
	if r == Active {
		return "active"
	}
	return "passive"
}

// RoleOf compares transport addresses of one family.
func RoleOf(local, peer netip.Addr) Role {
	if peer.Less(local) {
		return Active
	}
	return Passive
}

// State is one of RFC 5036 section 2.5.4.
type State uint8

// States. In NonExistent there is no connection.
const (
	NonExistent State = iota
	Initialized
	OpenReceived
	OpenSent
	Operational
)

// String is the state as RFC 5036 writes it.
func (s State) String() string {
	return [...]string{"NON EXISTENT", "INITIALIZED", "OPENREC", "OPENSENT", "OPERATIONAL"}[s]
}

// Bounds of the times between two tries to open a session that the peer refuses (RFC 5036 section 2.5.3).
const (
	minBackoff = 15 * time.Second
	maxBackoff = 2 * time.Minute
	// connectAgain is for a connection that cannot be opened. It may be a restart, of which each second counts.
	connectAgain = time.Second
	// answerWithin is how long a peer may be silent while a session is being opened.
	answerWithin = 30 * time.Second
	// keepAlivesPerHold is how often something is sent in the agreed keepalive time.
	keepAlivesPerHold = 3
)

// DefaultKeepAlive is proposed where nothing is configured.
const DefaultKeepAlive = 180 * time.Second

// Config is what this router proposes.
type Config struct {
	Local         wire.Identifier
	Peer          wire.Identifier
	Role          Role
	KeepAlive     time.Duration // whole seconds, 1 s to 65,535 s; 0: DefaultKeepAlive
	MaxPDU        uint16        // bytes; 255 or less: wire.DefaultMaxPDULength
	LoopDetection bool
	PathVector    uint8 // limit, with LoopDetection
	Capabilities  []wire.CapabilityParameter
	Others        []wire.TLV                      // capabilities of our own
	Takes         func(wire.VendorPrivate) bool   // which vendor-private messages are delivered, once operational; nil: none
	Restart       func(time.Time) *wire.FTSession // asked as each session begins; nil, or returns nil: no graceful restart
}

// Parameters are what both sides have agreed on.
type Parameters struct {
	KeepAlive     time.Duration
	MaxPDU        uint16
	LoopDetection bool
	Capabilities  []wire.CapabilityParameter // the peer's
	Others        []wire.TLV                 // what else it says, and may be ignored
	Restart       *wire.FTSession            // the peer's; nil: it does not restart gracefully
}

// Action is one of Connect, Send, Close, Up, Deliver and Down.
type Action interface{ action() }

// Connect opens a connection to the peer's transport address; Connected or Failed has to follow.
type Connect struct{}

// Send sends a message.
type Send struct{ Message wire.Message }

// Close closes the connection, after what was sent has left.
type Close struct{}

// Up tells that the session is operational.
type Up struct{ Parameters Parameters }

// Deliver hands a message of an operational session on: addresses, labels, capabilities, advisory notifications.
type Deliver struct{ Message wire.Message }

// Down tells that an operational session has ended. Restart is the peer's word on how long its labels may be kept (RFC 3478): nil
// where it gave none, or ended the session on purpose.
type Down struct {
	Why     error
	Restart *wire.FTSession
}

// Refused tells that opening failed; the next try is not before then. The zero time: when the peer comes.
type Refused struct {
	Why   error
	Until time.Time
}

func (Connect) action() {}
func (Send) action()    {}
func (Close) action()   {}
func (Up) action()      {}
func (Deliver) action() {}
func (Down) action()    {}
func (Refused) action() {}

// Session is the state.
type Session struct {
	cfg        Config
	state      State
	since      time.Time
	connecting bool
	agreed     Parameters
	heard      time.Time     // the last PDU
	said       time.Time     // the last message sent
	retry      time.Time     // of an active one: when to connect; zero: not now
	backoff    time.Duration // of the last refusal
	broke      bool          // a connection broke on the way to a session, since there was one
	id         uint32        // of the last message that was given one
	actions    []Action
}

// New returns a session without a connection. An active one connects at the first Tick.
func New(now time.Time, cfg Config) *Session {
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = DefaultKeepAlive
	}
	s := &Session{cfg: cfg, since: now}
	if cfg.Role == Active {
		s.retry = now
	}
	return s
}

// State is where the session is, and since when.
func (s *Session) State() (State, time.Time) { return s.state, s.since }

// Peer is whom the session is with.
func (s *Session) Peer() wire.Identifier { return s.cfg.Peer }

// Role is who connects.
func (s *Session) Role() Role { return s.cfg.Role }

// Agreed is what holds in state Operational.
func (s *Session) Agreed() Parameters { return s.agreed }

// MaxPDU bounds what may be sent and received now, in bytes: RFC 5036 section 3.5.3. Until both have agreed it is the default.
func (s *Session) MaxPDU() uint16 { return wire.MaxPDULength(s.agreed.MaxPDU, s.agreed.MaxPDU) }

func (s *Session) to(now time.Time, state State) { s.state, s.since = state, now }

// send gives a message an ID, unless it has one.
func (s *Session) send(now time.Time, m wire.Message) {
	s.said = now
	if m.MessageID() == 0 {
		s.id++
		m = wire.WithID(m, s.id)
	}
	s.actions = append(s.actions, Send{m})
}

func (s *Session) take() []Action {
	out := s.actions
	s.actions = nil
	return out
}

// Next is when Tick has something to do; zero: nothing is planned.
func (s *Session) Next() time.Time {
	switch {
	case s.state == NonExistent && !s.connecting:
		return s.retry
	case s.state == NonExistent:
		return time.Time{}
	case s.state != Operational:
		return s.heard.Add(answerWithin)
	}
	next := s.said.Add(s.agreed.KeepAlive / keepAlivesPerHold)
	if expires := s.heard.Add(s.agreed.KeepAlive); expires.Before(next) {
		return expires
	}
	return next
}

// Tick lets time pass: an active session connects, silence ends it, KeepAlives leave.
func (s *Session) Tick(now time.Time) []Action {
	switch {
	case s.state == NonExistent:
		if !s.connecting && !s.retry.IsZero() && !now.Before(s.retry) {
			s.connecting, s.retry = true, time.Time{}
			s.actions = append(s.actions, Connect{})
		}
	case s.state == Operational && now.Sub(s.heard) >= s.agreed.KeepAlive, s.state != Operational && now.Sub(s.heard) >= answerWithin:
		s.notifyAndEnd(now, refusal(wire.StatusKeepAliveTimerExpired, "nothing heard for %v", now.Sub(s.heard)))
	case s.state == Operational && now.Sub(s.said) >= s.agreed.KeepAlive/keepAlivesPerHold:
		s.send(now, wire.KeepAlive{})
	}
	return s.take()
}
