package report

import (
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/lab/traffic"
)

// Strategies that are judged in a way of their own: Reset lets moved users' connections be reset, with Pin all packets of a user come to who holds a
// connection of theirs.
const (
	Reset = "reset"
	Pin   = "pin"
)

// Period is when a strategy was in force. Connections are opened and closed within it.
type Period struct {
	Strategy   string
	Start, End time.Time // End zero: it still is
	States     States    // that servers sent
	Breaks     time.Time // since then servers close connections of users whom they lost, when these carry nothing; zero: they do not
}

// Handover is what became of live connections under one strategy.
type Handover struct {
	Connections    int    `json:"connections"` // opened
	Moves          int    `json:"moves"`       // of connections: their user went to another server while they were open
	Switched       int    `json:"switched"`    // streams that went on at another server
	Reset          int    `json:"reset"`       // by a move, which strategy reset allows
	Broken         int    `json:"broken"`
	LostWithServer int    `json:"lost_with_server"`
	StreamsEnded   int    `json:"streams_ended"` // in peace: both ends have told what came
	BytesReceived  uint64 `json:"bytes_received"`
	BytesLost      uint64 `json:"bytes_lost"` // others came behind them
	BytesDoubled   uint64 `json:"bytes_doubled"`
	BytesReordered uint64 `json:"bytes_reordered"`
	BytesGarbled   uint64 `json:"bytes_garbled"` // belong to no stream

	Blackout Spread `json:"blackout_ms"`      // paced streams: the longest wait for data around a move, beyond the pace
	Switch   Spread `json:"switch_ms"`        // paced streams: from one server's, or connection's, last data to the next one's first, likewise
	Quiet    Spread `json:"quiet_ms"`         // paced streams: as blackout, while nothing moved: what the machine does
	Bulk     Spread `json:"bulk_blackout_ms"` // streams that are as fast as their sender's kernel lets them be

	State *Sizes `json:"state_bytes,omitempty"` // of connections that were transferred

	Relay Relayed `json:"relay"` // of the connections those to a server behind a relay
	UDP   Flows   `json:"udp"`
}

// Flows is what became of flows of UDP.
type Flows struct {
	Flows          int `json:"flows"`
	Moves          int `json:"moves"` // their user went to another server while they went on
	Reset          int `json:"reset"` // another server answered, which strategy reset allows
	Broken         int `json:"broken"`
	LostWithServer int `json:"lost_with_server"`
	Strange        int `json:"strange"` // began at a server whose user theirs was not
	Sent           int `json:"sent"`    // datagrams
	Lost           int `json:"lost"`
	Doubled        int `json:"doubled"` // answered twice, by one server: a flow that two answer is over

	Wrong []traffic.Event `json:"-"` // those that are broken or strange
}

// Relayed is what became of HTTP connections to a server that cannot move them itself.
type Relayed struct {
	Connections    int `json:"connections"`
	Requests       int `json:"requests"`
	Moves          int `json:"moves"`
	Switched       int `json:"switched"` // answers by another server than the one before on their connection
	Broken         int `json:"broken"`
	LostWithServer int `json:"lost_with_server"`
}

// Whole says whether all bytes came once and in order.
func (h Handover) Whole() bool {
	return h.BytesLost == 0 && h.BytesDoubled == 0 && h.BytesReordered == 0 && h.BytesGarbled == 0
}

// Spread says how times are spread, in milliseconds.
type Spread struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// Sizes says how sizes are spread, in bytes.
type Sizes struct {
	P50 uint64 `json:"p50"` // up to an eighth more than it is
	Max uint64 `json:"max"`
}

// States are those of connections on their way, by their size.
type States struct {
	UpTo map[uint64]uint64 // how many had at most so many bytes, and more than the next smaller step
	Max  uint64            // bytes
}

// Add adds what others had.
func (s *States) Add(o States) {
	if s.UpTo == nil {
		s.UpTo = map[uint64]uint64{}
	}
	for upTo, n := range o.UpTo {
		s.UpTo[upTo] += n
	}
	s.Max = max(s.Max, o.Max)
}

// Count is how many there are.
func (s States) Count() (n uint64) {
	for _, c := range s.UpTo {
		n += c
	}
	return n
}

// Sizes is how large they are; nil: there are none.
func (s States) Sizes() *Sizes {
	all, n := s.Count(), uint64(0)
	for _, upTo := range slices.Sorted(maps.Keys(s.UpTo)) {
		if n += s.UpTo[upTo]; n > 0 && 2*n >= all {
			return &Sizes{P50: min(upTo, s.Max), Max: s.Max}
		}
	}
	return nil
}

func spread(times []time.Duration) (s Spread) {
	if len(times) == 0 {
		return s
	}
	slices.Sort(times)
	at := func(part float64) float64 {
		d := times[int(math.Ceil(part*float64(len(times))))-1]
		return math.Round(float64(d.Microseconds())) / 1000
	}
	return Spread{len(times), at(0.5), at(0.99), at(1)}
}

