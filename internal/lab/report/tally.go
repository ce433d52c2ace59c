package report

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/lab/traffic"
)

// Death is a server that was killed, and when that was found.
type Death struct {
	Server string
	At     time.Time // the killing began
	Gone   time.Time // and ended; until then the server may still take a connection
	Found  time.Time // zero: it was not
	Back   time.Time // all was as before: until then its standbys may have stood in for it, and given its users back; zero: they did not
}

// Span is when a phase was.
type Span struct {
	Name       string
	Start, End time.Time
}

// Tally judges events when all of them, all eras and all deaths are known.
type Tally struct {
	Timeline Timeline
	Deaths   []Death
	Outages  []Outage
	Spans    []Span   // in order, without gaps
	Periods  []Period // of strategies; outside of them moved users' connections may be reset

	opened   int
	requests []traffic.Event // in the order of their ends
	closes   []traffic.Event
	silences []traffic.Event // of streams
	flows    []traffic.Event
}

// Add takes one event of the users.
func (t *Tally) Add(e traffic.Event) {
	switch e.Kind {
	case traffic.Open:
		t.opened++
	case traffic.Close:
		t.closes = append(t.closes, e)
	case traffic.Request:
		t.requests = append(t.requests, e)
	case traffic.Flow:
		t.flows = append(t.flows, e)
	case traffic.Wait, traffic.Switch:
		t.silences = append(t.silences, e)
	}
}

// Count is the number of requests so far and of those that were not answered at all.
func (t *Tally) Count() (requests, unanswered int) {
	for i := range t.requests {
		if !t.requests[i].OK {
			unanswered++
		}
	}
	return len(t.requests), unanswered
}

// Answered reports whether a user has had an answer to a request that began since then.
func (t *Tally) Answered(user netip.Addr, since time.Time) bool {
	for i := len(t.requests) - 1; i >= 0 && t.requests[i].End.After(since); i-- {
		if e := &t.requests[i]; e.User == user && e.OK && e.Start.After(since) {
			return true
		}
	}
	return false
}

// Requests counts the requests; failed has those that count as such.
func (t *Tally) Requests() (r Requests, failed []traffic.Event) {
	r.Total = len(t.requests)
	for _, e := range t.requests {
		switch {
		case e.OK:
		case t.InDetection(e):
			r.FailedInDetection++
		default:
			r.Failed++
			failed = append(failed, e)
		}
	}
	return r, failed
}

// InDetection: the user was a dead server's, or its way was dead, and at its second attempt nobody could know yet.
func (t *Tally) InDetection(e traffic.Event) bool {
	if t.inOutage(e) {
		return true
	}
	for _, d := range t.Deaths {
		if e.End.Before(d.At) || t.Timeline.Owner(e.User, d.At) != d.Server {
			continue
		}
		if d.Found.IsZero() || !e.Retry.After(d.Found) {
			return true
		}
	}
	return false
}

// Connections counts the connections; broken has those that nothing excuses.
func (t *Tally) Connections() (c Connections, broken []traffic.Event) {
	c.Opened = t.opened
	broken = t.judge(t.closes, &c)
	return c, broken
}

// judge counts how connections ended; broken has those that nothing excuses.
func (t *Tally) judge(closes []traffic.Event, c *Connections) (broken []traffic.Event) {
	for _, e := range closes {
		if e.How == traffic.Own {
			continue
		}
		server := e.Server
		if server == "" { // nothing was answered on it
			server = t.Timeline.Owner(e.User, e.Start)
		}
		switch {
		case t.lost(server, e):
			c.LostWithServer++
		case t.cutOff(e):
			c.LostWithDirector++
		case e.How != traffic.Timeout && (t.movedAway(server, e) && (!t.keeps(e.Start) || t.breaks(e)) || t.stoodIn(server, e)):
			c.Reset++
		default:
			c.Broken++
			broken = append(broken, e)
		}
	}
	return broken
}

// movedAway: the server owned the user, and then no more.
func (t *Tally) movedAway(server string, e traffic.Event) bool {
	return t.Timeline.Owned(server, e.User, e.Start, e.End) && t.Timeline.Left(server, e.User, e.Start, e.End)
}

// stoodIn: the connection was to the standby, who gave the user back to its owner.
func (t *Tally) stoodIn(server string, e traffic.Event) bool {
	for _, d := range t.Deaths {
		if t.standsIn(server, e.User, d) && e.Start.After(d.At) && e.End.Before(d.Back) {
			return true
		}
	}
	return false
}

// standsIn: the user was the dead server's, and server its standby.
func (t *Tally) standsIn(server string, user netip.Addr, d Death) bool {
	return server != "" && t.Timeline.Owner(user, d.At) == d.Server && t.Timeline.Standby(user, d.At) == server
}

// waits is how long a user waits for an answer until it gives a connection up.
const waits = 2 * time.Second

