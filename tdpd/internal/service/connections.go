package service

import (
	"time"

	"github.com/manycast/manycast/tdpd/internal/session"
	"github.com/manycast/manycast/tdpd/internal/transport"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

const (
	// firstWithin is how long somebody who connects may take to say who it is, and then until hellos of it are heard: it may have
	// heard ours before we hear its.
	firstWithin   = 10 * time.Second
	strangersMost = 256
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
		if p := s.with(e.Conn); p != nil {
			s.act(now, p, p.session.Connected(now))
		}
	case transport.Failed:
		if p := s.with(e.Conn); p != nil {
			p.conn = nil
			s.act(now, p, p.session.Failed(now, e.Err))
		}
	case transport.Accepted:
		if len(s.strangers) >= strangersMost {
			e.Conn.Close()
			return
		}
		s.strangers[e.Conn] = &stranger{until: now.Add(firstWithin)}
	case transport.Received:
		s.received(now, e)
	case transport.Closed:
		delete(s.strangers, e.Conn)
		if p := s.with(e.Conn); p != nil {
			p.conn = nil
			s.act(now, p, p.session.Failed(now, e.Err))
		}
	}
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
		if x.first != nil { // more than its Initialization, which nobody has answered
			s.refuse(r.Conn, wire.StatusShutdown)
			return
		}
		x.first = &r
		if p := s.peers[r.Sender]; p != nil {
			s.adopt(now, p)
		}
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

// adopt makes the connection of a stranger who turns out to be the peer that of its session.
func (s *Service) adopt(now time.Time, p *peer) {
	for c, x := range s.strangers {
		if x.first == nil || x.first.Sender != p.id || c.Remote() != p.way.remote {
			continue
		}
		if p.session.Role() != session.Passive {
			s.refuse(c, wire.StatusShutdown) // RFC 5036 section 2.5.2: it is ours to connect
			continue
		}
		delete(s.strangers, c)
		if err := s.protect(c, p); err != nil {
			s.Log.Error("session refused: it cannot be protected", "peer", p.id, "err", err)
			s.refuse(c, wire.StatusShutdown)
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
			s.refuse(c, wire.StatusRejectedNoHello)
		}
	}
}

func (s *Service) refuse(c transport.Conn, status wire.StatusCode) {
	delete(s.strangers, c)
	s.counters.Strangers++
	c.Send((&wire.Error{Status: status}).Notification(1))
	c.Close()
}
