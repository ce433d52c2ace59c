package movement

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/due"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// AnnouncerLimits are times and sizes. Zero fields take the defaults.
type AnnouncerLimits struct {
	First    time.Duration // from the first message to the second, then twice as long each time; default 5 ms
	Most     time.Duration // between two messages; default 500 ms
	GiveUp   time.Duration // from the first message of a row to its end; default 10 s
	Slow     time.Duration // from there to the next message, then twice as long each time; default 30 s
	SlowMost time.Duration // between two of these; default 4 min
	SlowRate int           // of these of all connections, a second; default 100
	Lifetime time.Duration // of a packet in the network; default 1 s
	Again    time.Duration // from the first message of a row that is over to the next one, of a user who is elsewhere; default 30 s
}

// maxPlaces is how many places of a user are told apart; where there are more it may be anywhere.
const maxPlaces = 8

func (l AnnouncerLimits) withDefaults() AnnouncerLimits {
	span := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	span(&l.First, 5*time.Millisecond)
	span(&l.Most, 500*time.Millisecond)
	span(&l.GiveUp, 10*time.Second)
	span(&l.Slow, 30*time.Second)
	span(&l.SlowMost, 4*time.Minute)
	span(&l.Lifetime, time.Second)
	span(&l.Again, 30*time.Second)
	if l.SlowRate <= 0 {
		l.SlowRate = 100
	}
	return l
}

// Outcome is what became of a move.
type Outcome string

// Outcomes.
const (
	Arrived    Outcome = "arrived"    // the user is heard at the new destination
	GivenUp    Outcome = "given up"   // it was not, by the end of a row; it may have nothing to say, or sleep, and is told on slowly
	Superseded Outcome = "superseded" // by a later move to this server
	Ended      Outcome = "ended"      // with the connection, or with its next move
)

// Announcer announces moves of connections to this server. It is not for use by several goroutines at a time.
type Announcer struct {
	limits   AnnouncerLimits
	sign     Signer
	moves    map[Flow]*move
	timers   due.Queue[*move]
	turn     time.Time // when the next slow message may be sent
	actions  []Action
	counters AnnouncerCounters
}

// AnnouncerCounters are totals since the start.
type AnnouncerCounters struct {
	Moves      uint64
	Sent       uint64 // messages
	Arrived    uint64 // moves, here and below
	GivenUp    uint64
	Superseded uint64
	Ended      uint64
	Unsigned   uint64 // messages that were due, but could not be signed
}

// Signer signs a move with the service's key that signs now, whose identifier it fills in.
type Signer func(wire.Change) (wire.Signed, error)

// move is the latest one of a connection that is here.
type move struct {
	wire.Change
	raw       []byte           // signed; none: it could not be
	places    []netip.AddrPort // where the user may have been before it; none: anywhere
	began     time.Time
	row       time.Time // when the first message of this row was due
	sent      int
	wait      time.Duration // to the next one
	slow      bool          // the row is over
	waits     bool          // for its turn, then
	arrived   bool
	heard     time.Time // the proof of it
	listened  bool      // since segments prove something
	reported  bool
	held      bool
	due.Place // the next message, or the end of the row
}

// NewAnnouncer returns an Announcer of no moves.
func NewAnnouncer(limits AnnouncerLimits, sign Signer) *Announcer {
	return &Announcer{limits: limits.withDefaults(), sign: sign, moves: map[Flow]*move{}}
}

// Took announces that a connection goes on here; time and key of c are filled in. places are where its user may be: what the server that had it before told by
// Places; none: anywhere. A move that is not later than the one that is known changes nothing.
func (a *Announcer) Took(now time.Time, c wire.Change, places []netip.AddrPort) []Action {
	flow := flowOf(c)
	if was := a.moves[flow]; was != nil {
		if was.Sequence >= c.Sequence {
			return nil
		}
		a.report(now, was, Superseded)
		a.timers.Remove(was)
	}
	m := &move{Change: c, places: slices.Clone(places), began: now}
	a.moves[flow] = m
	a.counters.Moves++
	a.begin(now, m)
	return a.take()
}

// begin sends the first message of a row. Each row is signed anew: its time may be long after the one before, and so may the key.
func (a *Announcer) begin(now time.Time, m *move) {
	m.slow, m.waits, m.row, m.raw, m.wait = false, false, now, nil, a.limits.First
	a.send(now, m)
}

func (a *Announcer) send(now time.Time, m *move) {
	a.timers.Set(m, now.Add(m.wait))
	if m.raw == nil {
		m.Time = now
		s, err := a.sign(m.Change)
		if err != nil { // the next one may be
			a.counters.Unsigned++
			return
		}
		m.raw = s.Raw
	}
	m.sent++
	a.counters.Sent++
	a.actions = append(a.actions, Send{flowOf(m.Change), m.raw})
}