// lost: the connection was there when its server died, and its end was seen, or its user began to wait, before all was as before, or with what the user asked next.
// One that outlives moves may just have been handed over, to the dead server or by it.
func (t *Tally) lost(server string, e traffic.Event) bool {
	for _, d := range t.Deaths {
		back := d.Back
		if !back.IsZero() && e.How == traffic.Timeout {
			back = back.Add(waits)
		}
		had := d.Server == server || t.keeps(e.Start) && (t.handedOver(e.User, d) || t.wentAlong(e, d))
		inTime := back.IsZero() || !e.End.After(back) || t.unheard(e, d)
		if had && !e.Start.After(d.Gone) && e.End.After(d.At) && inTime {
			return true
		}
	}
	return false
}

// handedOver: the user went to the server, or from it, in the moment before its death.
func (t *Tally) handedOver(user netip.Addr, d Death) bool {
	before := t.Timeline.Owner(user, d.At.Add(-Settle))
	for _, era := range t.Timeline[t.Timeline.At(d.At.Add(-Settle))+1 : t.Timeline.At(d.Gone)+1] {
		owner := era.Owner(user)
		if owner != before && (owner == d.Server || before == d.Server) {
			return true
		}
		before = owner
	}
	return false
}

// unheard: of a user that was the server's when it died, and that has had no answer on the connection since.
func (t *Tally) unheard(e traffic.Event, d Death) bool {
	return !e.Heard.IsZero() && !e.Heard.After(d.Gone) && t.Timeline.Owner(e.User, d.At) == d.Server
}

// wentAlong: the user has become the server's since the connection was last heard, and so has that, as far as anybody can tell. What was heard after the death
// was alive.
func (t *Tally) wentAlong(e traffic.Event, d Death) bool {
	if !t.unheard(e, d) {
		return false
	}
	heard := e.Heard.Add(-Settle)
	before := t.Timeline.Owner(e.User, heard)
	for _, era := range t.Timeline[t.Timeline.At(heard)+1 : t.Timeline.At(d.At)+1] {
		owner := era.Owner(e.User)
		if owner == d.Server && before != d.Server {
			return true
		}
		before = owner
	}
	return false
}

// PerServer counts the answers of each of the servers.
func (t *Tally) PerServer(servers []string) map[string]int {
	counts := map[string]int{}
	for _, s := range servers {
		counts[s] = 0
	}
	for _, e := range t.requests {
		if e.OK {
			counts[e.Server]++
		}
	}
	return counts
}

// Strangers are the answers of servers that neither owned the user nor stood in for a dead owner. On a connection that outlives moves
// somebody answers who owned the user since it was opened.
func (t *Tally) Strangers() (wrong []traffic.Event) {
	for _, e := range t.requests {
		since := e.Start
		if t.outlives(e) {
			since = e.Opened
		}
		if e.OK && !t.Timeline.Owned(e.Server, e.User, since, e.End) && !t.answeredFor(e) {
			wrong = append(wrong, e)
		}
	}
	return wrong
}

// outlives: the request was on a connection that is kept, and that moves do not end.
func (t *Tally) outlives(e traffic.Event) bool { return !e.Opened.IsZero() && t.keeps(e.Opened) }

// StoodBy: who answered stood by for the user then, whether its owner was dead or not, or answered a request of a user whom it pins: so it does
// while it cannot tell whether the owner lives.
func (t *Tally) StoodBy(e traffic.Event) bool {
	if e.Kind == traffic.Request && t.pins(e.Server, e.User, e.Start, e.End) {
		return true
	}
	for _, era := range t.Timeline.between(e.Start, e.End) {
		if e.Server != "" && era.Standby != nil && era.Standby(e.User) == e.Server {
			return true
		}
	}
	return false
}

// answeredFor: the standby answered while the owner was dead.
func (t *Tally) answeredFor(e traffic.Event) bool {
	for _, d := range t.Deaths {
		if t.standsIn(e.Server, e.User, d) && e.End.After(d.At) && e.Start.Before(d.Back) {
			return true
		}
	}
	return false
}

// Share is a server's part of the answers between from and to.
type Share struct {
	Server   string
	Got      float64 // of the answers, where each user's count for as much
	Want     float64 // of the users who had answers, by the allocation at to
	Requests int     // all servers' in that time
}