// AroundMove is how long after a move a stream's waits belong to it.
const AroundMove = 400 * time.Millisecond

// beforeMove is how much earlier than the allocation is heard of it may be carried out.
const beforeMove = 20 * time.Millisecond

// strategy is what was in force then; empty: none.
func (t *Tally) strategy(at time.Time) string {
	i := slices.IndexFunc(t.Periods, func(p Period) bool { return p.has(at) })
	if i < 0 {
		return ""
	}
	return t.Periods[i].Strategy
}

// keeps says whether a connection that was opened then is to outlive moves.
func (t *Tally) keeps(opened time.Time) bool {
	s := t.strategy(opened)
	return s != "" && s != Reset
}

// breaks says whether a connection may have come to its break point.
func (t *Tally) breaks(e traffic.Event) bool {
	for _, p := range t.Periods {
		if p.has(e.Start) && !p.Breaks.IsZero() && e.End.After(p.Breaks) {
			return true
		}
	}
	return false
}

// Handovers judges connections and flows by the strategy that was in force; broken has the connections that nothing excuses.
func (t *Tally) Handovers() (by map[string]Handover, broken map[string][]traffic.Event) {
	by, broken = map[string]Handover{}, map[string][]traffic.Event{}
	moves := t.userMoves()
	for _, p := range t.Periods {
		var h Handover
		var closes []traffic.Event
		for _, e := range t.closes {
			if p.has(e.Start) {
				closes = append(closes, e)
				h.enter(e, moves[e.User])
			}
		}
		var c Connections
		broken[p.Strategy] = t.judge(closes, &c)
		h.Connections, h.Reset, h.Broken, h.LostWithServer = len(closes), c.Reset, c.Broken, c.LostWithServer
		h.State = p.States.Sizes()
		h.Relay = t.relayed(p, closes, moves)
		h.UDP = t.udp(p, moves)
		t.blackouts(&h, p, moves)
		by[p.Strategy] = h
	}
	return by, broken
}

// relayed judges the connections to a server behind a relay; closes has all.
func (t *Tally) relayed(p Period, closes []traffic.Event, moves map[netip.Addr][]time.Time) (r Relayed) {
	var of []traffic.Event
	for _, e := range closes {
		if e.Via == traffic.Relay {
			of = append(of, e)
			r.Moves += movesOf(e, moves[e.User])
		}
	}
	var c Connections
	t.judge(of, &c)
	r.Connections, r.Broken, r.LostWithServer = len(of), c.Broken, c.LostWithServer
	type connection struct {
		user   netip.Addr
		opened time.Time
	}
	before := map[connection]string{}
	for _, e := range t.requests {
		if e.Via != traffic.Relay || !e.OK || !p.has(e.Start) {
			continue
		}
		r.Requests++
		if e.Opened.IsZero() {
			continue
		}
		on := connection{e.User, e.Opened}
		if last, known := before[on]; known && last != e.Server {
			r.Switched++
		}
		before[on] = e.Server
	}
	return r
}

// udp judges flows.
func (t *Tally) udp(p Period, moves map[netip.Addr][]time.Time) (f Flows) {
	for _, e := range t.flows {
		if !p.has(e.Start) {
			continue
		}
		var c Connections
		t.judge([]traffic.Event{e}, &c)
		f.Flows++
		f.Moves += movesOf(e, moves[e.User])
		f.Reset, f.Broken, f.LostWithServer = f.Reset+c.Reset, f.Broken+c.Broken, f.LostWithServer+c.LostWithServer
		f.Sent, f.Lost, f.Doubled = f.Sent+e.Datagrams.Sent, f.Lost+e.Datagrams.Sent-e.Datagrams.Answered, f.Doubled+e.Datagrams.Doubled
		isStrange := t.strange(e)
		if isStrange {
			f.Strange++
		}
		if isStrange || c.Broken > 0 {
			f.Wrong = append(f.Wrong, e)
		}
	}
	return f
}

// strange: a flow began at a server that did not own its user then. While the owner is dead whoever has the user's other flows may answer.
func (t *Tally) strange(e traffic.Event) bool {
	for _, d := range t.Deaths {
		if t.Timeline.Owner(e.User, d.At) == d.Server && e.Start.After(d.At.Add(-Settle)) && (d.Back.IsZero() || e.Start.Before(d.Back)) {
			return false
		}
	}
	return e.Server != "" && !t.Timeline.Owned(e.Server, e.User, e.Start, e.Start)
}

// Ended counts the HTTP connections that ended from one time to another, not by their users, by how they did.
func (t *Tally) Ended(from, to time.Time) map[traffic.How]int {
	by := map[traffic.How]int{}
	for _, e := range t.closes {
		if e.Stream == "" && e.How != traffic.Own && e.End.After(from) && e.End.Before(to) {
			by[e.How]++
		}
	}
	return by
}

