package forwarding

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/page"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// Operation is what an NHLFE does to a packet's labels.
type Operation uint8

// Operations. Swap and Pop are those of an ILM, Push and Keep those of an FTN.
const (
	Swap Operation = iota // another label in place of the one that came in
	Pop                   // the label that came in goes, and nothing comes in its place
	Push                  // a label onto a packet that had none
	Keep                  // the packet stays without: the next hop wants none (implicit null)
)

// String is the operation in a word.
func (o Operation) String() string { return [...]string{"swap", "pop", "push", "keep"}[o] }

// NHLFE is a next hop label forwarding entry. Several of one label or prefix share the flows.
type NHLFE struct {
	labels.NextHop                 // without an address: this router takes the packet in itself
	Peer           wire.Identifier // whose label it is; zero: nobody's
	Operation      Operation
	Label          wire.Label // of Swap and Push, explicit null included; else labels.NoLabel
	Tunnel         netip.Addr // the far end of a tunnel that the label crosses in UDP; the zero Addr: there is none
}

// ILM is what is done to packets with a label. Without NHLFEs they are dropped: RFC 3031 section 3.18 has them go on without a label
// only where one knows what is inside, and inside of a server's is another address than the FEC's, the service's.
type ILM struct {
	Label  wire.Label
	FEC    netip.Prefix
	Kind   labels.Kind
	NHLFEs []NHLFE
}

// FTN is what is done to packets to a prefix that have no label.
type FTN struct {
	FEC    netip.Prefix
	NHLFEs []NHLFE
}

// loopback is the index of lo in every network namespace.
const loopback = 1

// comesIn says whether packets can come in with the label, and the kernel wants an entry for it: it knows explicit null by itself.
func comesIn(label wire.Label) bool { return label >= wire.LabelFirst && label <= wire.LabelLast }

// ILM lists labels behind one that may come in, in their order, at most that many.
func (t *Tables) ILM(behind wire.Label, most int) []ILM {
	some := page.Behind(maps.Keys(t.owners), cmp.Compare[wire.Label], func(l wire.Label) bool { return l > behind }, most)
	out := make([]ILM, len(some))
	for i, label := range some {
		out[i], _ = t.Incoming(label)
	}
	return out
}

// Incoming is what is done to packets with the label; false: it is nobody's.
func (t *Tables) Incoming(label wire.Label) (ILM, bool) {
	p, known := t.owners[label]
	if !known {
		return ILM{}, false
	}
	v := t.views[p]
	m := ILM{Label: label, FEC: p, Kind: v.Kind}
	switch v.Kind {
	case labels.Attached:
		m.NHLFEs = []NHLFE{{NextHop: labels.NextHop{Interface: "lo", Index: loopback}, Operation: Pop, Label: labels.NoLabel}}
	case labels.Server:
		for _, h := range v.Hops {
			m.NHLFEs = append(m.NHLFEs, NHLFE{NextHop: h.NextHop, Operation: Pop, Label: labels.NoLabel})
		}
	case labels.Transit:
		m.NHLFEs = bound(v, Swap, Pop)
	}
	return m, true
}

// FTN lists prefixes behind one that packets without a label leave to by next hops with bindings, in their order, at most that many.
func (t *Tables) FTN(behind netip.Prefix, most int) []FTN {
	is := func(p netip.Prefix) bool { return p.Compare(behind) > 0 && leaves(t.views[p]) }
	some := page.Behind(maps.Keys(t.views), netip.Prefix.Compare, is, most)
	out := make([]FTN, len(some))
	for i, p := range some {
		out[i], _ = t.Outgoing(p)
	}
	return out
}

// leaves says whether a FEC is in the FTN.
func leaves(v labels.View) bool {
	return v.Kind == labels.Transit && !v.Plain && slices.ContainsFunc(v.Hops, func(h labels.Hop) bool { return h.Label != labels.NoLabel })
}

// Size is how many entries ILM and FTN have.
func (t *Tables) Size() (ilm, ftn int) { return len(t.owners), t.leaving }

// Outgoing is what is done to packets to the prefix; false: they leave as routes have them, without a label.
func (t *Tables) Outgoing(p netip.Prefix) (FTN, bool) {
	v, known := t.views[p]
	if !known || !leaves(v) {
		return FTN{}, false
	}
	return FTN{p, bound(v, Push, Keep)}, true
}

// Tree is how packets enter the tag-switched tree of a FEC at this router; nil: it has none here. At the last router that is the FEC itself.
func (t *Tables) Tree(p netip.Prefix) []kernel.Hop {
	if m, ok := t.Outgoing(p); ok {
		return hops(m.NHLFEs)
	}
	if v := t.views[p]; v.Kind == labels.Server || v.Kind == labels.Attached {
		m, _ := t.Incoming(v.Local)
		return hops(m.NHLFEs)
	}
	return nil
}

// bound is the next hops that have bindings, others are left out as long as there are any: what has a label keeps one. A binding to
// implicit null means that no label is to leave (RFC 3032 section 2.1).
func bound(v labels.View, label, none Operation) (out []NHLFE) {
	for _, h := range v.Hops {
		switch h.Label {
		case labels.NoLabel:
		case wire.LabelImplicitNull:
			out = append(out, NHLFE{NextHop: h.NextHop, Peer: h.Peer, Operation: none, Label: labels.NoLabel})
		default:
			out = append(out, NHLFE{NextHop: h.NextHop, Peer: h.Peer, Operation: label, Label: h.Label, Tunnel: h.Tunnel})
		}
	}
	return out
}

// hop is the entry for the kernel.
func (n NHLFE) hop() kernel.Hop {
	h := kernel.Hop{Via: n.Address, Interface: n.Index, Tunnel: n.Tunnel}
	if n.Label != labels.NoLabel {
		h.Labels = []uint32{uint32(n.Label)}
	}
	return h
}
