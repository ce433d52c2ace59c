package service

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/discovery"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/session"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

func (s *Service) status(now time.Time) *tdpdv1.Status {
	st := &tdpdv1.Status{
		RouterId: s.Config.RouterID.String(), Started: s.started.UTC().Format(time.RFC3339Nano), Strangers: s.counters.Strangers,
		ServerFailures: s.control.failures,
		SessionsUp:     s.counters.SessionsUp, SessionsDown: s.counters.SessionsDown,
		HellosRefused: map[string]uint64{}, Neighbors: s.neighbors(now), Labels: s.labelStatus(), Forwarding: s.forwardingStatus(now),
	}
	for _, a := range []netip.Addr{s.Config.Transport4, s.Config.Transport6} {
		if a.IsValid() {
			st.Addresses = append(st.Addresses, a.String())
		}
	}
	for reason, n := range s.discovery.Refused() {
		st.HellosRefused[string(reason)] = n
	}
	for _, name := range s.Config.Interfaces {
		i := &tdpdv1.Interface{Name: name}
		for _, l := range s.links {
			if l.Name == name {
				i.Ipv4, i.Ipv6 = l.V4 && s.Config.Transport4.IsValid(), l.V6 && s.Config.Transport6.IsValid()
			}
		}
		st.Interfaces = append(st.Interfaces, i)
	}
	if s.Counters != nil {
		var err error
		if st.FastPath, err = s.Counters(); err != nil {
			s.kernel.warn(s.Log, now, err)
		}
	}
	st.Steered, st.UserBindingsRefused = s.steeredStatus(), maps.Clone(s.users.refused)
	st.Tagless = maps.Clone(s.users.tagless)
	for range s.fecs.Servers {
		st.Servers++
	}
	for _, p := range s.outdone(outdoneShown) {
		st.Unlabelled = append(st.Unlabelled, p.String())
	}
	return st
}

// neighbors are all whose hellos are heard, and those that are waited for.
func (s *Service) neighbors(now time.Time) []*tdpdv1.Neighbor {
	all := map[wire.Identifier]*tdpdv1.Neighbor{}
	of := func(id wire.Identifier) *tdpdv1.Neighbor {
		if all[id] == nil {
			all[id] = &tdpdv1.Neighbor{Id: id.String(), State: session.NonExistent.String(), Md5: s.secret(id) != ""}
		}
		return all[id]
	}
	for _, a := range s.discovery.Adjacencies() {
		n := of(a.Peer)
		n.Adjacencies = append(n.Adjacencies, adjacency(now, a))
	}
	for id, p := range s.peers {
		p.describe(now, of(id))
	}
	for _, v := range s.labels.Peers() {
		n := of(v.ID)
		n.Families, n.Bindings, n.Full, n.Addresses, n.Restarting = families(v), uint32(v.Bindings), v.Full, uint32(v.Addresses), v.Away
	}
	out := make([]*tdpdv1.Neighbor, 0, len(all))
	for _, id := range slices.SortedFunc(maps.Keys(all), wire.Identifier.Compare) {
		out = append(out, all[id])
	}
	return out
}

func families(v labels.PeerView) (out []string) {
	if v.IPv4 {
		out = append(out, "ipv4")
	}
	if v.IPv6 {
		out = append(out, "ipv6")
	}
	return out
}

func adjacency(now time.Time, a discovery.Adjacency) *tdpdv1.Adjacency {
	out := &tdpdv1.Adjacency{
		Interface: a.Interface, Source: a.Source.String(), Transport: a.Transport.String(), SinceMs: now.Sub(a.Since).Milliseconds(), Gtsm: a.GTSM,
		HoldMs: a.Hold.Milliseconds(), LeftMs: -1, DualStack: a.Preference != wire.PreferNone,
	}
	if a.Hold == discovery.Infinite {
		out.HoldMs = -1
	}
	if !a.Until.IsZero() {
		out.LeftMs = max(0, a.Until.Sub(now).Milliseconds())
	}
	return out
}

// describe says what there is of the session.
func (p *peer) describe(now time.Time, n *tdpdv1.Neighbor) {
	state, since := p.session.State()
	n.State, n.StateMs, n.Role = state.String(), now.Sub(since).Milliseconds(), p.session.Role().String()
	n.Local, n.Remote, n.Gtsm = p.way.local.String(), p.way.remote.String(), p.way.gtsm
	n.Ups, n.Downs, n.LastDown = p.ups, p.downs, p.last
	n.Sent, n.Received = p.sent.text(), p.received.text()
	if state != session.Operational {
		return
	}
	agreed := p.session.Agreed()
	n.Agreed = &tdpdv1.Agreed{
		KeepaliveMs: agreed.KeepAlive.Milliseconds(), MaxPdu: uint32(agreed.MaxPDU), LoopDetection: agreed.LoopDetection, ReconnectMs: -1, RecoveryMs: -1,
	}
	for _, c := range agreed.Capabilities {
		if c.Enabled {
			n.Agreed.Capabilities = append(n.Agreed.Capabilities, capability(c.Type))
		}
	}
	if r := agreed.Restart; r != nil && r.GracefulRestart() && r.ReconnectTimeout > 0 {
		n.Agreed.ReconnectMs, n.Agreed.RecoveryMs = r.ReconnectTimeout.Milliseconds(), r.RecoveryTime.Milliseconds()
	}
}

func capability(t wire.TLVType) string {
	switch t {
	case wire.TLVDynamicCapability:
		return "dynamic"
	case wire.TLVTypedWildcardCapability:
		return "typed-wildcard"
	case wire.TLVUnrecognizedNotification:
		return "unrecognized-notification"
	}
	return t.String()
}

// tally counts messages by type; 0 stands for those beyond tallyTypes.
type tally map[wire.MessageType]uint64

// tallyTypes is more than there are; a peer may make others up.
const tallyTypes = 32

func (t tally) count(kind wire.MessageType) {
	if _, known := t[kind]; !known && len(t) >= tallyTypes {
		kind = 0
	}
	t[kind]++
}

func (t tally) text() map[string]uint64 {
	out := make(map[string]uint64, len(t))
	for kind, n := range t {
		if kind == 0 {
			out["others"] += n
		} else {
			out[kind.String()] += n
		}
	}
	return out
}

func (s *Service) labelStatus() *tdpdv1.Labels {
	st := s.labels.Stats()
	return &tdpdv1.Labels{
		Fecs: uint32(st.FECs), Used: uint32(st.Used), Free: uint32(st.Free), Waiting: uint32(st.Waiting),
		TurnedAway: st.TurnedAway, Loops: st.Loops, Ignored: st.Ignored,
	}
}

func (s *Service) forwardingStatus(now time.Time) *tdpdv1.Forwarding {
	ilm, ftn := s.tables.Size()
	out := &tdpdv1.Forwarding{Labels: uint32(ilm), Prefixes: uint32(ftn), RecoveryMs: s.kernel.recovery(now).Milliseconds()}
	if failure := s.kernel.failure.Load(); failure != nil {
		out.Error = failure.Error()
	}
	return out
}
