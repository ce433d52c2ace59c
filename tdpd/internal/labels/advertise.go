package labels

import (
	"math"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// advertises says whether a peer is to have this router's binding.
func (l *Labels) advertises(f *fec, p *peer) bool {
	return f.local != NoLabel && p.families.has(f.family()) && !f.cameFrom(p) && (l.cfg.Advertise == nil || l.cfg.Advertise(f.prefix, p.id))
}

// settlePeer has a peer know what it is to know: the label that holds comes before the withdrawal of one that does not, so that it
// is never without. news: something but the label has changed.
func (l *Labels) settlePeer(f *fec, p *peer, news bool) {
	want := NoLabel
	if l.advertises(f, p) {
		want = l.labelFor(f, p)
		l.offer(f, p, want, news)
	}
	l.retract(f, p, want)
}

func (l *Labels) offer(f *fec, p *peer, label wire.Label, news bool) {
	if !p.up { // it is offered all when it is back
		return
	}
	id := f.unask(p)
	i := f.sentTo(p, label)
	if i < 0 {
		i = len(f.sent)
		f.sent = append(f.sent, sent{peer: p, label: label, state: withdrawn})
	}
	if s := &f.sent[i]; news || id != nil || s.state >= withdrawn {
		s.state = held
		l.say(p, l.mapping(f, p, label, id))
	}
}

func (l *Labels) mapping(f *fec, p *peer, label wire.Label, request *uint32) wire.LabelMapping {
	m := wire.LabelMapping{FEC: wire.FEC{wire.Prefix{Prefix: f.prefix}}, Label: label, RequestID: request}
	if f.attrs != nil {
		if f.attrs.counted {
			m.HopCount = &f.attrs.hops
		}
		if p.loops {
			m.PathVector = f.attrs.path
		}
	}
	return m
}

// retract withdraws all labels but one.
func (l *Labels) retract(f *fec, p *peer, but wire.Label) {
	for i := range f.sent {
		s := &f.sent[i]
		if s.peer != p || s.label == but || s.state == withdrawn {
			continue
		}
		label := s.label
		s.state = withdrawn
		s.pending += min(1, math.MaxUint8-s.pending)
		l.say(p, wire.LabelWithdraw{FEC: wire.FEC{wire.Prefix{Prefix: f.prefix}}, Label: &label})
	}
}
