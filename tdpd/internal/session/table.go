package session

import (
	"errors"
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
		s.send(now, s.initialization(now))
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
//	any          what is to be ignored where it is not known                   -> the same
//	any          Shutdown or an error that ends sessions                       -> NON EXISTENT
//	any else     what may not come here: send a notification (Shutdown)        -> NON EXISTENT
func (s *Session) Message(now time.Time, m wire.Message) []Action {
	if s.state == NonExistent {
		return nil
	}
	s.heard = now
	notification, isNotification := m.(wire.Notification)
	switch {
	case Ignored(m) && (s.state != Operational || !s.takes(m)):
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

// Ignored says whether a message is passed over as if it had not come: those that nobody here knows, and whose U bit says so (RFC 5036
// section 3.5).
func Ignored(m wire.Message) bool {
	switch m := m.(type) {
	case wire.UnknownMessage:
		return true
	case wire.VendorPrivate:
		return m.Unknown
	}
	return false
}

func (s *Session) takes(m wire.Message) bool {
	v, ok := m.(wire.VendorPrivate)
	return ok && s.cfg.Takes != nil && s.cfg.Takes(v)
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
		s.send(now, s.initialization(now))
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
	s.backoff, s.broke = 0, false
	s.to(now, Operational)
	s.actions = append(s.actions, Up{s.agreed})
}

func (s *Session) operating(now time.Time, m wire.Message) {
	switch m := m.(type) {
	case wire.KeepAlive:
	case wire.Initialization:
		s.unexpected(now, m)
	case wire.VendorPrivate:
		var err *wire.Error
		if s.takes(m) {
			s.actions = append(s.actions, Deliver{m})
		} else if errors.As(m.NotKnown(), &err) {
			s.send(now, err.Notification(0))
		}
	case wire.Hello: // those come in datagrams; here it is no message
		err := refusal(wire.StatusUnknownMessageType, "in a session")
		err.MessageID, err.MessageType = m.MessageID(), m.Type()
		s.send(now, err.Notification(0))
	default:
		s.actions = append(s.actions, Deliver{m})
	}
}
