package service

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/session"
	"github.com/manycast/manycast/tdpd/internal/transport"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

const (
	// firstWithin is how long somebody who connects may take to say who it is, and then until hellos of it are heard: it may have
	// heard ours before we hear its.
	firstWithin = 10 * time.Second
	// strangersMost is how many may be at that at a time, and strangersOfOne how many of one address.
	strangersMost  = 256
	strangersOfOne = 4
)

// stranger is who has connected and is no peer yet.
type stranger struct {
	until time.Time
	first *transport.Received // nil: nothing has come
}

// event takes what the network tells.
func (s *Service) event(now time.Time, e transport.Event) {
	switch e := e.(type) {
	case transport.Hello:
		s.hello(now, e)
	case transport.Connected:
		p := s.with(e.Conn)
		if p == nil { // given up while it was on its way
			e.Conn.Close()
			return
		}
		s.act(now, p, p.session.Connected(now))
	case transport.Failed:
		if p := s.with(e.Conn); p != nil {
			p.conn = nil
			s.act(now, p, p.session.Failed(now, e.Err))
		}
	case transport.Accepted:
		s.accepted(now, e.Conn)
	case transport.Received:
		s.received(now, e)
	case transport.Dropped:
		s.dropped(now, e)
	case transport.Closed:
		delete(s.strangers, e.Conn)
		if p := s.with(e.Conn); p != nil {
			p.conn = nil
			s.act(now, p, p.session.Failed(now, e.Err))
		}
	}
}

// accepted gives who connects a place to say who it is. Of one address the newest have one. Where all are taken it gets none, unless it
// comes from a neighbor's address: then it gets that of who has waited longest and does not.
func (s *Service) accepted(now time.Time, c transport.Conn) {
	oldest, n := s.waiting(func(from netip.Addr) bool { return from == c.Remote() })
	if n < strangersOfOne {
		oldest = nil
		if len(s.strangers) >= strangersMost {
			oldest, _ = s.waiting(func(from netip.Addr) bool { return !s.expects(from) })
			if oldest == nil || !s.expects(c.Remote()) {
				oldest, c = c, nil
			}
		}
	}
	if oldest != nil {
		s.refuse(oldest, &wire.Error{Status: wire.StatusShutdown})
	}
	if c != nil {
		s.strangers[c] = &stranger{until: now.Add(firstWithin)}
	}
}

// waiting is the stranger that has waited longest of those from such addresses, and how many there are.
func (s *Service) waiting(from func(netip.Addr) bool) (oldest transport.Conn, n int) {
	for c, x := range s.strangers {
		if !from(c.Remote()) {
			continue
		}
		n++
		if oldest == nil || x.until.Before(s.strangers[oldest].until) {
			oldest = c
		}
	}
	return oldest, n
}

// expects says whether the address is where a neighbor's sessions come from.
func (s *Service) expects(from netip.Addr) bool {
	for _, p := range s.peers {
		if p.way.remote == from {
			return true
		}
	}
	return false
}

// with is the peer whose connection it is.
func (s *Service) with(c transport.Conn) *peer {
	for _, p := range s.peers {
		if p.conn == c {
			return p
		}
	}
	return nil
}

func (s *Service) hello(now time.Time, e transport.Hello) {
	if e.Err != nil {
		s.discovered(now, s.discovery.Unusable(e.Received, e.Err))
		return
	}
	actions, err := s.discovery.Hello(now, e.Received)
	if err != nil {
		s.Log.Debug("hello refused", "err", err)
	}
	s.discovered(now, actions)
}

func (s *Service) received(now time.Time, r transport.Received) {
	if x := s.strangers[r.Conn]; x != nil {
		s.introduced(now, x, r)
		return
	}
	p := s.with(r.Conn)
	if p == nil {
		return
	}
	if r.Sender != p.id && (len(r.Messages) == 0 || r.Messages[0].Err == nil) {
		s.act(now, p, p.session.Malformed(now, &wire.Error{Status: wire.StatusBadLDPIdentifier, Reason: "PDU of " + r.Sender.String()}))
		return
	}
	for _, m := range r.Messages {
		if p.conn != r.Conn { // the session has ended by the message before
			return
		}
		if m.Err != nil {
			s.act(now, p, p.session.Malformed(now, m.Err))
		} else {
			p.received.count(m.Message.Type())
			s.act(now, p, p.session.Message(now, m.Message))
		}
	}
}

// introduced takes what a stranger says. What is no Initialization for this router makes no session, and does nothing to the one that
// there may be.
func (s *Service) introduced(now time.Time, x *stranger, r transport.Received) {
	first := slices.IndexFunc(r.Messages, func(m transport.Message) bool { return !session.Ignored(m.Message) })
	if first < 0 {
		return
	}
	p := s.peers[r.Sender]
	if err := s.opens(r.Messages[first]); x.first != nil || err != nil {
		if err == nil { // more than its Initialization, which nobody has answered
			err = &wire.Error{Status: wire.StatusShutdown}
		}
		if p != nil && p.conn == nil && p.way.remote == r.Conn.Remote() {
			p.last = err.Error()
		}
		s.refuse(r.Conn, err)
		return
	}
	x.first = &r
	if p != nil {
		s.adopt(now, p)
	}
}

// opens says what is wrong with a message that a connection begins with.
func (s *Service) opens(m transport.Message) *wire.Error {
	init, is := m.Message.(wire.Initialization)
	switch {
	case m.Err != nil:
		return m.Err
	case !is:
		return &wire.Error{Status: wire.StatusShutdown, MessageID: m.Message.MessageID(), MessageType: m.Message.Type(), Reason: "not an Initialization"}
	case init.Receiver != s.Config.ID():
		return &wire.Error{Status: wire.StatusRejectedNoHello, MessageID: init.ID, MessageType: init.Type(), Reason: "meant for " + init.Receiver.String()}
	}
	return nil
}

// adopt makes the connection of a stranger who turns out to be the peer that of its session.
func (s *Service) adopt(now time.Time, p *peer) {
	for c, x := range s.strangers {
		if x.first == nil || x.first.Sender != p.id || c.Remote() != p.way.remote {
			continue
		}
		if p.session.Role() != session.Passive {
			s.refuse(c, &wire.Error{Status: wire.StatusShutdown}) // RFC 5036 section 2.5.2: it is ours to connect
			continue
		}
		delete(s.strangers, c)
		s.agreeGTSM(p)
		if err := s.protect(c, p); err != nil {
			s.Log.Error("session refused: it cannot be protected", "peer", p.id, "err", err)
			s.refuse(c, &wire.Error{Status: wire.StatusShutdown})
			continue
		}
		actions := p.session.Connected(now) // which may end what was before
		s.act(now, p, actions)
		p.conn = c
		s.received(now, *x.first)
	}
}

// protect holds a connection that was accepted to what is wanted of the peer's sessions.
func (s *Service) protect(c transport.Conn, p *peer) error {
	if secret := s.secret(p.id); secret != "" {
		if err := c.SetSecret(secret); err != nil {
			return err
		}
	}
	if p.way.gtsm {
		return c.SetGTSM()
	}
	return nil
}

// turnAway refuses those who have taken too long.
func (s *Service) turnAway(now time.Time) {
	for c, x := range s.strangers {
		if !now.Before(x.until) {
			s.refuse(c, &wire.Error{Status: wire.StatusRejectedNoHello})
		}
	}
}

func (s *Service) refuse(c transport.Conn, why *wire.Error) {
	delete(s.strangers, c)
	s.counters.Strangers++
	c.Send(why.Notification(1))
	c.Close()
}
