package labels

import (
	"slices"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// mapped is a peer's Label Mapping (RFC 5036 section 3.5.7, A.1.2). It is kept whatever the next hop: liberal retention.
func (l *Labels) mapped(p *peer, m wire.LabelMapping) {
	attrs := attributesIn(m.HopCount, m.PathVector)
	for _, e := range m.FEC {
		x, ok := e.(wire.Prefix)
		if !ok || !usable(x.Prefix) {
			l.stats.Ignored++
			continue
		}
		l.requests.answered(p, x)
		if status := l.refuses(p, x, m.Label, attrs); status != nil {
			l.reject(p, x, m.Label, *status)
		} else {
			l.learn(l.fec(x.Prefix), p, m.Label, attrs)
		}
	}
}

// refuses says why a binding is not kept; nil: it is. StatusSuccess stands for reasons that the peer is not told.
func (l *Labels) refuses(p *peer, x wire.Prefix, label wire.Label, attrs *attributes) *wire.Status {
	status := wire.NewStatus(wire.StatusSuccess)
	switch f := l.fecs[x.Prefix]; {
	case wrongLabel(x, label):
		l.stats.Ignored++
		l.complain(p, ofLabels, "label %v for %v, which it cannot stand for: released", label, x)
	case l.cfg.Accept != nil && !l.cfg.Accept(x.Prefix, p.id):
	case l.looped(attrs):
		l.stats.Loops++
		status.Code = wire.StatusLoopDetected
	case (p.kept >= l.cfg.MaxBindings || l.kept >= l.cfg.AllBindings) && (f == nil || f.of(p) < 0):
		l.turnAway(p)
		status.Code = wire.StatusNoLabelResources
	default:
		return nil
	}
	return &status
}

// wrongLabel is for what the codec cannot see: null labels of the other family (RFC 3032 section 2.1).
func wrongLabel(x wire.Prefix, label wire.Label) bool {
	family := wire.FamilyOf(x.Addr())
	return !label.Valid() ||
		label == wire.LabelExplicitNullIPv4 && family != wire.IPv4 ||
		label == wire.LabelExplicitNullIPv6 && family != wire.IPv6
}

// reject releases the label of a mapping; one that the peer bound to the FEC before holds no longer, either.
func (l *Labels) reject(p *peer, x wire.Prefix, label wire.Label, status wire.Status) {
	if f := l.fecs[x.Prefix]; f != nil {
		if i := f.of(p); i >= 0 {
			if old := f.remote[i].label; old != label {
				l.release(p, x, old, nil)
			}
			l.lose(f, i)
		}
	}
	if status.Code == wire.StatusSuccess {
		l.release(p, x, label, nil)
		return
	}
	l.release(p, x, label, &status)
}

func (l *Labels) learn(f *fec, p *peer, label wire.Label, attrs *attributes) {
	i := f.of(p)
	switch {
	case i < 0:
		i = len(f.remote)
		f.remote = append(f.remote, binding{peer: p, label: NoLabel})
		p.kept++
		l.kept++
	case f.remote[i].label == label && f.remote[i].attrs.equal(attrs):
		f.remote[i].stale = false
		return
	case f.remote[i].label != label:
		if !f.remote[i].stale { // of a former life the peer knows nothing
			l.release(p, wire.Prefix{Prefix: f.prefix}, f.remote[i].label, nil)
		}
		l.event(Lost, p, f, f.remote[i].label)
	}
	if f.remote[i].label != label {
		l.event(Learned, p, f, label)
		if f.uses(p) {
			l.change(f)
		}
	}
	f.remote[i] = binding{peer: p, label: label, attrs: attrs}
	if f.uses(p) {
		l.settle(f)
	}
}

// lose forgets the binding at i.
func (l *Labels) lose(f *fec, i int) {
	p := f.remote[i].peer
	l.event(Lost, p, f, f.remote[i].label)
	f.remote = slices.Delete(f.remote, i, i+1)
	p.kept--
	l.kept--
	if f.uses(p) {
		l.change(f)
		l.settle(f)
		return
	}
	l.forget(f)
}

// withdrawn is a peer's Label Withdraw (RFC 5036 section 3.5.10, A.1.5): it is always answered, known or not.
func (l *Labels) withdrawn(p *peer, m wire.LabelWithdraw) {
	for _, f := range l.named(m.FEC) {
		if i := f.of(p); i >= 0 && (m.Label == nil || f.remote[i].label == *m.Label) {
			l.lose(f, i)
		}
	}
	l.say(p, wire.LabelRelease{FEC: m.FEC, Label: m.Label})
}

// turnAway counts a binding beyond the limit, and warns once an episode.
func (l *Labels) turnAway(p *peer) {
	l.stats.TurnedAway++
	if p.full {
		return
	}
	p.full = true
	if p.kept >= l.cfg.MaxBindings {
		l.warn(p, "more than %d bindings: the others are released; raise limits.bindings, or filter what is accepted", l.cfg.MaxBindings)
	} else {
		l.warn(p, "more than %d bindings of all neighbors: the others are released; raise limits.all_bindings, or filter what is accepted", l.cfg.AllBindings)
	}
}

// fillRoom asks peers again for what was turned away, when there is room for an eighth more.
func (l *Labels) fillRoom() {
	for _, p := range l.peers {
		if p.full && p.up && hasRoom(p.kept, l.cfg.MaxBindings) && hasRoom(l.kept, l.cfg.AllBindings) {
			p.full = false
			l.askAgain(p)
		}
	}
}

func hasRoom(kept, most int) bool { return kept <= most-max(1, most/8) }
