package service

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/binding"
	"github.com/manycast/manycast/tdpd/internal/discovery"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/session"
	"github.com/manycast/manycast/tdpd/internal/transport"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// peer is a router with which there is, or is to be, a session.
type peer struct {
	id      wire.Identifier
	way     way
	session *session.Session
	conn    transport.Conn // nil: there is none

	sent, received tally
	ups, downs     uint64
	last           string // why a session ended, or could not begin

	takesUsers bool // it offered to take bindings of users
	users      binding.Assembler
}

// way is what a session is made over.
type way struct {
	local, remote netip.Addr
	gtsm          bool // all the peer's adjacencies were of links that want it when the session began, or do now if there is none (RFC 6720)
}

func (w way) same(o way) bool { return w.local == o.local && w.remote == o.remote }

func (s *Service) sortedPeers() []*peer {
	return slices.SortedFunc(maps.Values(s.peers), func(a, b *peer) int { return a.id.Compare(b.id) })
}

// discovered carries out what discovery wants.
func (s *Service) discovered(now time.Time, actions []discovery.Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case discovery.Send:
			if err := s.Network.Hello(a); err != nil {
				s.Log.Debug("send a hello", "interface", a.Interface, "to", a.To, "err", err)
			}
		case discovery.Up:
			s.Log.Info("adjacency is up", "peer", a.Adjacency.Peer, "interface", a.Adjacency.Interface, "source", a.Adjacency.Source, "transport", a.Adjacency.Transport)
			s.settle(now, a.Adjacency.Peer, wire.StatusShutdown)
		case discovery.Changed:
			s.settle(now, a.Adjacency.Peer, wire.StatusShutdown)
			s.changed(now, a.Adjacency.Peer)
		case discovery.Down:
			s.Log.Warn("adjacency is down", "peer", a.Adjacency.Peer, "interface", a.Adjacency.Interface, "source", a.Adjacency.Source, "why", a.Status)
			s.settle(now, a.Adjacency.Peer, a.Status)
		}
	}
}

// settle makes, ends or leaves a peer's session as its adjacencies want; status is for the end.
func (s *Service) settle(now time.Time, id wire.Identifier, status wire.StatusCode) {
	p, all := s.peers[id], s.discovery.Of(id)
	w, ok := s.choose(all)
	if len(all) > 0 && !ok {
		s.Log.Warn("no session: hellos of both families, which do not say what is preferred (RFC 7552)", "peer", id)
		status = wire.StatusDualStackNoncompliance
	}
	if p != nil && (!ok || !p.way.same(w)) {
		s.leave(now, p, status)
		p = nil
	}
	switch {
	case !ok:
	case p == nil:
		s.meet(now, id, w)
	default:
		if state, _ := p.session.State(); state == session.Operational {
			s.distribute(now, s.labels.Adjacencies(now, id, all))
			s.setTunnels(now)
		}
	}
}

// leave ends what there is with a peer.
func (s *Service) leave(now time.Time, p *peer, status wire.StatusCode) {
	s.end(now, p, status)
	delete(s.peers, p.id)
	s.secure(p.way.remote)
	s.settlePlain()
}

