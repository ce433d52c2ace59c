package labels

import (
	"container/list"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// fec is all that is known of one prefix. There may be 100,000: what is rare is kept elsewhere.
type fec struct {
	prefix   netip.Prefix
	hops     *hopSet // nil: no route, or none with next hops
	remote   []binding
	sent     []sent
	asked    []asked
	attrs    *attributes // that its mappings carry; nil: none
	local    wire.Label
	kind     Kind
	routed   bool
	changed  bool          // is in Labels.changed
	tunneled bool          // Route.Tunneled
	waits    *list.Element // of Labels.waiting; nil: it does not
}

// binding is a peer's; there is one a peer.
type binding struct {
	peer  *peer
	attrs *attributes
	label wire.Label
	stale bool // from before the peer's restart
}

// sent is a binding of this router's as the peer has it, or may have it: it goes when a withdrawal is answered. There may be several a
// peer, of different labels, of which one holds.
type sent struct {
	peer    *peer
	label   wire.Label
	state   sentState
	pending uint8 // withdrawals that the peer has yet to answer with a release
}

type sentState uint8

const (
	held sentState = iota
	// Released by the peer's own will: not offered again unless something about it changes. But one that was offered again at the
	// time may have crossed the release, so that it is withdrawn like others.
	refused
	withdrawn // and not released yet
	former    // said in the session before the peer's restart: to be said again or withdrawn
)

// usable says whether a prefix can be a FEC at all: RFC 7552 section 7 excludes link-local addresses and IPv4 ones in IPv6 clothes.
func usable(p netip.Prefix) bool {
	a := p.Addr()
	return p.IsValid() && !a.Is4In6() && !a.IsLinkLocalUnicast() && !a.IsMulticast()
}

func (f *fec) family() wire.AddressFamily { return wire.FamilyOf(f.prefix.Addr()) }

func (f *fec) of(p *peer) int {
	return slices.IndexFunc(f.remote, func(b binding) bool { return b.peer == p })
}

func (f *fec) sentTo(p *peer, label wire.Label) int {
	return slices.IndexFunc(f.sent, func(s sent) bool { return s.peer == p && s.label == label })
}

func (l *Labels) fec(p netip.Prefix) *fec {
	f := l.fecs[p]
	if f == nil {
		f = &fec{prefix: p, local: NoLabel}
		l.fecs[p] = f
	}
	return f
}

// sorted returns all FECs in the order of their prefixes.
func (l *Labels) sorted() []*fec {
	all := make([]*fec, 0, len(l.fecs))
	for _, f := range l.fecs {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *fec) int { return a.prefix.Compare(b.prefix) })
	return all
}

// downstream yields the bindings that packets of the FEC can leave by: those of its next hops' peers, and where there are none that of one
// at the far end of a tunnel.
func (f *fec) downstream(yield func(*binding) bool) {
	next := false
	for b := range f.nextHops {
		if next = true; !yield(b) {
			return
		}
	}
	if next {
		return
	}
	if b, _ := f.far(); b != nil {
		yield(b)
	}
}

// nextHops yields the bindings of its next hops' peers.
func (f *fec) nextHops(yield func(*binding) bool) {
	if f.hops == nil || f.kind != Transit {
		return
	}
	for i := range f.remote {
		if b := &f.remote[i]; b.peer.families.has(f.family()) && slices.Contains(f.hops.peers, b.peer) && !yield(b) {
			return
		}
	}
}

func (f *fec) hasDownstream() bool {
	for range f.downstream {
		return true
	}
	return false
}

// uses says whether bindings of the peer matter for forwarding.
func (f *fec) uses(p *peer) bool {
	return f.kind == Transit && (f.hops != nil && slices.Contains(f.hops.peers, p) || f.tunneled && len(p.tunnels) > 0)
}

// settle brings about what is to hold of a FEC: its label, what its mappings say, and who has them.
func (l *Labels) settle(f *fec) {
	before := f.local
	l.settleLocal(f)
	attrs := l.attributesOf(f)
	news := !attrs.equal(f.attrs)
	f.attrs = attrs
	for _, p := range l.peers {
		l.settlePeer(f, p, news)
	}
	if before != f.local {
		l.freeUnused(f, before)
	}
	l.forget(f)
}

// forget drops a FEC of which nothing is known.
func (l *Labels) forget(f *fec) {
	if !f.routed && len(f.remote) == 0 && len(f.sent) == 0 && l.fecs[f.prefix] == f {
		delete(l.fecs, f.prefix)
	}
}
