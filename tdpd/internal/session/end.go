package session

import (
	"errors"
	"fmt"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

var (
	errReplaced = errors.New("the peer has opened another connection")
	errClosed   = errors.New("the peer has closed the connection")
)

// Malformed is a PDU or message that the codec refused. Its error says what follows: nothing but a notification, or the end.
func (s *Session) Malformed(now time.Time, err *wire.Error) []Action {
	if s.state == NonExistent {
		return nil
	}
	s.heard = now
	if err.Fatal() || s.state != Operational {
		s.notifyAndEnd(now, err)
	} else {
		s.send(now, err.Notification(0))
	}
	return s.take()
}

// Notify tells the peer of an error that does not end the session.
func (s *Session) Notify(now time.Time, err *wire.Error) []Action { return s.Malformed(now, err) }

// Say sends a message of the label distribution; it is dropped where the session is not operational.
func (s *Session) Say(now time.Time, m wire.Message) []Action {
	if s.state == Operational {
		s.send(now, m)
	}
	return s.take()
}

// Failed is a connection that could not be opened, or that was closed or broke: err says why, nil: the peer closed it.
func (s *Session) Failed(now time.Time, err error) []Action {
	if err == nil {
		err = errClosed
	}
	if s.connecting {
		s.connecting = false
		s.refused(err, now.Add(connectAgain))
		return s.take()
	}
	if s.state != NonExistent {
		s.end(now, err)
	}
	return s.take()
}

// Shutdown ends the session on purpose: the peer's last adjacency is gone, or the operator wants it. restart: this router comes back
// and keeps its labels (RFC 3478): nothing is said, the connection just ends.
func (s *Session) Shutdown(now time.Time, status wire.StatusCode, restart bool) []Action {
	switch {
	case s.state == NonExistent:
		s.connecting, s.retry = false, time.Time{}
		return nil
	case restart:
		s.end(now, errors.New("restart"))
	default:
		s.notifyAndEnd(now, refusal(status, "shut down"))
	}
	return s.take()
}

// Retry makes an active session that waits connect at once: its peer has changed its configuration (RFC 5036 section 2.5.3), or the
// operator wants it.
func (s *Session) Retry(now time.Time) {
	if s.cfg.Role == Active && s.state == NonExistent && !s.connecting {
		s.retry, s.backoff = now, 0
	}
}

// unexpected is a message that the state has no row for.
func (s *Session) unexpected(now time.Time, m wire.Message) {
	err := refusal(wire.StatusShutdown, "not expected in state %v", s.state)
	err.MessageID, err.MessageType = m.MessageID(), m.Type()
	s.notifyAndEnd(now, err)
}

// refusedBy is a notification that ends the session.
func (s *Session) refusedBy(now time.Time, n wire.Notification) {
	s.end(now, &toldError{n.Status})
}

func (s *Session) notifyAndEnd(now time.Time, err *wire.Error) {
	s.send(now, err.Notification(0))
	s.end(now, err)
}

// end leaves the connection. The peer of a session that was operational may be connected again at once; one that refuses is left alone
// for a time that doubles, so that two routers that cannot agree do not talk of nothing else.
func (s *Session) end(now time.Time, why error) {
	was, agreed := s.state, s.agreed
	s.actions = append(s.actions, Close{})
	s.agreed = Parameters{}
	s.to(now, NonExistent)
	if was != Operational {
		s.refuse(now, why)
		return
	}
	if s.cfg.Role == Active {
		s.retry = now
	}
	s.actions = append(s.actions, Down{why, keeps(agreed, why)})
}

// keeps is how long the peer wants its labels kept. Who says that it goes does not come back for them.
func keeps(agreed Parameters, why error) *wire.FTSession {
	var told *toldError
	var found *wire.Error
	if errors.As(why, &told) || errors.As(why, &found) && found.Status != wire.StatusKeepAliveTimerExpired {
		return nil
	}
	return agreed.Restart
}

// toldError is a notification of the peer's that ended the session.
type toldError struct{ status wire.Status }

func (e *toldError) Error() string { return fmt.Sprintf("the peer says: %v", e.status.Code) }

// refuse plans the next try with a peer that does not agree. A connection that breaks without a word is not that, the first time: a process
// that is killed still takes a connection at its end, and may be back in a moment.
func (s *Session) refuse(now time.Time, why error) {
	var told *toldError
	var found *wire.Error
	if !s.broke && !errors.As(why, &told) && !errors.As(why, &found) {
		s.broke = true
		s.refused(why, now.Add(connectAgain))
		return
	}
	if s.cfg.Role == Active {
		s.backoff = min(max(2*s.backoff, minBackoff), maxBackoff)
	}
	s.refused(why, now.Add(s.backoff))
}

func (s *Session) refused(why error, until time.Time) {
	r := Refused{Why: why}
	if s.cfg.Role == Active {
		s.retry, r.Until = until, until
	}
	s.actions = append(s.actions, r)
}
