package labels

import (
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// wildcardEvery is how long after a typed wildcard request was answered another one of the peer and the family is: all there is is the
// answer to each.
const wildcardEvery = 10 * time.Second

// asked is a peer's request that cannot be answered yet; one a peer.
type asked struct {
	peer *peer
	id   uint32
}

// unask forgets a peer's request and gives its ID.
func (f *fec) unask(p *peer) *uint32 {
	i := slices.IndexFunc(f.asked, func(a asked) bool { return a.peer == p })
	if i < 0 {
		return nil
	}
	id := f.asked[i].id
	f.asked = slices.Delete(f.asked, i, i+1)
	return &id
}

// requested is a peer's Label Request (RFC 5036 section 3.5.8, A.1.1). It is answered though the peer may have the binding.
func (l *Labels) requested(p *peer, m wire.LabelRequest) {
	if l.looped(attributesIn(m.HopCount, m.PathVector)) {
		l.stats.Loops++
		l.refuseRequest(p, wire.StatusLoopDetected, m.ID)
		return
	}
	for _, e := range m.FEC {
		switch x := e.(type) {
		case wire.Prefix:
			if status := l.request(l.fecs[x.Prefix], p, m.ID); status != wire.StatusSuccess {
				l.refuseRequest(p, status, m.ID)
			}
		case wire.TypedWildcard:
			w := p.wildcards[x.Family]
			p.wildcards[x.Family] = wildcard{id: m.ID, waits: true, from: w.from}
		}
	}
	l.answerWildcards(p)
}

// wildcard is what a peer has asked with a typed wildcard of a family. Of several requests that wait the last is answered.
type wildcard struct {
	id    uint32
	waits bool
	from  time.Time // it is not answered before
}

func (w wildcard) due(now time.Time) bool { return w.waits && !now.Before(w.from) }

// answerWildcards answers with whatever there is (RFC 5918 section 4).
func (l *Labels) answerWildcards(p *peer) {
	due := map[wire.AddressFamily]uint32{}
	for family, w := range p.wildcards {
		if w.due(l.now) {
			due[family] = w.id
			p.wildcards[family] = wildcard{from: l.now.Add(wildcardEvery)}
		}
	}
	if len(due) == 0 {
		return
	}
	for _, f := range l.sorted() {
		if id, asked := due[f.family()]; asked && l.advertises(f, p) {
			f.ask(p, id)
			l.offer(f, p, l.labelFor(f, p), false)
		}
	}
}

// request answers with a mapping or remembers the request; else it says what is wrong.
func (l *Labels) request(f *fec, p *peer, id uint32) wire.StatusCode {
	switch {
	case f == nil || !l.mayAdvertise(f, p):
		return wire.StatusNoRoute
	case f.leadsBack(p):
		return wire.StatusLoopDetected
	case f.waits != nil:
		p.starved = true
		return wire.StatusNoLabelResources
	}
	f.ask(p, id)
	if l.advertises(f, p) {
		l.offer(f, p, l.labelFor(f, p), false)
	}
	return wire.StatusSuccess
}

func (f *fec) ask(p *peer, id uint32) {
	f.unask(p)
	f.asked = append(f.asked, asked{p, id})
}

// mayAdvertise is advertises for FECs that have no label yet.
func (l *Labels) mayAdvertise(f *fec, p *peer) bool {
	return f.routed && (f.kind != Transit || f.hops != nil) && p.families.has(f.family()) && (l.cfg.Allocate == nil || l.cfg.Allocate(f.prefix)) &&
		(l.cfg.Advertise == nil || l.cfg.Advertise(f.prefix, p.id))
}

// leadsBack says whether all ways go by the peer.
func (f *fec) leadsBack(p *peer) bool {
	return f.uses(p) && f.hops != nil && !slices.ContainsFunc(f.hops.peers, func(q *peer) bool { return q != p })
}

func (l *Labels) refuseRequest(p *peer, why wire.StatusCode, id uint32) {
	status := wire.NewStatus(why)
	status.MessageID, status.MessageType = id, wire.TypeLabelRequest
	l.say(p, wire.Notification{Status: status})
}

// answerUnrouted answers requests for a FEC whose route is gone.
func (l *Labels) answerUnrouted(f *fec) {
	for _, a := range f.asked {
		l.refuseRequest(a.peer, wire.StatusNoRoute, a.id)
	}
	f.asked = nil
}

// aborted is a peer's Label Abort Request (RFC 5036 section 3.5.9): nothing follows where the request was answered already.
func (l *Labels) aborted(p *peer, m wire.LabelAbortRequest) {
	for _, f := range l.named(m.FEC) {
		if !slices.Contains(f.asked, asked{p, m.RequestID}) {
			continue
		}
		f.unask(p)
		status := wire.NewStatus(wire.StatusLabelRequestAborted)
		status.MessageID, status.MessageType = m.ID, wire.TypeLabelAbortRequest
		l.say(p, wire.Notification{Status: status, RequestID: &m.RequestID})
	}
}
