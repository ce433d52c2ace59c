package members

import (
	"container/heap"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/control/wire"
)

// Frame takes one UDP payload that came in by iface from source. now is for intervals, wall for what others' clocks say. The error
// wraps the Reason of a refusal; members are as they were then.
func (m *Members) Frame(now, wall time.Time, iface string, source netip.Addr, raw []byte) ([]control.Event, error) {
	m.awake(now)
	events, err := m.frame(now, wall, iface, source, raw)
	if err != nil {
		var reason Reason
		errors.As(err, &reason)
		m.counted.Refused[reason]++
		return nil, err
	}
	return events, nil
}

// frame does the cheap checks first: whoever has no key costs one MAC.
func (m *Members) frame(now, wall time.Time, iface string, source netip.Addr, raw []byte) ([]control.Event, error) {
	f, err := wire.Parse(raw)
	switch {
	case errors.Is(err, wire.ErrVersion), errors.Is(err, wire.ErrType):
		return nil, fmt.Errorf("%w: %w", Version, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", Malformed, err)
	case f.Sender == m.cfg.Self:
		return nil, nil
	}
	if err := m.authentic(f, raw); err != nil {
		return nil, err
	}
	p := m.byID[f.Sender]
	if p != nil && p.Address != source {
		return nil, fmt.Errorf("%w: %s by %v", WrongSource, p.Name, source)
	}
	if f.Type == wire.Heartbeat {
		return m.heartbeat(now, iface, p, f)
	}
	return m.part(now, wall, iface, source, p, f)
}

func (m *Members) authentic(f wire.Frame, raw []byte) error {
	reason := NoKey
	for _, k := range m.keys {
		if k.ID != f.KeyID {
			continue
		}
		if k.Verify(raw) {
			return nil
		}
		reason = BadMAC
	}
	return fmt.Errorf("%w: key %08x of sender %v", reason, f.KeyID, f.Sender)
}

func (m *Members) heartbeat(now time.Time, iface string, p *member, f wire.Frame) ([]control.Event, error) {
	switch {
	case p == nil:
		return nil, fmt.Errorf("%w: %v", UnknownSender, f.Sender)
	case p.Boot != f.Boot || len(p.anchors) == 0:
		return nil, fmt.Errorf("%w: of %s", StaleBoot, p.Name)
	}
	last := &p.anchors[0]
	if f.Sequence == last.Index && f.Element == last.Element {
		m.counted.Copies++
		return copied(now, iface, p), nil
	}
	if f.Sequence <= last.Index {
		return nil, fmt.Errorf("%w: heartbeat %d of %s after %d", Replayed, f.Sequence, p.Name, last.Index)
	}
	if !p.advance(f.Sequence, f.Element) {
		return nil, fmt.Errorf("%w: heartbeat %d of %s after %d", BadChain, f.Sequence, p.Name, last.Index)
	}
	m.counted.Heartbeats++
	return m.alive(now, iface, p), nil
}

// copied takes what was heard before. It shows another way to the member, if it is as old as the original: whoever keeps a frame and
// sends it again elsewhere later shows nothing.
func copied(now time.Time, iface string, p *member) []control.Event {
	if now.Sub(p.Heard) > copyWithin {
		return nil
	}
	return changed(p, p.hearVia(now, iface))
}

// advance follows the chain, or the one after it.
func (p *member) advance(index uint64, e wire.Element) bool {
	for i, a := range p.anchors {
		if a.Leads(index, e) {
			p.anchors = p.anchors[i:]
			p.anchors[0].Index, p.anchors[0].Element = index, e
			return true
		}
	}
	return false
}

// alive is what everything that is certainly new of a member does.
func (m *Members) alive(now time.Time, iface string, p *member) []control.Event {
	m.heard = now
	if m.others.IsZero() {
		m.others = now
	}
	another := p.hear(now, iface)
	was := p.Health
	another = p.set(now, p.reported) || another
	if was == control.Silent || was == control.Unknown {
		p.due = now.Add(m.cfg.DeadAfter)
		heap.Fix(&m.queue, p.index)
	}
	return changed(p, another)
}

func changed(p *member, yes bool) []control.Event {
	if !yes {
		return nil
	}
	return []control.Event{control.Changed{Member: p.Member}}
}

func (m *Members) part(now, wall time.Time, iface string, source netip.Addr, p *member, f wire.Frame) ([]control.Event, error) {
	if p != nil && p.Boot == f.Boot && p.spoken.has(f.Sequence) {
		return copied(now, iface, p), nil // the second sending, or another way
	}
	raw, err := m.parts.add(now, f)
	if raw == nil {
		return nil, err
	}
	if !m.affords(now, iface, p) {
		return nil, fmt.Errorf("%w: message %d of %v by %s", RateLimited, f.Sequence, f.Sender, iface)
	}
	message, err := wire.ParseMessage(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", Malformed, err)
	}
	o := wire.Origin{Group: m.cfg.Group, Sender: f.Sender, Boot: f.Boot, Number: f.Sequence}
	if message.Kind == control.KindReport {
		return m.report(now, wall, iface, source, o, message)
	}
	return m.message(now, iface, p, o, message)
}

// message takes anything but a report: its sender is known, by its boot.
func (m *Members) message(now time.Time, iface string, p *member, o wire.Origin, message wire.Message) ([]control.Event, error) {
	switch {
	case p == nil:
		return nil, fmt.Errorf("%w: %v", UnknownSender, o.Sender)
	case p.Boot != o.Boot || len(p.anchors) == 0:
		return nil, fmt.Errorf("%w: of %s", StaleBoot, p.Name)
	case p.spoken.old(o.Number):
		return nil, fmt.Errorf("%w: message %d of %s", Replayed, o.Number, p.Name)
	case !message.Kind.Known():
		return nil, fmt.Errorf("%w: kind %d of %s", Version, message.Kind, p.Name)
	case !allowed(p.Member, message.Kind):
		return nil, fmt.Errorf("%w: kind %d of %s", NotAllowed, message.Kind, p.Name)
	case !message.Verify(o, p.public):
		return nil, fmt.Errorf("%w: message %d of %s", BadSignature, o.Number, p.Name)
	}
	p.spoken.add(o.Number)
	m.counted.Messages++
	events := m.alive(now, iface, p)
	return append(events, control.Received{From: p.Member, Kind: message.Kind, Body: message.Body}), nil
}

// allowed says who may say what.
func allowed(p control.Member, kind control.Kind) bool {
	switch kind {
	case control.KindAnnounce, control.KindCommit:
		return p.Leader
	case control.KindPrepared, control.KindCeased, control.KindDone, control.KindTakeover,
		control.KindAsk, control.KindQuery, control.KindVerdict, control.KindStray, control.KindHolder:
		return p.Role == control.Server
	}
	return false
}

// window remembers which of the last 64 numbers were seen (RFC 4303 section 3.4.3).
type window struct {
	top  uint64
	bits uint64 // bit i: top-i was seen
}

// has says that n was seen, and old that it was seen or is too old to tell.
func (w window) has(n uint64) bool { return n <= w.top && w.top-n < 64 && w.bits>>(w.top-n)&1 == 1 }
func (w window) old(n uint64) bool { return n <= w.top && (w.top-n >= 64 || w.has(n)) }

func (w *window) add(n uint64) {
	if n > w.top {
		if n-w.top >= 64 {
			w.bits = 0
		} else {
			w.bits <<= n - w.top
		}
		w.top = n
	}
	w.bits |= 1 << (w.top - n)
}

// origin names a message while its parts come in.
type origin struct {
	sender identity.ID
	boot   uint64
	number uint64
}
