// Package labels is the label information base and what is decided about labels (RFC 5036 sections 2.6, 2.8, 3.5.5 to 3.5.12 and
// appendix A): downstream unsolicited, liberal retention, independent or ordered control, RFC 3478 on both sides, RFC 5918, RFC 5919
// and section 7 of RFC 7552. Routes, sessions, messages and time in, messages and changes out. It is pure: no sockets, no clock, no
// log. Not safe for concurrent use.
//
// What is to hold of a FEC follows from its route, the bindings of its next hops and the filters alone; every event ends in settle,
// which brings about what differs. Of two orders of the same events the outcome is the same, labels' numbers apart.
package labels

import (
	"container/list"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// NoLabel is where there is none.
const NoLabel wire.Label = 1 << 31

// Config is what does not change. Zero fields take the defaults.
type Config struct {
	LSR          wire.LSRID
	First, Last  wire.Label // what is given out, all of it by default: wire.LabelFirst to wire.LabelLast
	Ordered      bool       // ordered control; not: independent (RFC 5036 section 2.6.1)
	ExplicitNull bool       // bind explicit null to attached FECs, not implicit
	// Transports are addresses of this router that sessions are with: to neighbors on links they are always bound to implicit null, a server's,
	// too. Their packets have to come with all their hops (RFC 6720), and whoever takes a label off takes one of them.
	Transports    []netip.Addr
	LoopDetection bool  // RFC 5036 section 2.8
	HopLimit      uint8 // longer LSPs are loops; 64
	PathLimit     uint8 // likewise, of path vectors; 32
	MaxBindings   int   // kept of one peer, 100,000
	AllBindings   int   // kept of all peers together, 1,000,000
	MaxAddresses  int   // kept of one peer, 1,024
	// As helper of a peer that restarts (RFC 3478 section 3.3) this router waits no longer than that for its session and then for its
	// bindings; 2 min each. NoHelper: a peer's bindings go with its session.
	MaxReconnect, MaxRecovery time.Duration
	NoHelper                  bool
	// Filters; nil lets all pass.
	Allocate  func(netip.Prefix) bool                  // which FECs get labels
	Advertise func(netip.Prefix, wire.Identifier) bool // to whom
	Accept    func(netip.Prefix, wire.Identifier) bool // whose bindings are kept
}

func (c *Config) complete() error {
	setDefault(&c.First, wire.LabelFirst)
	setDefault(&c.Last, wire.LabelLast)
	setDefault(&c.HopLimit, 64)
	setDefault(&c.PathLimit, 32)
	setDefault(&c.MaxBindings, 100_000)
	setDefault(&c.AllBindings, 1_000_000)
	setDefault(&c.MaxAddresses, 1024)
	setDefault(&c.MaxReconnect, 2*time.Minute)
	setDefault(&c.MaxRecovery, 2*time.Minute)
	if c.First < wire.LabelFirst || c.Last > wire.LabelLast || c.First > c.Last {
		return fmt.Errorf("labels %d to %d: choose a range within %d to %d", c.First, c.Last, wire.LabelFirst, wire.LabelLast)
	}
	return nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Action is one of Say, Changed, Event, Freed, Warn and Recovered.
type Action interface{ action() }

// Say sends a message to a peer; the session gives it an ID where it has none.
type Say struct {
	Peer    wire.Identifier
	Message wire.Message
}

// Changed names the FECs whose forwarding has to be computed anew, each once. It is the first action: what is said to peers behind it
// then holds already.
type Changed struct{ FECs []netip.Prefix }

// Warn is for operators.
type Warn struct {
	Peer wire.Identifier // zero: about no peer
	Text string
}

// Recovered tells that this router's own restart is over (RFC 3478 section 3.2): what the kernel still has of the former life and no
// FEC has claimed may go.
type Recovered struct{}

// What happened to a binding.
type What uint8

// Changes of bindings.
const (
	Bound   What = iota // this router bound the label to the FEC
	Unbound             // and does so no longer
	Learned             // the peer bound it
	Lost                // and does so no longer
)

// String is the change in a word.
func (w What) String() string { return [...]string{"bound", "unbound", "learned", "lost"}[w] }

// Event tells of a binding that came or went.
type Event struct {
	What  What
	Peer  wire.Identifier // of Learned and Lost
	FEC   netip.Prefix
	Label wire.Label
}

// Freed tells that neither the FEC nor a peer has the label any more: it may be another FEC's from now on.
type Freed struct {
	FEC   netip.Prefix
	Label wire.Label
}

func (Say) action()       {}
func (Changed) action()   {}
func (Warn) action()      {}
func (Recovered) action() {}
func (Event) action()     {}
func (Freed) action()     {}

// Labels is the state.
type Labels struct {
	cfg       Config
	fecs      map[netip.Prefix]*fec
	routed    int // of fecs
	sets      hopSets
	peers     []*peer // by identifier; those that are away, too
	kept      int     // bindings of all peers
	addresses []netip.Addr
	tunnels   map[netip.Addr][]NextHop // far ends, and where packets there go
	allocator *allocator
	waiting   *list.List // of FECs, for a label
	exhausted bool       // no label was left when one was wanted
	requests  requests
	restored  map[netip.Prefix]wire.Label // not claimed yet
	unclaimed []wire.Label                // of a former life, and nobody knows of which FEC; taken until the recovery is over
	foreign   map[wire.Label]bool         // others have entries for them: taken, and no FEC's
	recovery  time.Time                   // end of this router's own restart; zero: there is none
	stats     Stats

	now     time.Time // of the event at hand
	actions []Action
	changed []*fec
}

// Stats counts what operators want to know. The last three only grow.
type Stats struct {
	FECs       int // with a route
	Used       int // labels given out, those that peers have yet to release included
	Free       int
	Waiting    int    // FECs without a label for want of one
	TurnedAway uint64 // bindings beyond a limit
	Loops      uint64 // messages refused because of a loop
	Ignored    uint64 // messages, and parts of them, that make no sense here
}

// New returns a Labels that knows no route and no peer.
func New(cfg Config) (*Labels, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return &Labels{
		cfg: cfg, fecs: map[netip.Prefix]*fec{}, sets: hopSets{byKey: map[string]*hopSet{}}, waiting: list.New(),
		allocator: newAllocator(cfg.First, cfg.Last), requests: newRequests(), restored: map[netip.Prefix]wire.Label{}, foreign: map[wire.Label]bool{},
	}, nil
}

// Stats counts.
func (l *Labels) Stats() Stats {
	s := l.stats
	s.Used, s.Free, s.Waiting = l.allocator.used, l.allocator.free(), l.waiting.Len()
	s.FECs = l.routed
	return s
}

// Message is one of a peer's that the session delivered.
func (l *Labels) Message(now time.Time, from wire.Identifier, m wire.Message) []Action {
	l.now = now
	p := l.peer(from)
	if p == nil || !p.up {
		l.stats.Ignored++
		return nil
	}
	switch m := m.(type) {
	case wire.Address:
		l.learnAddresses(p, m.AddressList)
	case wire.AddressWithdraw:
		l.loseAddresses(p, m.AddressList)
	case wire.Capability:
		p.capable(m.Capabilities)
	case wire.Notification:
		l.notified(p, m)
	default:
		l.labelMessage(p, m)
	}
	return l.take()
}

func (l *Labels) labelMessage(p *peer, m wire.Message) {
	switch m := m.(type) {
	case wire.LabelMapping:
		l.mapped(p, m)
	case wire.LabelRequest:
		l.requested(p, m)
	case wire.LabelAbortRequest:
		l.aborted(p, m)
	case wire.LabelWithdraw:
		l.withdrawn(p, m)
	case wire.LabelRelease:
		l.released(p, m)
	default:
		l.stats.Ignored++
	}
}

func (l *Labels) say(p *peer, m wire.Message) {
	if p.up {
		l.actions = append(l.actions, Say{p.id, m})
	}
}

func (l *Labels) warn(p *peer, format string, args ...any) {
	w := Warn{Text: fmt.Sprintf(format, args...)}
	if p != nil {
		w.Peer = p.id
	}
	l.actions = append(l.actions, w)
}

func (l *Labels) event(w What, p *peer, f *fec, label wire.Label) {
	e := Event{What: w, FEC: f.prefix, Label: label}
	if p != nil {
		e.Peer = p.id
	}
	l.actions = append(l.actions, e)
}

// change has the forwarding of a FEC computed anew.
func (l *Labels) change(f *fec) {
	if !f.changed {
		f.changed = true
		l.changed = append(l.changed, f)
	}
}

// take ends an event: what was freed goes to those who wait.
func (l *Labels) take() []Action {
	l.serveWaiting()
	l.fillRoom()
	out := l.actions
	if len(l.changed) > 0 {
		c := Changed{make([]netip.Prefix, len(l.changed))}
		for i, f := range l.changed {
			f.changed, c.FECs[i] = false, f.prefix
		}
		out = slices.Insert(out, 0, Action(c))
	}
	l.actions, l.changed = nil, nil
	return out
}