// end ends a peer's session, or gives up the connection that is being opened for one.
func (s *Service) end(now time.Time, p *peer, status wire.StatusCode) {
	s.act(now, p, p.session.Shutdown(now, status, false))
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

// changed follows what a peer says of itself now: it is tried at once. A session that is being opened, and was held to GTSM otherwise
// than its hellos want, begins anew; one that is operational goes on with what was agreed.
func (s *Service) changed(now time.Time, id wire.Identifier) {
	p := s.peers[id]
	if p == nil {
		return
	}
	if state, _ := p.session.State(); state != session.Operational && s.agreeGTSM(p) && p.conn != nil {
		s.again(now, p)
		return
	}
	p.session.Retry(now)
}

// agreeGTSM has the next session with a peer held to GTSM as its hellos want it now (RFC 6720); it says whether that is new.
func (s *Service) agreeGTSM(p *peer) bool {
	w, ok := s.choose(s.discovery.Of(p.id))
	if !ok || p.way.gtsm == w.gtsm {
		return false
	}
	p.way.gtsm = w.gtsm
	s.settlePlain()
	return true
}

// settlePlain has packets to peers with GTSM leave without labels, those of the routes that lead to their sessions' addresses: they have to
// arrive with all their hops, and whoever takes a label off takes one of them. So do packets of users who are not active: routers on the
// way to a director see whose they are.
func (s *Service) settlePlain() {
	before := s.plain
	s.plain = map[netip.Prefix]bool{}
	for _, p := range s.peers {
		if !p.way.gtsm {
			continue
		}
		s.leavePlain(p.way.remote)
	}
	for _, b := range s.users.steered {
		for _, vip := range b.VIPs {
			if b.active != nil {
				s.leavePlain(vip)
			}
		}
	}
	for p := range before {
		if !s.plain[p] {
			s.pending.change(p)
		}
	}
	for p := range s.plain {
		if !before[p] {
			s.pending.change(p)
		}
	}
}

// leavePlain has packets to an address leave without labels.
func (s *Service) leavePlain(to netip.Addr) {
	s.plain[host(to)] = true
	if p, route := s.fecs.Table().Lookup(to); route != nil {
		s.plain[p] = true
	}
}

// choose finds over what addresses the session is: RFC 7552 section 6.1.1. A peer with hellos of both families that does not say
// what it prefers does not follow that, and has no session.
func (s *Service) choose(all []discovery.Adjacency) (w way, ok bool) {
	var four, six, told bool
	for _, a := range all {
		four, six, told = four || a.Source.Is4(), six || a.Source.Is6(), told || a.Preference != wire.PreferNone
	}
	if four && six && !told {
		return w, false
	}
	is4 := four && (!six || s.Config.Preference() == wire.PreferIPv4)
	w.gtsm = len(all) > 0
	for _, a := range all {
		if a.Source.Is4() == is4 {
			w.remote, ok = a.Transport, true
			w.gtsm = w.gtsm && s.Config.Hello.GTSM && a.GTSM
		}
	}
	w.local = s.Config.Transport6
	if is4 {
		w.local = s.Config.Transport4
	}
	return w, ok
}

// meet begins a session with a peer that is new, or has come by another way.
func (s *Service) meet(now time.Time, id wire.Identifier, w way) {
	c, limit := s.Config.Session, uint8(0)
	if c.LoopDetection {
		limit = uint8(c.PathLimit)
	}
	var offers []wire.TLV
	if s.Config.Users.Used() {
		offers = append(offers, binding.Capability())
	}
	p := &peer{id: id, way: w, sent: tally{}, received: tally{}, session: session.New(now, session.Config{
		Local: s.Config.ID(), Peer: id, Role: session.RoleOf(w.local, w.remote),
		KeepAlive: c.KeepAlive, MaxPDU: uint16(c.MaxPDU), LoopDetection: c.LoopDetection, PathVector: limit,
		Capabilities: []wire.CapabilityParameter{
			{Type: wire.TLVDynamicCapability, Enabled: true}, {Type: wire.TLVTypedWildcardCapability, Enabled: true},
			{Type: wire.TLVUnrecognizedNotification, Enabled: true},
		},
		Others: offers, Takes: func(m wire.VendorPrivate) bool { return s.Config.Users.Used() && binding.Ours(m) },
		Restart: func(now time.Time) *wire.FTSession { return s.Config.Restart.FTSession(s.preserved(now, id)) },
	})}
	s.peers[id] = p
	s.settlePlain()
	s.secure(w.remote)
	s.adopt(now, p)
	s.act(now, p, p.session.Tick(now))
}

func (s *Service) secret(id wire.Identifier) string { return s.Secrets[netip.AddrFrom4(id.LSR)] }

// secure has sessions with an address signed as the peer there wants it.
func (s *Service) secure(remote netip.Addr) {
	if len(s.Secrets) == 0 {
		return
	}
	secret := ""
	for _, p := range s.peers {
		if p.way.remote == remote {
			secret = cmp.Or(secret, s.secret(p.id))
		}
	}
	if err := s.Network.SetSecret(remote, secret); err != nil {
		s.Log.Error("sign the session", "peer", remote, "err", err)
	}
}

// preserved is how long a peer may count on the labels that it had of this router: those that are left of its last run, and all where
// the session just broke (RFC 3478 section 2); 0: it had none.
func (s *Service) preserved(now time.Time, id wire.Identifier) time.Duration {
	left := s.kernel.recovery(now)
	if s.labels.Awaits(id) {
		return max(left, s.Config.Restart.Recovery)
	}
	return left
}

// act carries out what a session wants.
func (s *Service) act(now time.Time, p *peer, actions []session.Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case session.Connect:
			s.agreeGTSM(p)
			p.conn = s.Network.Connect(transport.Options{Local: p.way.local, Peer: p.way.remote, Secret: s.secret(p.id), GTSM: p.way.gtsm})
		case session.Send:
			if p.conn != nil {
				p.conn.SetMaxPDU(p.session.MaxPDU())
				p.conn.Send(a.Message)
				p.sent.count(a.Message.Type())
			}
		case session.Close:
			if p.conn != nil {
				p.conn.Close()
				p.conn = nil
			}
		case session.Deliver:
			if m, ok := a.Message.(wire.VendorPrivate); ok {
				s.usersTold(now, p, m)
				continue
			}
			s.distribute(now, s.labels.Message(now, p.id, a.Message))
		case session.Up:
			s.up(now, p, a.Parameters)
		case session.Down:
			s.down(now, p, a)
		case session.Refused:
			p.last = a.Why.Error()
			s.Log.Info("no session", "peer", p.id, "why", a.Why, "again_at", a.Until)
		}
	}
}

