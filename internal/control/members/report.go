package members

import (
	"container/heap"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/control/wire"
	controlv1 "github.com/manycast/manycast/proto/control/v1"
)

// Bounds of what a report may say.
const (
	maxWhy   = 200 // bytes
	maxLoads = 64  // services
)

// report takes a member's word of itself. Only here members become known, and known ones get another boot.
func (m *Members) report(now, wall time.Time, iface string, source netip.Addr, o wire.Origin, message wire.Message) ([]control.Event, error) {
	p, err := m.certified(wall, source, o, message.Certificate)
	if err != nil {
		return nil, err
	}
	if p.Boot == o.Boot && p.spoken.old(o.Number) {
		return nil, fmt.Errorf("%w: report %d of %s", Replayed, o.Number, p.Name)
	}
	if !message.Verify(o, p.public) {
		return nil, fmt.Errorf("%w: report %d of %s", BadSignature, o.Number, p.Name)
	}
	var r controlv1.Report
	if err := proto.Unmarshal(message.Body, &r); err != nil {
		return nil, fmt.Errorf("%w: report of %s: %w", Malformed, p.Name, err)
	}
	anchors, err := anchorsOf(&r)
	if err != nil {
		return nil, fmt.Errorf("report of %s: %w", p.Name, err)
	}
	if p.Boot != o.Boot || len(p.anchors) == 0 {
		if err := m.timely(p, &r, wall); err != nil {
			return nil, err
		}
		if err := m.enter(now, p, o); err != nil {
			return nil, err
		}
	}
	p.spoken.add(o.Number)
	p.anchor(anchors)
	p.stamp = max(p.stamp, r.GetTimeUnixNano())
	m.counted.Messages++
	if o.Number < p.said { // a later one has overtaken it
		m.alive(now, iface, p)
		return nil, nil
	}
	p.said = o.Number
	p.say(&r)
	m.alive(now, iface, p)
	m.pauses(now, p, min(time.Duration(r.GetPauseMs())*time.Millisecond, MaxPause))
	return changed(p, true), nil
}

// pauses takes how long a member says that it will be silent for; 0: it is back. Heartbeats that follow do not take it back.
func (m *Members) pauses(now time.Time, p *member, d time.Duration) {
	if d > 0 {
		p.Paused = now.Add(d)
		return
	}
	p.Paused = time.Time{}
	if soon := now.Add(m.cfg.DeadAfter); soon.Before(p.due) { // it was to be looked at when the pause was over
		p.due = soon
		heap.Fix(&m.queue, p.index)
	}
}

// certified finds the member whom the certificate names: the one that is known, or a new one that nobody knows so far.
func (m *Members) certified(wall time.Time, source netip.Addr, o wire.Origin, raw []byte) (*member, error) {
	if p := m.byID[o.Sender]; p != nil && p.public != nil {
		if !wall.Before(p.notAfter) {
			return nil, fmt.Errorf("%w: %s", ExpiredCertificate, p.Name)
		}
		return p, nil
	}
	c, err := identity.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", BadCertificate, err)
	}
	if c.ID() != o.Sender {
		return nil, fmt.Errorf("%w: of %v, sent by %v", BadCertificate, c.ID(), o.Sender)
	}
	if c.Address != source {
		return nil, fmt.Errorf("%w: %s by %v", WrongSource, c.Name, source)
	}
	switch err := c.Verify(m.cfg.Authority, wall); {
	case errors.Is(err, identity.ErrExpired):
		return nil, fmt.Errorf("%w: %w", ExpiredCertificate, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", BadCertificate, err)
	}
	p := &member{Member: control.Member{Name: c.Name, Role: c.Role, Leader: c.Leader, Address: c.Address}, id: o.Sender, public: c.Public, notAfter: c.NotAfter}
	if old := m.byName[c.Name]; old != nil { // another certificate, or one that is known by name alone
		p.stamp = old.stamp
	}
	return p, nil
}

// timely says whether a report may begin a life: nothing that was recorded before this process listened, or of a life before
// the one that is known, is later than both.
func (m *Members) timely(p *member, r *controlv1.Report, wall time.Time) error {
	at := time.Unix(0, r.GetTimeUnixNano())
	if off := wall.Sub(at).Abs(); off > m.cfg.Skew {
		return fmt.Errorf("%w: the clock of %s is %v off, at most %v", NotTimely, p.Name, off.Round(time.Millisecond), m.cfg.Skew)
	}
	if at.Before(m.cfg.Started) {
		return fmt.Errorf("%w: report of %s from before the start", NotTimely, p.Name)
	}
	if r.GetTimeUnixNano() <= p.stamp {
		return fmt.Errorf("%w: of %s, a later one is known", StaleBoot, p.Name)
	}
	return nil
}

// enter begins a life of a member. One whose certificate is another takes the place of the one before it.
func (m *Members) enter(now time.Time, p *member, o wire.Origin) error {
	old := m.byName[p.Name]
	if old == nil && len(m.byName) >= m.cfg.Members {
		return fmt.Errorf("%w: %d members", Full, len(m.byName))
	}
	if old != nil && old != p {
		p.Health, p.Since, p.Heard = old.Health, old.Since, old.Heard
		heap.Remove(&m.queue, old.index)
		delete(m.byID, old.id)
	}
	if old != p {
		m.byName[p.Name], m.byID[p.id] = p, p
		p.due = now.Add(m.cfg.DeadAfter)
		heap.Push(&m.queue, p)
	}
	p.Boot, p.anchors, p.spoken, p.said = o.Boot, nil, window{}, 0
	return nil
}

// anchor takes the positions that a report vouches for. A chain is never set back: reports may overtake each other.
func (p *member) anchor(told []wire.Anchor) {
	if len(p.anchors) > 0 && told[0].Index < p.anchors[0].Index {
		return
	}
	p.anchors = told
}

func anchorsOf(r *controlv1.Report) ([]wire.Anchor, error) {
	var out []wire.Anchor
	for _, c := range []*controlv1.Chain{r.GetChain(), r.GetNext()} {
		if c == nil && len(out) > 0 {
			continue // no next one so far
		}
		if len(c.GetSalt()) != len(wire.Salt{}) || len(c.GetElement()) != len(wire.Element{}) {
			return nil, fmt.Errorf("%w: chain with a salt of %d and an element of %d bytes", Malformed, len(c.GetSalt()), len(c.GetElement()))
		}
		out = append(out, wire.Anchor{Salt: wire.Salt(c.GetSalt()), Index: c.GetIndex(), Element: wire.Element(c.GetElement())})
	}
	return out, nil
}

// say takes over what the report says of its sender.
func (p *member) say(r *controlv1.Report) {
	p.reported, p.Why = control.Available, ""
	if h := r.GetHealth(); h != controlv1.Health_HEALTH_OK {
		p.reported, p.Why = control.Unwell, why(h, r.GetWhy())
	}
	p.Loads = nil
	for i, l := range r.GetLoads() {
		if i == maxLoads {
			break
		}
		if p.Loads == nil {
			p.Loads = make(map[string]alloc.Load, min(len(r.GetLoads()), maxLoads))
		}
		p.Loads[l.GetService()] = alloc.LoadFromProto(l.GetLoad())
	}
}

func why(h controlv1.Health, text string) string {
	if text == "" {
		text = map[controlv1.Health]string{
			controlv1.Health_HEALTH_FENCED: "fenced", controlv1.Health_HEALTH_LEAVING: "leaving",
		}[h]
	}
	if len(text) > maxWhy {
		text = text[:maxWhy]
	}
	if text == "" {
		return "unwell"
	}
	return text
}
