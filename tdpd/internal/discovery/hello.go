package discovery

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// Reason says why a hello was refused; it stands in counters. It is an error.
type Reason string

// Error is the reason in words.
func (r Reason) Error() string { return string(r) }

// Reasons.
const (
	NoInterface  Reason = "no_interface"  // LDP does not run there
	NotAccepted  Reason = "not_accepted"  // targeted, and neither configured nor accepted
	NotAsked     Reason = "not_asked"     // targeted without a request, by somebody whom we do not ask either
	Own          Reason = "own_id"        // our own LDP identifier, by somebody else
	Conflict     Reason = "id_conflict"   // two peers with one identifier, or with one transport address
	NoTransport  Reason = "no_transport"  // we have no sessions of that family
	BadTransport Reason = "bad_transport" // the transport address is of another family, or none that a session could be with
	PlatformWide Reason = "label_space"   // an interface's own label space: ATM and frame relay are not spoken
	TooMany      Reason = "too_many"
	Preference   Reason = "preference" // the peer wants sessions over the other family (RFC 7552 section 6.1.1)
	Malformed    Reason = "malformed"
)

// Refused are the hellos that were refused, by reason.
func (d *Discovery) Refused() map[Reason]uint64 { return maps.Clone(d.refused) }

// Hello takes a hello. The error wraps the Reason of a refusal; there are actions beside it only where the peer's adjacency ends
// because of it.
func (d *Discovery) Hello(now time.Time, r Received) ([]Action, error) {
	transport, err := d.check(r)
	if err == nil {
		err = d.keep(now, r, transport)
	}
	if err != nil {
		var reason Reason
		errors.As(err, &reason)
		d.refused[reason]++
		if reason == Preference {
			d.endOf(r)
		}
		return d.take(), err
	}
	return d.take(), nil
}

// Unusable takes a link hello of which nothing but its sender and how it came is known, for it is wrong. RFC 7552 section 6.1.1 has a
// dual-stack router end the adjacency because of some.
func (d *Discovery) Unusable(r Received, why *wire.Error) []Action {
	d.refused[Malformed]++
	if d.dual() && why.Status == wire.StatusTransportConnectionMismatch {
		d.endOf(r)
	}
	return d.take()
}

// endOf ends the adjacency that the hello would have renewed.
func (d *Discovery) endOf(r Received) {
	if a := d.adjacencies[keyOf(r.Sender, r.where())]; a != nil && a.Source == r.Source {
		d.end(a, wire.StatusTransportConnectionMismatch)
	}
}

// check finds out whether the hello may count, and the peer's transport address. A wrong preference ends an adjacency, so it is looked
// at when nothing else is wrong.
func (d *Discovery) check(r Received) (netip.Addr, error) {
	transport := r.transport()
	i, here := d.interfaces[r.Interface]
	switch {
	case r.Sender.LSR == d.cfg.ID.LSR:
		return transport, r.fail(Own, "our own LSR id: give each router its own")
	case r.Sender.Space != 0:
		return transport, r.fail(PlatformWide, "label space %d", r.Sender.Space)
	case !d.transport(r.Source).IsValid():
		return transport, r.fail(NoTransport, "this router has no transport address of that family")
	case transport.Is4() != r.Source.Is4() || !reachable(transport) || transport == d.transport(r.Source):
		return transport, r.fail(BadTransport, "transport address %v", transport)
	case r.Hello.Targeted && !reachable(r.Source):
		return transport, r.fail(BadTransport, "targeted, from an address of a link")
	case !r.Hello.Targeted && (!here || !i.V4 && r.Source.Is4() || !i.V6 && r.Source.Is6()):
		return transport, r.fail(NoInterface, "interface %s", r.Interface)
	}
	if err := d.invited(r); err != nil {
		return transport, err
	}
	if err := d.alone(r, transport); err != nil {
		return transport, err
	}
	if d.dual() && r.Hello.Preference != wire.PreferNone && r.Hello.Preference != d.cfg.Prefer {
		return transport, r.fail(Preference, "sessions over IPv%d, over IPv%d here: make both prefer the same", r.Hello.Preference, d.cfg.Prefer)
	}
	return transport, nil
}

func (r Received) fail(reason Reason, format string, args ...any) error {
	return fmt.Errorf("%w: hello of %v by %v: %s", reason, r.Sender, r.Source, fmt.Sprintf(format, args...))
}

