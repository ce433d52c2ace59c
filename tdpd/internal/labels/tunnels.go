package labels

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// tunnel leads to a peer by what is IP alone.
type tunnel struct {
	far  netip.Addr
	hops []NextHop // of the unicast route to it; at least one
}

func (t tunnel) equal(o tunnel) bool { return t.far == o.far && slices.Equal(t.hops, o.hops) }

// Tunnels makes these all the tunnels that there are: by their far ends, from which the targeted hellos of peers come, with the next hops of
// packets there. LDP has packets leave by bindings of next hops alone (RFC 5036 section 2.6): a FEC whose route allows it (Route.Tunneled),
// and whose next hops have bound none, leaves by that of a peer at the far end of a tunnel. Of several it is the FEC's own address'; else
// that of the lowest identifier.
func (l *Labels) Tunnels(now time.Time, all map[netip.Addr][]NextHop) []Action {
	l.now, l.tunnels = now, all
	changed := false
	for _, p := range l.peers {
		changed = p.findTunnels(all) || changed
	}
	if changed {
		l.settleTunneled()
	}
	return l.take()
}

// Far yields where targeted hellos of peers come from.
func (l *Labels) Far(yield func(netip.Addr) bool) {
	for _, p := range l.peers {
		for _, a := range p.far {
			if !yield(a) {
				return
			}
		}
	}
}

// findTunnels finds those that lead to the peer, and says whether they are others than before.
func (p *peer) findTunnels(all map[netip.Addr][]NextHop) bool {
	before := p.tunnels
	p.tunnels = nil
	for _, a := range p.far {
		if hops := all[a]; len(hops) > 0 {
			p.tunnels = append(p.tunnels, tunnel{a, hops})
		}
	}
	return !slices.EqualFunc(before, p.tunnels, tunnel.equal)
}

func (l *Labels) settleTunneled() {
	for _, f := range l.sorted() {
		if f.tunneled {
			l.change(f)
			l.settle(f)
		}
	}
}

// far is the binding of a peer at the far end of a tunnel by which the FEC leaves; nil: its next hops have bindings, or no such peer has.
func (f *fec) far() (best *binding, by tunnel) {
	if !f.tunneled || f.kind != Transit {
		return nil, by
	}
	for range f.nextHops {
		return nil, by
	}
	for i := range f.remote {
		b := &f.remote[i]
		if !isReal(b.label) || len(b.peer.tunnels) == 0 || !b.peer.families.has(f.family()) { // null means: look at the address
			continue
		}
		t, own := b.peer.tunnelFor(f.prefix.Addr())
		if own {
			return b, t
		}
		if best == nil || b.peer.id.Compare(best.peer.id) < 0 {
			best, by = b, t
		}
	}
	return best, by
}

// tunnelFor prefers the tunnel to the address itself, then one of its family.
func (p *peer) tunnelFor(to netip.Addr) (by tunnel, own bool) {
	by = p.tunnels[0]
	for _, t := range p.tunnels {
		if t.far == to {
			return t, true
		}
		if t.far.Is4() == to.Is4() && by.far.Is4() != to.Is4() {
			by = t
		}
	}
	return by, false
}

// cameFrom says whether the FEC leads nowhere but to that peer, at the far end of a tunnel: it is not told this router's label, by which it
// could send packets back. No route keeps two ends of a tunnel from that, as it does next hops.
func (f *fec) cameFrom(p *peer) bool {
	if !f.tunneled || f.kind != Transit || len(p.tunnels) == 0 {
		return false
	}
	for b := range f.downstream {
		if b.peer != p {
			return false
		}
	}
	return true
}

// labelFor is what a peer is told of the FEC. A server with which sessions are has a label for those who share no link with it: their
// sessions have no need of all their hops.
func (l *Labels) labelFor(f *fec, p *peer) wire.Label {
	if f.kind == Server && l.isTransport(f.prefix) && len(p.links) > 0 {
		return wire.LabelImplicitNull
	}
	return f.local
}

func (l *Labels) settleTransports() {
	for _, a := range l.cfg.Transports {
		if f := l.fecs[netip.PrefixFrom(a, a.BitLen())]; f != nil {
			l.settle(f)
		}
	}
}
