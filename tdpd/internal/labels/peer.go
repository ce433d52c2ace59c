package labels

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/discovery"
	"github.com/manycast/manycast/tdpd/internal/session"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// Peer is one whose session has become operational.
type Peer struct {
	ID          wire.Identifier
	Agreed      session.Parameters
	Adjacencies []discovery.Adjacency
}

type peer struct {
	id        wire.Identifier
	up        bool // not: away, to come back (RFC 3478)
	loops     bool // loop detection is agreed on
	typed     bool // it understands typed wildcards (RFC 5918)
	endOfLIB  bool // it wants to be told (RFC 5919)
	families  families
	links     map[link]bool
	far       []netip.Addr        // where its targeted hellos come from, sorted
	tunnels   []tunnel            // of these, those that there are tunnels to
	addresses map[netip.Addr]bool // false: stale
	until     time.Time           // stale is what is stale; zero: nothing
	kept      int                 // bindings
	full      bool                // bindings were turned away
	starved   bool                // was told that there are no labels
	warned    complaint           // was complained of, once a session
	wildcards map[wire.AddressFamily]wildcard
}

// complaint is of what a peer may do again and again.
type complaint uint8

const (
	ofLabels complaint = 1 << iota
	ofAddresses
	ofNotifications
)

// complain warns of a peer, once a session.
func (l *Labels) complain(p *peer, c complaint, format string, args ...any) {
	if p.warned&c == 0 {
		p.warned |= c
		l.warn(p, format, args...)
	}
}

// link is where hellos of the peer come from.
type link struct {
	iface  string
	source netip.Addr
}

// families are those of a peer's adjacencies. Bindings and addresses of others are not sent to it and not used of it; those it sends
// are kept, for an adjacency may follow its session (RFC 7552 section 7).
type families struct{ v4, v6 bool }

func (f families) has(a wire.AddressFamily) bool {
	return a == wire.IPv4 && f.v4 || a == wire.IPv6 && f.v6
}

func (f families) list() (out []wire.AddressFamily) {
	for _, a := range []wire.AddressFamily{wire.IPv4, wire.IPv6} {
		if f.has(a) {
			out = append(out, a)
		}
	}
	return out
}

func (l *Labels) find(id wire.Identifier) (int, bool) {
	return slices.BinarySearchFunc(l.peers, id, func(p *peer, id wire.Identifier) int { return p.id.Compare(id) })
}

func (l *Labels) peer(id wire.Identifier) *peer {
	if i, ok := l.find(id); ok {
		return l.peers[i]
	}
	return nil
}

// Up tells that a session has become operational: the peer gets addresses, bindings and the end of them.
func (l *Labels) Up(now time.Time, with Peer) []Action {
	l.now = now
	p := l.peer(with.ID)
	if p != nil && p.up {
		l.drop(p)
		p = nil
	}
	if p == nil {
		i, _ := l.find(with.ID)
		p = &peer{id: with.ID, addresses: map[netip.Addr]bool{}}
		l.peers = slices.Insert(l.peers, i, p)
	} else {
		l.back(p, with.Agreed.Restart)
	}
	p.up, p.loops = true, with.Agreed.LoopDetection
	p.typed, p.endOfLIB = false, false
	p.wildcards = map[wire.AddressFamily]wildcard{}
	p.capable(with.Agreed.Capabilities)
	p.adjacent(with.Adjacencies)
	p.findTunnels(l.tunnels)
	l.sayAddresses(p, p.families, l.addresses, false)
	l.resolveAll(nil)
	l.offerAll(p)
	l.sayEndOfLIB(p, p.families)
	return l.take()
}

// Awaits says whether a peer's session broke and what both had told is kept for it to come back (RFC 3478).
func (l *Labels) Awaits(id wire.Identifier) bool {
	p := l.peer(id)
	return p != nil && !p.up
}