// has says whether the strategy was in force.
func (p Period) has(when time.Time) bool {
	return !when.Before(p.Start) && (p.End.IsZero() || when.Before(p.End))
}

// movesOf is how many moves of its user a connection saw.
func movesOf(e traffic.Event, moves []time.Time) (n int) {
	for _, at := range moves {
		if at.After(e.Start) && at.Before(e.End) {
			n++
		}
	}
	return n
}

// enter counts a connection that has come to its end.
func (h *Handover) enter(e traffic.Event, moves []time.Time) {
	h.Moves += movesOf(e, moves)
	if e.Bytes == nil {
		return
	}
	counts := e.Bytes.Down
	if e.Bytes.Up != nil {
		h.StreamsEnded++
		counts = counts.Plus(*e.Bytes.Up)
	}
	h.BytesReceived += counts.Received
	h.BytesLost += counts.Lost
	h.BytesDoubled += counts.Doubled
	h.BytesReordered += counts.Reordered
	h.BytesGarbled += counts.Garbled
}

// userMoves are the times at which each user went to another server.
func (t *Tally) userMoves() map[netip.Addr][]time.Time {
	moves := map[netip.Addr][]time.Time{}
	for _, e := range t.closes {
		if _, known := moves[e.User]; known {
			continue
		}
		moves[e.User] = []time.Time{}
		before := ""
		for i, era := range t.Timeline {
			owner := era.Owner(e.User)
			if i > 0 && owner != before {
				moves[e.User] = append(moves[e.User], era.At)
			}
			before = owner
		}
	}
	return moves
}

// blackouts measures streams' waits around moves, those around deaths excepted, and elsewhere.
func (t *Tally) blackouts(h *Handover, p Period, moves map[netip.Addr][]time.Time) {
	longest := map[moment]time.Duration{}
	quiet := map[moment]time.Duration{}
	var switches []time.Duration
	for _, e := range t.silences {
		if e.Start.Before(p.Start) || !e.End.Before(p.End) {
			continue
		}
		wait := max(0, e.End.Sub(e.Start)-e.Pace)
		if e.Kind == traffic.Switch && e.OK {
			h.Switched++
		}
		at, ok := t.moveOf(moves[e.User], e)
		switch {
		case ok:
			m := moment{e.User, e.Stream, at}
			longest[m] = max(longest[m], wait)
			if e.Kind == traffic.Switch && e.Stream == traffic.Paced {
				switches = append(switches, wait)
			}
		case e.Kind == traffic.Wait && e.Stream == traffic.Paced:
			if era, ok := t.quiet(e); ok {
				m := moment{e.User, e.Stream, era}
				quiet[m] = max(quiet[m], wait)
			}
		}
	}
	of := func(by map[moment]time.Duration, stream string) Spread {
		var times []time.Duration
		for m, d := range by {
			if m.stream == stream {
				times = append(times, d)
			}
		}
		return spread(times)
	}
	h.Blackout, h.Bulk, h.Quiet = of(longest, traffic.Paced), of(longest, traffic.Bulk), of(quiet, traffic.Paced)
	h.Switch = spread(switches)
}

// moment is a stream at a move, or between two.
type moment struct {
	user   netip.Addr
	stream string
	at     time.Time
}

// moveOf is the move that a wait belongs to: it ended shortly after it, or bridges it.
func (t *Tally) moveOf(moves []time.Time, e traffic.Event) (at time.Time, ok bool) {
	for _, m := range moves {
		begins := m.Add(-beforeMove)
		bridges := e.Start.Before(m) && e.End.After(m)
		if (bridges || e.End.After(begins) && e.End.Before(m.Add(AroundMove))) && !t.dying(m) {
			at, ok = m, true
		}
	}
	return at, ok
}

// dying says whether a server was dead or being killed around then.
func (t *Tally) dying(when time.Time) bool {
	for _, d := range t.Deaths {
		if when.After(d.At.Add(-AroundMove)) && (d.Back.IsZero() || when.Before(d.Back.Add(AroundMove))) {
			return true
		}
	}
	return false
}

// quiet says whether nobody had moved for a while when a wait ended, nor did soon; at is the era.
func (t *Tally) quiet(e traffic.Event) (at time.Time, ok bool) {
	i := t.Timeline.At(e.End)
	if i < 0 || t.dying(e.End) {
		return at, false
	}
	at = t.Timeline[i].At
	begins, ends := at.Add(AroundMove), at.Add(2*AroundMove+beforeMove)
	if i+1 < len(t.Timeline) && t.Timeline[i+1].At.Before(ends.Add(beforeMove)) {
		return at, false
	}
	return at, e.Start.After(begins) && e.End.Before(ends)
}