// reachable says whether there can be a session with the address: one of a link of IPv6 means nothing without the link.
func reachable(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && (a.Is4() || !a.IsLinkLocalUnicast())
}

// invited refuses targeted hellos of those whom nobody wants.
func (d *Discovery) invited(r Received) error {
	if s := d.senders[target{"", r.Source}]; !r.Hello.Targeted || s != nil && s.asks {
		return nil
	}
	if !d.accepts(r.Source) {
		return r.fail(NotAccepted, "targeted")
	}
	if !r.Hello.RequestTargeted { // RFC 5036 section 2.4.2: who does not ask wants no answer
		return r.fail(NotAsked, "targeted, without a request")
	}
	return nil
}

// alone refuses two routers with one LSR id, and with one transport address: secrets and hops of sessions go by it. One label space has
// one transport address in each family (RFC 5036 section 2.5.2), so another one is another router.
func (d *Discovery) alone(r Received, transport netip.Addr) error {
	for _, a := range d.adjacencies {
		switch {
		case a.Peer != r.Sender && a.Transport == transport:
			return r.fail(Conflict, "transport address %v, which is that of %v", transport, a.Peer)
		case a.Peer == r.Sender && a.Source.Is4() == r.Source.Is4() && a.Transport != transport && !d.moved(a, r):
			return r.fail(Conflict, "transport address %v, by other hellos %v: two routers with one LSR id?", transport, a.Transport)
		}
	}
	return nil
}

// transport is where the sender has its sessions: RFC 5036 section 3.5.2.1.
func (r Received) transport() netip.Addr {
	if r.Source.Is4() && r.Hello.IPv4Transport.IsValid() {
		return r.Hello.IPv4Transport
	}
	if r.Source.Is6() && r.Hello.IPv6Transport.IsValid() {
		return r.Hello.IPv6Transport
	}
	return r.Source
}

// moved says that a is the very adjacency that the hello renews, and the only one: a router may change its transport address.
func (d *Discovery) moved(a *Adjacency, r Received) bool {
	n := 0
	for _, other := range d.adjacencies {
		if other.Peer == r.Sender && other.Source.Is4() == r.Source.Is4() {
			n++
		}
	}
	return n == 1 && a.Source == r.Source && keyOf(a.Peer, a.Where) == keyOf(r.Sender, r.where())
}

func (r Received) where() Where {
	if r.Hello.Targeted {
		return Where{Source: r.Source}
	}
	return Where{Interface: r.Interface, Source: r.Source}
}

// keep makes or renews the adjacency.
func (d *Discovery) keep(now time.Time, r Received, transport netip.Addr) error {
	k := keyOf(r.Sender, r.where())
	old := d.adjacencies[k]
	if old == nil && len(d.adjacencies) >= d.cfg.MaxAdjacencies {
		return fmt.Errorf("%w: %d adjacencies", TooMany, len(d.adjacencies))
	}
	hold := d.agree(r.Hello)
	a := &Adjacency{
		Where: r.where(), Peer: r.Sender, Transport: transport, Hold: hold, ConfigSeq: sequence(r.Hello), GTSM: r.Hello.GTSM && !r.Hello.Targeted, Preference: r.Hello.Preference, Since: now,
	}
	if hold != Infinite {
		a.Until = now.Add(hold)
	}
	d.adjacencies[k] = a
	if r.Hello.Targeted {
		d.answer(now, r.Source)
	}
	d.quicken(r.where(), hold)
	if old == nil {
		d.actions = append(d.actions, Up{*a})
		d.hurry(now, r.where())
		return nil
	}
	a.Since = old.Since
	if old.Transport != a.Transport || old.ConfigSeq != a.ConfigSeq || old.Preference != a.Preference || old.GTSM != a.GTSM || old.Source != a.Source {
		d.actions = append(d.actions, Changed{*a})
	}
	return nil
}

// agree is the hold time that both sides use: the smaller proposal.
func (d *Discovery) agree(h wire.Hello) time.Duration {
	own, otherwise := d.cfg.LinkHold, wire.DefaultLinkHoldTime
	if h.Targeted {
		own, otherwise = d.cfg.TargetedHold, wire.DefaultTargetedHoldTime
	}
	proposed := time.Duration(h.HoldTime) * time.Second
	if h.HoldTime == wire.HoldTimeDefault {
		proposed = otherwise
	}
	return min(own, proposed)
}

func sequence(h wire.Hello) uint32 {
	if h.ConfigSequence == nil {
		return 0
	}
	return *h.ConfigSequence
}
