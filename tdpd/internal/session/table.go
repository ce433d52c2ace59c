package session

import (
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// Connected is "session connection established": the TCP connection is there.
//
//	NON EXISTENT -> INITIALIZED; the active side sends Initialization: -> OPENSENT
func (s *Session) Connected(now time.Time) []Action {
	if s.state != NonExistent { // a peer that connects anew has lost the old connection, known to us or not
		s.end(now, errReplaced)
	}
	s.connecting, s.retry = false, time.Time{}
	s.heard = now
	s.to(now, Initialized)
	if s.cfg.Role == Active {
		s.send(now, s.initialization())
		s.to(now, OpenSent)
	}
	return s.take()
}

// Message is a message of a PDU that the codec took.
//
//	INITIALIZED  Initialization, acceptable: send Initialization and KeepAlive -> OPENREC
//	OPENSENT     Initialization, acceptable: send KeepAlive                    -> OPENREC
//	OPENREC      KeepAlive                                                     -> OPERATIONAL
//	OPERATIONAL  other messages                                                -> OPERATIONAL
//	any          Shutdown or an error that ends sessions                       -> NON EXISTENT
//	any else     what may not come here: send a notification (Shutdown)        -> NON EXISTENT
func (s *Session) Message(now time.Time, m wire.Message) []Action {
	if s.state == NonExistent {
		return nil
	}
	s.heard = now
	notification, isNotification := m.(wire.Notification)
	switch {
	case isNotification && notification.Status.Fatal:
		s.refusedBy(now, notification)
	case s.state == Initialized || s.state == OpenSent:
		s.opening(now, m)
	case s.state == OpenReceived:
		s.confirming(now, m)
	default:
		s.operating(now, m)
	}
	return s.take()
}

// opening expects an Initialization.
func (s *Session) opening(now time.Time, m wire.Message) {
	init, ok := m.(wire.Initialization)
	if !ok {
		s.unexpected(now, m)
		return
	}
	agreed, err := s.negotiate(init)
	if err != nil {
		s.notifyAndEnd(now, err)
		return
	}
	s.agreed = agreed
	if s.state == Initialized {
		s.send(now, s.initialization())
	}
	s.send(now, wire.KeepAlive{})
	s.to(now, OpenReceived)
}

// confirming expects a KeepAlive.
func (s *Session) confirming(now time.Time, m wire.Message) {
	if _, ok := m.(wire.KeepAlive); !ok {
		s.unexpected(now, m)
		return
	}
	s.backoff = 0
	s.to(now, Operational)
	s.actions = append(s.actions, Up{s.agreed})
}

func (s *Session) operating(now time.Time, m wire.Message) {
	switch m.(type) {
	case wire.KeepAlive:
	case wire.Initialization:
		s.unexpected(now, m)
	default:
		s.actions = append(s.actions, Deliver{m})
	}
}
