package labels

import (
	"net/netip"
	"slices"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// settleLocal binds or unbinds this router's own label.
func (l *Labels) settleLocal(f *fec) {
	want, wanting := f.local, false
	switch {
	case !f.routed || l.cfg.Allocate != nil && !l.cfg.Allocate(f.prefix):
		want = NoLabel
	case f.kind == Attached && l.isTransport(f.prefix):
		want = wire.LabelImplicitNull
	case f.kind == Attached:
		want = l.null(f.family())
	case f.kind == Transit && (f.hops == nil || l.cfg.Ordered) && !f.hasDownstream():
		want = NoLabel
	case !isReal(f.local) || l.foreign[f.local]:
		want = l.allocate(f)
		wanting = want == NoLabel
	}
	if f.waits != nil && !wanting {
		l.waiting.Remove(f.waits)
		f.waits = nil
	}
	if want != f.local {
		l.bind(f, want)
	}
}

// isReal says whether the label is one of those that are given out.
func isReal(label wire.Label) bool { return label >= wire.LabelFirst && label <= wire.LabelLast }

func (l *Labels) isTransport(p netip.Prefix) bool {
	return p.IsSingleIP() && slices.Contains(l.cfg.Transports, p.Addr())
}

// null is what an attached FEC is bound to.
func (l *Labels) null(family wire.AddressFamily) wire.Label {
	switch {
	case !l.cfg.ExplicitNull:
		return wire.LabelImplicitNull
	case family == wire.IPv4:
		return wire.LabelExplicitNullIPv4
	}
	return wire.LabelExplicitNullIPv6
}

func (l *Labels) bind(f *fec, label wire.Label) {
	if f.local != NoLabel {
		l.event(Unbound, nil, f, f.local)
	}
	f.local = label
	if label != NoLabel {
		l.event(Bound, nil, f, label)
	}
	l.change(f)
}

// allocate prefers the label that the FEC had: what upstream still has of it then stays true.
func (l *Labels) allocate(f *fec) wire.Label {
	for _, s := range f.sent {
		if isReal(s.label) && !l.foreign[s.label] {
			return s.label
		}
	}
	if label, ok := l.restored[f.prefix]; ok {
		delete(l.restored, f.prefix)
		if !l.foreign[label] {
			return label
		}
	}
	if label, ok := l.allocator.next(); ok {
		return label
	}
	if f.waits == nil {
		f.waits = l.waiting.PushBack(f)
	}
	if !l.exhausted {
		l.exhausted = true
		l.warn(nil, "no label left of %d to %d: FECs stay without one until others are released; widen the range of labels", l.cfg.First, l.cfg.Last)
	}
	return NoLabel
}

// freeUnused gives a label back that neither the FEC nor a peer has any more.
func (l *Labels) freeUnused(f *fec, label wire.Label) {
	if !isReal(label) || f.local == label {
		return
	}
	if slices.ContainsFunc(f.sent, func(s sent) bool { return s.label == label }) {
		return
	}
	l.actions = append(l.actions, Freed{f.prefix, label})
	if f.routed {
		l.change(f) // it was on its way out
	}
	if !l.foreign[label] {
		l.allocator.release(label)
	}
}

// serveWaiting gives labels to FECs that had to do without, first come, first served, and tells those who asked in vain.
func (l *Labels) serveWaiting() {
	if !l.exhausted {
		return
	}
	for l.allocator.free() > 0 && l.waiting.Len() > 0 {
		f, ok := l.waiting.Remove(l.waiting.Front()).(*fec)
		if ok {
			f.waits = nil
			l.settle(f)
		}
	}
	if l.allocator.free() == 0 {
		return
	}
	l.exhausted = false
	for _, p := range l.peers {
		if p.starved {
			p.starved = false
			l.say(p, wire.Notification{Status: wire.NewStatus(wire.StatusLabelResourcesAvailable)})
		}
	}
}
