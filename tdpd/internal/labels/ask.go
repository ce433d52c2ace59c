package labels

import (
	"maps"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// firstRequest is the first message ID of this router's own requests; sessions number from 1.
const firstRequest = 1 << 31

// Times between two requests for the same label.
const (
	minRetry = 30 * time.Second
	maxRetry = 8 * time.Minute
)

// request is one of this router's. With liberal retention there is no need of any (RFC 5036 section A.1: RequestNever), but for what
// was turned away at a limit.
type request struct {
	wanted
	id      uint32 // of the last message
	due     time.Time
	wait    time.Duration
	starved bool // the peer has no labels, and is to say when it has
}

// wanted names a request: there is one for each.
type wanted struct {
	peer *peer
	fec  wire.Prefix
}

type requests struct {
	of map[wanted]*request
	id uint32 // of the last
}

func newRequests() requests { return requests{of: map[wanted]*request{}, id: firstRequest - 1} }

// nextID wraps within the upper half.
func (r *requests) nextID() uint32 {
	r.id = (r.id + 1) | firstRequest
	return r.id
}

// askAgain asks a peer for what was turned away: for all at once where it can.
func (l *Labels) askAgain(p *peer) {
	if p.typed {
		for _, family := range p.families.list() {
			l.sayRequest(p, wire.TypedWildcard{Family: family})
		}
		return
	}
	for _, f := range l.sorted() {
		w := wanted{p, wire.Prefix{Prefix: f.prefix}}
		if l.lacks(w) && l.requests.of[w] == nil {
			r := &request{wanted: w}
			l.requests.of[w] = r
			l.send(r)
		}
	}
}

// lacks says whether the binding is still wanted.
func (l *Labels) lacks(w wanted) bool {
	f := l.fecs[w.fec.Prefix]
	return f != nil && f.uses(w.peer) && f.of(w.peer) < 0
}

func (l *Labels) sayRequest(p *peer, e wire.FECElement) uint32 {
	m := wire.LabelRequest{Head: wire.Head{ID: l.requests.nextID()}, FEC: wire.FEC{e}}
	if p.loops {
		hops := uint8(1)
		m.HopCount, m.PathVector = &hops, []wire.LSRID{l.cfg.LSR}
	}
	l.say(p, m)
	return m.ID
}

func (l *Labels) send(r *request) {
	r.id, r.due, r.starved = l.sayRequest(r.peer, r.fec), time.Time{}, false
}

func (r *requests) answered(p *peer, x wire.Prefix) { delete(r.of, wanted{p, x}) }

func (r *requests) forget(p *peer) {
	maps.DeleteFunc(r.of, func(w wanted, _ *request) bool { return w.peer == p })
}

// settleRequests aborts requests that nobody needs answered any more (RFC 5036 section 3.5.9.1).
func (l *Labels) settleRequests(f *fec) {
	if len(l.requests.of) == 0 {
		return
	}
	for _, p := range l.peers {
		w := wanted{p, wire.Prefix{Prefix: f.prefix}}
		r := l.requests.of[w]
		if r == nil || l.lacks(w) {
			continue
		}
		delete(l.requests.of, w)
		if r.due.IsZero() && !r.starved {
			l.say(p, wire.LabelAbortRequest{FEC: wire.FEC{r.fec}, RequestID: r.id})
		}
	}
}

// refusedRequest is a notification about a request: to be tried again later, but for what will not change.
func (l *Labels) refusedRequest(p *peer, n wire.Status) {
	for w, r := range l.requests.of {
		if w.peer != p || r.id != n.MessageID {
			continue
		}
		switch n.Code {
		case wire.StatusNoRoute, wire.StatusLoopDetected:
			r.wait = min(max(2*r.wait, minRetry), maxRetry)
			r.due = l.now.Add(r.wait)
		case wire.StatusNoLabelResources:
			r.starved = true
		default:
			delete(l.requests.of, w)
		}
		return
	}
}

// retry sends those requests again that it says, in order.
func (l *Labels) retry(now func(*request) bool) {
	var again []*request
	for _, r := range l.requests.of {
		if now(r) {
			again = append(again, r)
		}
	}
	slices.SortFunc(again, func(a, b *request) int {
		if c := a.peer.id.Compare(b.peer.id); c != 0 {
			return c
		}
		return a.fec.Compare(b.fec.Prefix)
	})
	for _, r := range again {
		if l.lacks(r.wanted) {
			l.send(r)
		} else {
			delete(l.requests.of, r.wanted)
		}
	}
}
