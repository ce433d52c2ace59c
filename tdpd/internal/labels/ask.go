package labels

import (
	"container/heap"
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
	id      uint32    // of the last message
	due     time.Time // zero: not by itself
	at      int       // in putOff, where it is due
	wait    time.Duration
	starved bool // the peer has no labels, and is to say when it has
}

// wanted names a request: there is one for each.
type wanted struct {
	peer *peer
	fec  wire.Prefix
}

// requests are all. There may be one of each FEC.
type requests struct {
	of   map[wanted]*request
	byID map[uint32]*request
	off  putOff // those to be sent again later
	id   uint32 // of the last
}

func newRequests() requests {
	return requests{of: map[wanted]*request{}, byID: map[uint32]*request{}, id: firstRequest - 1}
}

// remove forgets a request.
func (r *requests) remove(x *request) {
	delete(r.of, x.wanted)
	delete(r.byID, x.id)
	r.delay(x, time.Time{})
}

// delay has a request sent again at a time; zero: not by itself.
func (r *requests) delay(x *request, until time.Time) {
	if !x.due.IsZero() {
		heap.Remove(&r.off, x.at)
	}
	if x.due = until; !until.IsZero() {
		heap.Push(&r.off, x)
	}
}

// next is when the first is due; zero: never.
func (r *requests) next() time.Time {
	if len(r.off) == 0 {
		return time.Time{}
	}
	return r.off[0].due
}

// putOff is a heap of requests: the first is due first.
type putOff []*request

func (o putOff) Len() int           { return len(o) }
func (o putOff) Less(i, j int) bool { return o[i].due.Before(o[j].due) }
func (o putOff) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].at, o[j].at = i, j
}

// Push implements heap.Interface.
func (o *putOff) Push(x any) {
	r := x.(*request)
	r.at = len(*o)
	*o = append(*o, r)
}

// Pop implements heap.Interface.
func (o *putOff) Pop() any {
	n := len(*o) - 1
	r := (*o)[n]
	*o = (*o)[:n]
	return r
}

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
	delete(l.requests.byID, r.id)
	l.requests.delay(r, time.Time{})
	r.id, r.starved = l.sayRequest(r.peer, r.fec), false
	l.requests.byID[r.id] = r
}

func (r *requests) answered(p *peer, x wire.Prefix) {
	if x := r.of[wanted{p, x}]; x != nil {
		r.remove(x)
	}
}

func (r *requests) forget(p *peer) {
	for _, x := range r.of {
		if x.peer == p {
			r.remove(x)
		}
	}
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
		open := r.due.IsZero() && !r.starved
		l.requests.remove(r)
		if open {
			l.say(p, wire.LabelAbortRequest{FEC: wire.FEC{r.fec}, RequestID: r.id})
		}
	}
}

// refusedRequest is a notification about a request: to be tried again later, but for what will not change.
func (l *Labels) refusedRequest(p *peer, n wire.Status) {
	r := l.requests.byID[n.MessageID]
	if r == nil || r.peer != p {
		return
	}
	switch n.Code {
	case wire.StatusNoRoute, wire.StatusLoopDetected:
		r.wait = min(max(2*r.wait, minRetry), maxRetry)
		l.requests.delay(r, l.now.Add(r.wait))
	case wire.StatusNoLabelResources:
		r.starved = true
	default:
		l.requests.remove(r)
	}
}

// retryDue sends those again whose time has come.
func (l *Labels) retryDue() {
	if next := l.requests.next(); !next.IsZero() && !l.now.Before(next) {
		l.retry(func(r *request) bool { return !r.due.IsZero() && !l.now.Before(r.due) })
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
			l.requests.remove(r)
		}
	}
}
