// Package discovery is LDP's discovery (RFC 5036 sections 2.4 and 3.5.2, RFC 7552 section 5): hellos, interfaces and time in, hellos
// to send and adjacencies that come and go out. It is pure: no sockets, no clock, no log. Not safe for concurrent use.
package discovery

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// Infinite is the hold time of an adjacency that never expires.
const Infinite = wire.HoldTimeInfinite * time.Second

// Config is what does not change. Zero fields take the defaults.
type Config struct {
	ID             wire.Identifier
	Transport4     netip.Addr // where this router's sessions are; invalid: none of this family
	Transport6     netip.Addr
	Prefer         wire.TransportPreference // of a dual-stack router (RFC 7552 section 6.1.1); 0: IPv6
	GTSM           bool                     // sessions of link adjacencies are to be protected (RFC 6720)
	LinkHold       time.Duration            // whole seconds, 1 s to Infinite; hellos are sent three times in it
	TargetedHold   time.Duration
	Accept         func(netip.Addr) bool // whose targeted hellos are answered though nobody configured them; nil: nobody's
	MaxAdjacencies int                   // 1,024
}

// Interface is one that link hellos are sent on and taken from.
type Interface struct {
	Name   string
	V4, V6 bool // families that the interface has addresses of
}

// Where names an adjacency together with the peer: at most one adjacency of a peer by each way.
type Where struct {
	Interface string     // of a link adjacency; empty: targeted
	Source    netip.Addr // by which the peer sends its hellos
}

// Targeted says whether the adjacency is by targeted hellos.
func (w Where) Targeted() bool { return w.Interface == "" }

// Adjacency is what hellos of a peer have made.
type Adjacency struct {
	Where
	Peer       wire.Identifier
	Transport  netip.Addr               // the peer's, for sessions of the family of Source
	Hold       time.Duration            // agreed
	ConfigSeq  uint32                   // of the peer's configuration; 0 where it says none
	GTSM       bool                     // the peer wants sessions of this adjacency protected (RFC 6720)
	Preference wire.TransportPreference // of a dual-stack peer
	Since      time.Time
	Until      time.Time // zero: it never expires
}

// Received is a hello and how it came.
type Received struct {
	Interface string // that it came in by
	Source    netip.Addr
	Sender    wire.Identifier
	Hello     wire.Hello
}

// Action is one of Send, Up, Changed and Down.
type Action interface{ action() }

// Send sends a hello: link hellos by the interface to all routers of it, targeted ones to an address.
type Send struct {
	Interface string     // empty: targeted
	To        netip.Addr // of targeted ones; of link hellos it tells the family: 224.0.0.2 or ff02::2
	Hello     wire.Hello
}

// Up tells of a new adjacency.
type Up struct{ Adjacency Adjacency }

// Changed tells that a peer changed its configuration or what it says of itself; its adjacency stays.
type Changed struct{ Adjacency Adjacency }

// Down tells that an adjacency is gone. Without any, a session has to end: Status is for its notification.
type Down struct {
	Adjacency Adjacency
	Status    wire.StatusCode
}

func (Send) action()    {}
func (Up) action()      {}
func (Changed) action() {}
func (Down) action()    {}

// All routers of a link (RFC 5036 section 2.4.1, RFC 7552 section 5.1).
var (
	AllRouters4 = netip.AddrFrom4([4]byte{224, 0, 0, 2})
	AllRouters6 = netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 15: 2})
)

// Discovery is the state.
type Discovery struct {
	cfg         Config
	interfaces  map[string]Interface
	senders     map[target]*sender
	adjacencies map[key]*Adjacency
	refused     map[Reason]uint64
	said        uint32 // hellos sent
	actions     []Action
}

// key names an adjacency. A peer that moves to another source address on the same link keeps its adjacency of that family.
type key struct {
	peer  wire.Identifier
	iface string
	by    netip.Addr // of targeted ones
	is4   bool
}

func keyOf(peer wire.Identifier, w Where) key {
	k := key{peer: peer, iface: w.Interface, is4: w.Source.Is4()}
	if w.Targeted() {
		k.by = w.Source
	}
	return k
}

// New returns a Discovery that sends nothing yet.
func New(cfg Config) *Discovery {
	if cfg.LinkHold == 0 {
		cfg.LinkHold = wire.DefaultLinkHoldTime
	}
	if cfg.TargetedHold == 0 {
		cfg.TargetedHold = wire.DefaultTargetedHoldTime
	}
	if cfg.Prefer == wire.PreferNone {
		cfg.Prefer = wire.PreferIPv6
	}
	if cfg.MaxAdjacencies == 0 {
		cfg.MaxAdjacencies = 1024
	}
	return &Discovery{
		cfg: cfg, interfaces: map[string]Interface{}, senders: map[target]*sender{}, adjacencies: map[key]*Adjacency{}, refused: map[Reason]uint64{},
	}
}