// Shares compares answers with the allocation. Requests that began outside are not counted, nor those on connections that outlive moves. In a short
// time one user has two answers and another three: that is no server's doing.
func (t *Tally) Shares(servers []string, users []netip.Addr, from, to time.Time) []Share {
	by, requests := map[netip.Addr]map[string]int{}, 0
	for _, e := range t.requests {
		if !e.OK || !e.Start.After(from) || !e.Start.Before(to) || t.outlives(e) {
			continue
		}
		if by[e.User] == nil {
			by[e.User] = map[string]int{}
		}
		by[e.User][e.Server]++
		requests++
	}
	got, want := map[string]float64{}, map[string]float64{}
	for _, u := range users {
		all := 0
		for _, n := range by[u] {
			all += n
		}
		for server, n := range by[u] {
			got[server] += float64(n) / float64(all) / float64(len(by))
		}
		if all > 0 {
			want[t.Timeline.Owner(u, to)] += 1 / float64(len(by))
		}
	}
	shares := make([]Share, 0, len(servers))
	for _, s := range servers {
		shares = append(shares, Share{Server: s, Got: got[s], Want: want[s], Requests: requests})
	}
	return shares
}

// Phases counts failures and the longest blackout of each phase. What began in a phase belongs to it; a wait that was going on
// when its server died belongs to the phase of the death.
func (t *Tally) Phases() []Phase {
	phases := make([]Phase, len(t.Spans))
	for i, s := range t.Spans {
		phases[i].Name = s.Name
	}
	at := func(when time.Time) *Phase {
		for i, s := range t.Spans {
			if when.Before(s.End) || i == len(t.Spans)-1 {
				return &phases[i]
			}
		}
		return &Phase{}
	}
	for _, e := range t.requests {
		if !e.OK && !t.InDetection(e) {
			at(e.Start).RequestsFailed++
		}
	}
	for since, e := range t.waits() {
		p := at(t.waitBegan(e, since))
		p.BlackoutMS = max(p.BlackoutMS, e.End.Sub(since).Milliseconds())
	}
	return phases
}

// waits are all answers, with the time since when the user had been without one, over failures.
func (t *Tally) waits() iter.Seq2[time.Time, traffic.Event] {
	return func(yield func(since time.Time, answered traffic.Event) bool) {
		silent := map[netip.Addr]time.Time{}
		for _, e := range t.requests {
			since, waits := silent[e.User]
			if !waits || e.Start.Before(since) {
				since = e.Start
			}
			if !e.OK {
				silent[e.User] = since
				continue
			}
			delete(silent, e.User)
			if !yield(since, e) {
				return
			}
		}
	}
}

// Waited are the users who waited longer than limit for an answer, and were not waiting for a dead server: a network that drops
// their packets for a moment makes no request fail, but has them wait until the packet is sent again.
func (t *Tally) Waited(limit time.Duration) (waited []traffic.Event) {
	for since, e := range t.waits() {
		if e.End.Sub(since) > limit && !t.bereft(e.User, since, e.End) && !t.waitedOut(since, e.End) {
			e.Start = since
			waited = append(waited, e)
		}
	}
	return waited
}

// bereft: from start to end there was a time when the user's server was dead and nobody had found that.
func (t *Tally) bereft(user netip.Addr, start, end time.Time) bool {
	for _, d := range t.Deaths {
		isOver := !d.Found.IsZero() && start.After(d.Found)
		if end.After(d.At) && !isOver && (t.Timeline.Owner(user, d.At) == d.Server || t.pinned(user, d)) {
			return true
		}
	}
	return false
}

// pinned: all that the user sent came to the dead server.
func (t *Tally) pinned(user netip.Addr, d Death) bool { return t.pins(d.Server, user, d.At, d.Gone) }

// pins: between from and to all that the user sent came to the server: of those that had owned the user before its owner, it is the last one that held
// something of the user's.
func (t *Tally) pins(server string, user netip.Addr, from, to time.Time) bool {
	if t.strategy(from) != Pin {
		return false
	}
	owner := t.Timeline.Owner(user, from)
	for _, era := range slices.Backward(t.Timeline[:t.Timeline.At(from)+1]) {
		if before := era.Owner(user); before != owner && t.holds(before, user, from, to) {
			return before == server
		}
	}
	return false
}

// flowStays is how long a flow of UDP is a server's after its last packet (docs/handover.md): nothing tells a server that it has ended.
const flowStays = 30 * time.Second

// holds: between from and to the server had a connection of the user's, or a flow of UDP.
func (t *Tally) holds(server string, user netip.Addr, from, to time.Time) bool {
	until := func(from time.Time) func(traffic.Event) bool {
		return func(e traffic.Event) bool {
			return e.User == user && e.Server == server && e.Start.Before(to) && e.End.After(from)
		}
	}
	return slices.ContainsFunc(t.closes, until(from)) || slices.ContainsFunc(t.flows, until(from.Add(-flowStays)))
}

// waitBegan is when the user of e began to wait for something out of the ordinary.
func (t *Tally) waitBegan(e traffic.Event, since time.Time) time.Time {
	for _, d := range t.Deaths {
		if since.Before(d.At) && e.End.After(d.At) && t.Timeline.Owner(e.User, d.At) == d.Server {
			return d.At
		}
	}
	return since
}
