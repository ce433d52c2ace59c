package labels

import (
	"slices"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// released is a peer's Label Release (RFC 5036 section 3.5.11, A.1.4): the answer to a withdrawal, or of its own will.
func (l *Labels) released(p *peer, m wire.LabelRelease) {
	if m.Status != nil && m.Status.Code == wire.StatusLoopDetected {
		l.stats.Loops++
	}
	for _, f := range l.named(m.FEC) {
		l.releasedOne(f, p, m.Label)
	}
}

// releasedOne counts a release as the answer where one is due: behind a withdrawal, the binding may have been sent again since.
func (l *Labels) releasedOne(f *fec, p *peer, label *wire.Label) {
	for i := len(f.sent) - 1; i >= 0; i-- {
		s := &f.sent[i]
		if s.peer != p || label != nil && s.label != *label {
			continue
		}
		if s.pending == 0 {
			s.state = refused
			continue
		}
		if s.pending--; s.pending == 0 && s.state == withdrawn {
			of := s.label
			f.sent = slices.Delete(f.sent, i, i+1)
			l.freeUnused(f, of)
		}
	}
	l.forget(f)
}

// named gives the FECs that are known of those that an element stands for.
func (l *Labels) named(list wire.FEC) []*fec {
	var out []*fec
	for _, e := range list {
		switch e := e.(type) {
		case wire.Prefix:
			if f := l.fecs[e.Prefix]; f != nil {
				out = append(out, f)
			}
		case wire.Wildcard:
			return l.sorted()
		case wire.TypedWildcard:
			return slices.DeleteFunc(l.sorted(), func(f *fec) bool { return f.family() != e.Family })
		}
	}
	return out
}

// release tells a peer that its label is not kept; status says why, nil: it need not be said.
func (l *Labels) release(p *peer, e wire.FECElement, label wire.Label, status *wire.Status) {
	l.say(p, wire.LabelRelease{FEC: wire.FEC{e}, Label: &label, Status: status})
}