// SetInterfaces makes these all the interfaces. Adjacencies of those that are gone end.
func (d *Discovery) SetInterfaces(now time.Time, all []Interface) []Action {
	d.interfaces = map[string]Interface{}
	wanted := map[target]bool{}
	for _, i := range all {
		d.interfaces[i.Name] = i
		if i.V4 && d.cfg.Transport4.IsValid() {
			wanted[target{i.Name, AllRouters4}] = false
		}
		if i.V6 && d.cfg.Transport6.IsValid() {
			wanted[target{i.Name, AllRouters6}] = false
		}
	}
	d.setSenders(now, wanted, func(t target) bool { return t.iface != "" })
	for _, a := range d.sorted() {
		if !a.Targeted() && d.senders[target{a.Interface, groupOf(a.Source)}] == nil {
			d.end(a, wire.StatusShutdown)
		}
	}
	return d.take()
}

// SetTargets makes these all the addresses that targeted hellos are sent to without having been asked. Adjacencies of those that
// are gone stay for as long as the peer keeps them up and Accept takes them.
func (d *Discovery) SetTargets(now time.Time, all []netip.Addr) []Action {
	wanted := map[target]bool{}
	for _, a := range d.adjacencies {
		if a.Targeted() && d.accepts(a.Source) {
			wanted[target{"", a.Source}] = false
		}
	}
	for _, a := range all {
		if d.transport(a).IsValid() {
			wanted[target{"", a}] = true
		}
	}
	d.setSenders(now, wanted, func(t target) bool { return t.iface == "" })
	for _, a := range d.sorted() {
		if a.Targeted() && d.senders[target{"", a.Source}] == nil {
			d.end(a, wire.StatusShutdown)
		}
	}
	return d.take()
}

func (d *Discovery) accepts(a netip.Addr) bool { return d.cfg.Accept != nil && d.cfg.Accept(a) }

// transport is where this router's sessions of the family of a are.
func (d *Discovery) transport(a netip.Addr) netip.Addr {
	if a.Is4() {
		return d.cfg.Transport4
	}
	return d.cfg.Transport6
}

func groupOf(source netip.Addr) netip.Addr {
	if source.Is4() {
		return AllRouters4
	}
	return AllRouters6
}

// Adjacencies returns all, by peer.
func (d *Discovery) Adjacencies() []Adjacency {
	var out []Adjacency
	for _, a := range d.sorted() {
		out = append(out, *a)
	}
	return out
}

// Of returns those of a peer.
func (d *Discovery) Of(peer wire.Identifier) []Adjacency {
	var out []Adjacency
	for _, a := range d.adjacencies {
		if a.Peer == peer {
			out = append(out, *a)
		}
	}
	slices.SortFunc(out, func(a, b Adjacency) int { return a.compare(&b) })
	return out
}

func (d *Discovery) sorted() []*Adjacency {
	out := make([]*Adjacency, 0, len(d.adjacencies))
	for _, a := range d.adjacencies {
		out = append(out, a)
	}
	slices.SortFunc(out, (*Adjacency).compare)
	return out
}

func (a *Adjacency) compare(b *Adjacency) int {
	return cmp.Or(a.Peer.Compare(b.Peer), cmp.Compare(a.Interface, b.Interface), a.Source.Compare(b.Source))
}

// Tick lets time pass: hellos that are due are sent, adjacencies that were not renewed end.
func (d *Discovery) Tick(now time.Time) []Action {
	for _, a := range d.sorted() {
		if !a.Until.IsZero() && !now.Before(a.Until) {
			d.end(a, wire.StatusHoldTimerExpired)
		}
	}
	d.sendDue(now)
	return d.take()
}

// Next is when Tick has something to do; zero: never.
func (d *Discovery) Next() time.Time {
	var next time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, a := range d.adjacencies {
		sooner(a.Until)
	}
	for _, s := range d.senders {
		sooner(s.due)
	}
	return next
}

// end removes an adjacency. Whoever was only answered is not sent hellos any more.
func (d *Discovery) end(a *Adjacency, why wire.StatusCode) {
	delete(d.adjacencies, keyOf(a.Peer, a.Where))
	if s := d.senders[target{"", a.Source}]; a.Targeted() && s != nil && !s.asks {
		delete(d.senders, target{"", a.Source})
	}
	d.actions = append(d.actions, Down{*a, why})
}

func (d *Discovery) take() []Action {
	out := d.actions
	d.actions = nil
	return out
}