// Heard takes that a segment of the user has come, and where it was sent: to this server's destination, or elsewhere, so that another server has sent it
// on. Of the former one after Took, after each Listen and after one that was sent elsewhere is enough.
func (a *Announcer) Heard(now time.Time, flow Flow, at netip.AddrPort) []Action {
	m := a.moves[flow]
	switch {
	case m == nil || m.held:
	case m.arrived:
		if at != m.New && now.Sub(m.heard) >= a.limits.Lifetime { // somebody forged the proof, or has held a message of before
			m.arrived, m.listened, m.places = false, false, nil
			a.begin(now, m)
		}
	case at == m.New:
		if a.proves(now, m) {
			m.arrived, m.heard = true, now
			a.timers.Remove(m)
			a.report(now, m, Arrived)
		}
	case m.slow && now.Sub(m.row) >= a.limits.Again:
		a.begin(now, m)
	}
	return a.take()
}

// listen asks for the next segment, when the first one that a program has told was too early to prove anything.
func (a *Announcer) listen(now time.Time, m *move) {
	if !m.listened && now.Sub(m.began) >= 2*a.limits.Lifetime {
		m.listened = true
		a.actions = append(a.actions, Listen{flowOf(m.Change)})
	}
}

// proves says whether a segment at the new destination shows that the user stays there. Where it may have been there before, one that
// was sent when all earlier messages had left the network does.
func (a *Announcer) proves(now time.Time, m *move) bool {
	before := len(m.places) == 0 || slices.Contains(m.places, m.New)
	return !before || now.Sub(m.began) >= 2*a.limits.Lifetime
}

// Held says nothing more of a connection that is being given away.
func (a *Announcer) Held(flow Flow) {
	if m := a.moves[flow]; m != nil {
		m.held = true
		a.timers.Remove(m)
	}
}

// Released goes on with a connection that stays.
func (a *Announcer) Released(now time.Time, flow Flow) []Action {
	if m := a.moves[flow]; m != nil && m.held {
		m.held = false
		switch {
		case m.arrived:
		case m.slow:
			m.waits = false
			a.timers.Set(m, now.Add(m.wait))
		default:
			a.send(now, m)
		}
	}
	return a.take()
}

// Gone forgets a connection that is over, or another server's.
func (a *Announcer) Gone(now time.Time, flow Flow) []Action {
	if m := a.moves[flow]; m != nil {
		a.report(now, m, Ended)
		a.timers.Remove(m)
		delete(a.moves, flow)
	}
	return a.take()
}

// Places is where the user of a connection may be, or have segments on their way to, for the server that it goes to next. None:
// anywhere. Without a move here it is false.
func (a *Announcer) Places(now time.Time, flow Flow) ([]netip.AddrPort, bool) {
	m := a.moves[flow]
	switch {
	case m == nil:
		return nil, false
	case m.arrived && now.Sub(m.heard) >= a.limits.Lifetime:
		return []netip.AddrPort{m.New}, true
	case len(m.places) == 0:
		return nil, true
	case slices.Contains(m.places, m.New):
		return slices.Clone(m.places), true
	case len(m.places) == maxPlaces:
		return nil, true
	}
	return append(slices.Clone(m.places), m.New), true
}

// Tick does what is due.
func (a *Announcer) Tick(now time.Time) []Action {
	for m, ok := a.timers.First(now); ok; m, ok = a.timers.First(now) {
		switch {
		case m.slow:
			a.remind(now, m)
		case now.Sub(m.row) >= a.limits.GiveUp:
			m.slow, m.wait = true, a.limits.Slow
			a.timers.Set(m, now.Add(m.wait))
			a.report(now, m, GivenUp)
		default:
			m.wait = min(2*m.wait, a.limits.Most)
			a.listen(now, m)
			a.send(now, m)
		}
	}
	return a.take()
}

// remind sends a message after the row, when it is its turn. Each is signed anew: its time is long after the one before.
func (a *Announcer) remind(now time.Time, m *move) {
	if !m.waits {
		at := a.turn
		if at.Before(now) {
			at = now
		}
		a.turn = at.Add(time.Second / time.Duration(a.limits.SlowRate))
		if at.After(now) {
			m.waits = true
			a.timers.Set(m, at)
			return
		}
	}
	m.waits, m.raw, m.wait = false, nil, min(2*m.wait, a.limits.SlowMost)
	a.send(now, m)
}

// Next is when Tick has something to do; zero: never.
func (a *Announcer) Next() time.Time {
	return a.timers.Next()
}

// Moves is how many connections there are whose last move led here.
func (a *Announcer) Moves() int { return len(a.moves) }

// Counters are the totals.
func (a *Announcer) Counters() AnnouncerCounters { return a.counters }

// report tells an outcome, once a move; a user that is heard after all is told besides.
func (a *Announcer) report(now time.Time, m *move, o Outcome) {
	if m.reported && o != Arrived {
		return
	}
	m.reported = true
	switch o {
	case Arrived:
		a.counters.Arrived++
	case GivenUp:
		a.counters.GivenUp++
	case Superseded:
		a.counters.Superseded++
	case Ended:
		a.counters.Ended++
	}
	a.actions = append(a.actions, Report{flowOf(m.Change), m.Sequence, o, m.sent, now.Sub(m.began)})
}

func (a *Announcer) take() []Action {
	out := a.actions
	a.actions = nil
	return out
}
