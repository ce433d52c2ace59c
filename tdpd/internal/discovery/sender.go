package discovery

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// target is where hellos go: a group by an interface, or an address.
type target struct {
	iface string
	to    netip.Addr
}

// sender is when they do.
type sender struct {
	asks bool // a targeted one: somebody wants the adjacency here
	gap  time.Duration
	due  time.Time
}

// hellosPerHold is how often hellos are sent in a hold time: two may be lost.
const hellosPerHold = 3

// setSenders makes wanted, which says who asks, all the senders of the kind that is says. New ones are due at once.
func (d *Discovery) setSenders(now time.Time, wanted map[target]bool, is func(target) bool) {
	maps.DeleteFunc(d.senders, func(t target, _ *sender) bool {
		_, stays := wanted[t]
		return is(t) && !stays
	})
	for t, asks := range wanted {
		if d.senders[t] == nil {
			d.senders[t] = &sender{gap: d.proposal(t) / hellosPerHold, due: now}
		}
		d.senders[t].asks = asks
	}
	d.sendDue(now)
}

func (d *Discovery) proposal(t target) time.Duration {
	if t.iface == "" {
		return d.cfg.TargetedHold
	}
	return d.cfg.LinkHold
}

// answer sends targeted hellos to who asked for them.
func (d *Discovery) answer(now time.Time, to netip.Addr) {
	if d.senders[target{"", to}] == nil {
		d.senders[target{"", to}] = &sender{gap: d.cfg.TargetedHold / hellosPerHold, due: now}
		d.sendDue(now)
	}
}

// quicken sends hellos as often as a peer's shorter hold time wants.
func (d *Discovery) quicken(w Where, hold time.Duration) {
	t := target{w.Interface, groupOf(w.Source)}
	if w.Targeted() {
		t.to = w.Source
	}
	if s := d.senders[t]; s != nil && hold/hellosPerHold < s.gap {
		s.gap = hold / hellosPerHold
		if soon := s.due.Add(s.gap - d.proposal(t)/hellosPerHold); soon.Before(s.due) {
			s.due = soon
		}
	}
}

// hurry sends hellos on a link at once where somebody new is: who has not heard of us refuses our session.
func (d *Discovery) hurry(now time.Time, w Where) {
	if s := d.senders[target{w.Interface, groupOf(w.Source)}]; s != nil && !w.Targeted() {
		s.due = now
		d.sendDue(now)
	}
}

func (d *Discovery) dual() bool { return d.cfg.Transport4.IsValid() && d.cfg.Transport6.IsValid() }

func (d *Discovery) sendDue(now time.Time) {
	due := slices.DeleteFunc(slices.Collect(maps.Keys(d.senders)), func(t target) bool { return now.Before(d.senders[t].due) })
	slices.SortFunc(due, func(a, b target) int { return cmp.Or(cmp.Compare(a.iface, b.iface), a.to.Compare(b.to)) })
	for _, t := range due {
		s := d.senders[t]
		d.actions = append(d.actions, Send{Interface: t.iface, To: t.to, Hello: d.hello(t, s)})
		s.due = now.Add(s.gap)
	}
}

// hello is what this router says of itself.
func (d *Discovery) hello(t target, s *sender) wire.Hello {
	d.said++
	h := wire.Hello{Head: wire.Head{ID: d.said}, HelloParameters: wire.HelloParameters{
		HoldTime: uint16(d.proposal(t) / time.Second), Targeted: t.iface == "", RequestTargeted: s.asks, GTSM: d.cfg.GTSM && t.iface != "",
	}}
	if t.to.Is4() {
		h.IPv4Transport = d.cfg.Transport4
	} else {
		h.IPv6Transport = d.cfg.Transport6
	}
	if d.dual() {
		h.Preference = d.cfg.Prefer
	}
	return h
}