func (s *Service) up(now time.Time, p *peer, agreed session.Parameters) {
	s.flush(now)
	s.counters.SessionsUp++
	p.ups++
	s.Log.Info("session is up", "peer", p.id, "address", p.way.remote, "role", p.session.Role(), "keepalive", agreed.KeepAlive)
	s.publish(Event{Time: now, What: SessionUp, Peer: p.id})
	s.distribute(now, s.labels.Up(now, labels.Peer{ID: p.id, Agreed: agreed, Adjacencies: s.discovery.Of(p.id)}))
	s.setTunnels(now)
	s.usersUp(now, p, agreed.Others)
}

func (s *Service) down(now time.Time, p *peer, d session.Down) {
	s.flush(now)
	s.counters.SessionsDown++
	p.downs, p.last = p.downs+1, d.Why.Error()
	s.Log.Warn("session is down", "peer", p.id, "why", d.Why, "labels_kept", d.Restart != nil)
	s.publish(Event{Time: now, What: SessionDown, Peer: p.id, Why: d.Why.Error()})
	s.distribute(now, s.labels.Down(now, p.id, d.Restart))
	s.usersDown(now, p)
	s.agreeGTSM(p)
}

// Clear ends the session with a peer, which may come back at once; the error wraps ErrNoPeer.
func (s *Service) Clear(now time.Time, id wire.Identifier) error {
	p := s.peers[id]
	if p == nil {
		return ErrNoPeer
	}
	s.again(now, p)
	return nil
}

// again ends a peer's session, and begins the next one where it is ours to connect.
func (s *Service) again(now time.Time, p *peer) {
	s.end(now, p, wire.StatusShutdown)
	p.session.Retry(now)
	s.act(now, p, p.session.Tick(now))
}

// ErrNoPeer says that there is no such neighbor.
var ErrNoPeer = errors.New("no such neighbor")