// Adjacencies tells that those of a peer have changed.
func (l *Labels) Adjacencies(now time.Time, id wire.Identifier, all []discovery.Adjacency) []Action {
	l.now = now
	p := l.peer(id)
	if p == nil || !p.up { // what was known of one that is away serves until it is back
		return nil
	}
	before, onLink := p.families, len(p.links) > 0
	p.adjacent(all)
	gained := families{p.families.v4 && !before.v4, p.families.v6 && !before.v6}
	lost := families{before.v4 && !p.families.v4, before.v6 && !p.families.v6}
	l.sayAddresses(p, gained, l.addresses, false)
	l.sayAddresses(p, lost, l.addresses, true)
	l.resolveAll(nil)
	if before != p.families {
		l.familiesChanged(p)
		l.sayEndOfLIB(p, gained)
	}
	if onLink != (len(p.links) > 0) {
		l.settleTransports()
	}
	if p.findTunnels(l.tunnels) {
		l.settleTunneled()
	}
	return l.take()
}

func (l *Labels) familiesChanged(p *peer) {
	for _, f := range l.sorted() {
		if f.uses(p) {
			l.change(f)
		}
		l.settle(f)
	}
}

// adjacent takes adjacencies; a peer that says that it is dual-stack has both families (RFC 7552 section 6.1.1).
func (p *peer) adjacent(all []discovery.Adjacency) {
	p.families, p.links, p.far = families{}, map[link]bool{}, nil
	for _, a := range all {
		dual := a.Preference != wire.PreferNone
		p.families.v4 = p.families.v4 || dual || a.Source.Is4()
		p.families.v6 = p.families.v6 || dual || a.Source.Is6()
		if !a.Targeted() {
			p.links[link{a.Interface, a.Source.WithZone("")}] = true
		} else {
			p.far = append(p.far, a.Source)
		}
	}
	slices.SortFunc(p.far, netip.Addr.Compare)
}

func (p *peer) capable(list []wire.CapabilityParameter) {
	for _, c := range list {
		switch c.Type {
		case wire.TLVTypedWildcardCapability:
			p.typed = c.Enabled
		case wire.TLVUnrecognizedNotification:
			p.endOfLIB = c.Enabled
		}
	}
}

// offerAll offers all FECs to a peer whose session is new, those aside that it has been offered since it began.
func (l *Labels) offerAll(p *peer) {
	for _, f := range l.sorted() {
		l.settlePeer(f, p, false)
	}
}

// sayEndOfLIB waits for the end of this router's own restart: the peer drops what it has not heard again until then.
func (l *Labels) sayEndOfLIB(p *peer, of families) {
	if !p.endOfLIB || !l.recovery.IsZero() {
		return
	}
	for _, family := range of.list() {
		l.say(p, wire.Notification{Status: wire.NewStatus(wire.StatusEndOfLIB), FEC: wire.FEC{wire.TypedWildcard{Family: family}}})
	}
}

// Down tells that a session has ended. restart is the peer's word on how long its bindings may be kept; nil: not at all, which ends
// the wait for one that is away, too.
func (l *Labels) Down(now time.Time, id wire.Identifier, restart *wire.FTSession) []Action {
	l.now = now
	p := l.peer(id)
	if p == nil {
		return nil
	}
	keep := restart != nil && restart.GracefulRestart() && restart.ReconnectTimeout > 0 && !l.cfg.NoHelper
	switch {
	case !keep:
		l.drop(p)
	case p.up:
		l.leave(p, min(restart.ReconnectTimeout, l.cfg.MaxReconnect))
	}
	return l.take()
}

// drop forgets a peer and all that it has to do with.
func (l *Labels) drop(p *peer) {
	if i, ok := l.find(p.id); ok {
		l.peers = slices.Delete(l.peers, i, i+1)
	}
	l.requests.forget(p)
	l.resolveAll(nil)
	for _, f := range l.sorted() {
		if i := f.of(p); i >= 0 {
			l.event(Lost, p, f, f.remote[i].label)
			f.remote = slices.Delete(f.remote, i, i+1)
		}
		l.unsend(f, p)
		f.unask(p)
		if f.tunneled && len(p.tunnels) > 0 {
			l.change(f)
			l.settle(f)
		}
		l.forget(f)
	}
	l.kept -= p.kept
	p.up, p.kept = false, 0
}

// unsend forgets what the peer has, for it has it no longer.
func (l *Labels) unsend(f *fec, p *peer) {
	for i := len(f.sent) - 1; i >= 0; i-- {
		if s := f.sent[i]; s.peer == p {
			f.sent = slices.Delete(f.sent, i, i+1)
			l.freeUnused(f, s.label)
		}
	}
}
