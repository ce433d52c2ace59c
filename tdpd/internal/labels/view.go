package labels

import (
	"maps"
	"net/netip"

	"github.com/manycast/manycast/tdpd/internal/page"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// View is what forwarding needs to know of a FEC.
type View struct {
	FEC   netip.Prefix
	Kind  Kind
	Local wire.Label // NoLabel: none
	// Leaving is a label that it had, as long as a peer may still send packets with it; NoLabel: there is none.
	Leaving wire.Label
	Hops    []Hop
	Plain   bool // packets that have no label get none here; for who asked to say
}

// Hop is a next hop and its binding.
type Hop struct {
	NextHop
	Peer  wire.Identifier // zero: nobody's
	Label wire.Label      // NoLabel: none
	// Tunnel is the far end of a tunnel to the peer, the next hop that of packets there; the zero Addr: there is none.
	Tunnel netip.Addr
}

// View returns that of a FEC; false: there is no route to it.
func (l *Labels) View(p netip.Prefix) (View, bool) {
	f := l.fecs[p]
	if f == nil || !f.routed {
		return View{}, false
	}
	v := View{FEC: p, Kind: f.kind, Local: f.local, Leaving: l.leaving(f)}
	if f.hops != nil {
		v.Hops = make([]Hop, len(f.hops.hops))
		for i, h := range f.hops.hops {
			v.Hops[i] = f.hop(h, f.hops.peers[i])
		}
	}
	if b, t := f.far(); b != nil {
		for _, h := range t.hops {
			v.Hops = append(v.Hops, Hop{NextHop: h, Peer: b.peer.id, Label: b.label, Tunnel: t.far})
		}
	}
	return v, true
}

// leaving is a real label that the FEC had: it has one at a time, for as long as a peer has not let go of it.
func (l *Labels) leaving(f *fec) wire.Label {
	for _, s := range f.sent {
		if isReal(s.label) && s.label != f.local && !l.foreign[s.label] {
			return s.label
		}
	}
	return NoLabel
}

func (f *fec) hop(h NextHop, p *peer) Hop {
	out := Hop{NextHop: h, Label: NoLabel}
	if p == nil || f.kind != Transit {
		return out
	}
	out.Peer = p.id
	if i := f.of(p); i >= 0 && p.families.has(f.family()) {
		out.Label = f.remote[i].label
	}
	return out
}

// FECs lists those behind a prefix that there are routes or bindings of, in their order, at most that many; behind the zero Prefix are
// all.
func (l *Labels) FECs(behind netip.Prefix, most int) []netip.Prefix {
	return page.Behind(maps.Keys(l.fecs), netip.Prefix.Compare, func(p netip.Prefix) bool { return p.Compare(behind) > 0 }, most)
}

// Size is how many FECs there are, with a route or with bindings alone.
func (l *Labels) Size() int { return len(l.fecs) }

// Knows says whether there is a route or a binding of a prefix.
func (l *Labels) Knows(p netip.Prefix) bool { return l.fecs[p] != nil }

// Bindings are the labels of a FEC.
type Bindings struct {
	Local  wire.Label // NoLabel: none
	Remote []Binding  // the peers' own
	Sent   []Binding  // this router's, as peers have them
}

// Binding is one of a peer's, or one that a peer has.
type Binding struct {
	Peer   wire.Identifier
	Label  wire.Label
	InUse  bool // of Remote: packets leave by it
	Stale  bool // of Remote: from before the peer's restart
	Leaves bool // of Sent: withdrawn, and not released yet
}

// Bindings returns those of a FEC.
func (l *Labels) Bindings(p netip.Prefix) Bindings {
	f := l.fecs[p]
	if f == nil {
		return Bindings{Local: NoLabel}
	}
	out := Bindings{Local: f.local}
	used := map[*peer]bool{}
	for b := range f.downstream {
		used[b.peer] = true
	}
	for _, b := range f.remote {
		out.Remote = append(out.Remote, Binding{Peer: b.peer.id, Label: b.label, InUse: used[b.peer], Stale: b.stale})
	}
	for _, s := range f.sent {
		if s.state != refused && s.state != former {
			out.Sent = append(out.Sent, Binding{Peer: s.peer.id, Label: s.label, Leaves: s.state == withdrawn})
		}
	}
	return out
}

// PeerView is what is known of a peer.
type PeerView struct {
	ID         wire.Identifier
	Away       bool // it restarts, and is waited for
	IPv4, IPv6 bool // families that bindings are exchanged of
	Bindings   int  // kept
	Full       bool // bindings were turned away
	Addresses  int
}

// Peers lists them by identifier.
func (l *Labels) Peers() []PeerView {
	out := make([]PeerView, len(l.peers))
	for i, p := range l.peers {
		out[i] = PeerView{p.id, !p.up, p.families.v4, p.families.v6, p.kept, p.full, len(p.addresses)}
	}
	return out
}
