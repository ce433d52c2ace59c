package relay

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/manycast/manycast/lbd/internal/relay/exchange"
	"github.com/manycast/manycast/lbd/migrate"
)

// finWait is how long a user whose backend has ended may be silent: as long as a server's kernel waits for the end of what the server has
// closed (net.ipv4.tcp_fin_timeout).
const finWait = time.Minute

// past is a deadline that interrupts.
var past = time.Unix(1, 0)

// session is a user's connection and the one to the backend that belongs to it. Its owner is the goroutine of serve, which carries what the user
// says; another one carries the answers.
type session struct {
	relay    *Relay
	backend  backend
	user     *migrate.Conn
	answered chan struct{} // closed when nobody carries answers; nil: there is no backend yet

	mu       sync.Mutex
	server   halfConn // nil: as long as no request has come since the connection's arrival
	exchange exchange.Exchange
	carried  int          // pieces that were read, and are not passed on yet
	when     migrate.When // what the agent was told
	quiet    bool         // the user says nothing more
	ended    bool         // the backend says nothing more
	stopping bool
}

func newSession(r *Relay, b backend, user *migrate.Conn) (*session, error) {
	s := &session{relay: r, backend: b, user: user, when: migrate.Later}
	if state, ok := user.Imported(); ok {
		requests, err := decodeState(state)
		if err != nil {
			return nil, err
		}
		s.exchange = exchange.Resume(requests)
	}
	return s, nil
}

// serve carries until both ends have ended, or the connection has left.
func (s *session) serve() {
	defer s.close()
	if s.exchange.Requests() == 0 && !s.connect() { // at once: in some protocols the server speaks first
		return
	}
	s.begin()
	b := buffer{of: s.relay.buffers}
	defer b.free()
	for {
		n, err := s.user.Read(b.room())
		switch {
		case n > 0:
			if !s.request(b.room()[:n]) {
				return
			}
			b.passed(n)
		case errors.Is(err, migrate.ErrMoving):
			if s.leave() {
				return
			}
		default:
			s.userEnds(err)
			return
		}
	}
}

// begin has the agent's requests heard from now on.
func (s *session) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell()
}

// connect opens the connection to the backend. Where there is none the user hears what a host without a server says.
func (s *session) connect() bool {
	server, err := s.backend.dial(addrPort(s.user.RemoteAddr()), addrPort(s.user.LocalAddr()))
	s.relay.reached(s.backend, err)
	if err != nil {
		reset(s.user)
		return false
	}
	s.mu.Lock()
	s.server = server
	s.mu.Unlock()
	s.follow()
	return true
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(tcp.AddrPort().Addr().Unmap(), tcp.AddrPort().Port())
}

// request passes on what the user said, and reports whether there is more to do.
func (s *session) request(p []byte) bool {
	s.mu.Lock()
	s.exchange.Request(p)
	s.carried++
	s.tell()
	s.mu.Unlock()
	if s.answered == nil && !s.connect() {
		return false
	}
	if _, err := s.server.Write(p); err != nil { // what it said before is still to be passed on
		s.hush()
		<-s.answered
		s.reset()
		return false
	}
	s.delivered()
	return true
}

// follow begins to carry answers.
func (s *session) follow() {
	s.answered = make(chan struct{})
	go func() {
		defer close(s.answered)
		if err := s.carryAnswers(); !errors.Is(err, os.ErrDeadlineExceeded) {
			s.serverEnds(err)
		}
	}()
}

// carryAnswers passes on what the backend says, until an error: io.EOF at its end, os.ErrDeadlineExceeded for a pause.
func (s *session) carryAnswers() error {
	b := buffer{of: s.relay.buffers}
	defer b.free()
	for {
		n, err := s.server.Read(b.room())
		if err != nil {
			return err
		}
		if err := s.answer(b.room()[:n]); err != nil {
			return err
		}
		b.passed(n)
	}
}

// answer passes on what the backend said.
func (s *session) answer(p []byte) error {
	s.mu.Lock()
	s.exchange.Response(p)
	s.carried++
	s.tell()
	s.mu.Unlock()
	err := s.untilHere(func() error {
		n, err := s.user.Write(p)
		p = p[n:]
		return err
	})
	if err == nil {
		s.delivered()
	}
	return err
}

// untilHere repeats a call that is interrupted because the connection is asked to leave.
func (s *session) untilHere(call func() error) error {
	for {
		err := call()
		if !errors.Is(err, migrate.ErrMoving) {
			return err
		}
		s.stay()
	}
}

// serverEnds passes the backend's end on. The user may still talk to it.
func (s *session) serverEnds(err error) {
	s.mu.Lock()
	s.ended = true
	s.tell()
	s.mu.Unlock()
	if errors.Is(err, io.EOF) {
		err = s.untilHere(s.user.CloseWrite)
	}
	if err != nil {
		s.reset()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurry()
}

// userEnds passes the user's end on, and waits for that of the backend, which may still answer.
func (s *session) userEnds(err error) {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded): // finWait is over, or the relay stops
	case s.answered == nil:
	case errors.Is(err, io.EOF):
		s.hush()
		if err := s.server.CloseWrite(); err != nil {
			s.reset()
		}
		<-s.answered
	default:
		s.reset()
		<-s.answered
	}
}

// hush says that nobody reads from the user any more, who could hear that the connection is asked to leave.
func (s *session) hush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = true
	s.tell()
}

// leave gives the connection away where it is between requests, and reports whether it is not ours any more.
func (s *session) leave() bool {
	if !s.mayLeave() {
		s.stay()
		return false
	}
	s.pause()
	if !s.mayLeave() {
		s.resume()
		s.stay()
		return false
	}
	err := s.user.Move(encodeState(s.exchange.Requests()))
	if errors.Is(err, migrate.ErrStays) {
		s.resume()
		return false
	}
	if err == nil {
		s.relay.counters.moved.Add(1)
	}
	return true
}

// pause ends the carrying of answers, of which none is on its way.
func (s *session) pause() {
	if s.answered != nil {
		_ = s.server.SetReadDeadline(past)
		<-s.answered
	}
}

func (s *session) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answered != nil && !s.ended {
		_ = s.server.SetReadDeadline(time.Time{})
		s.follow()
	}
}

func (s *session) mayLeave() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.between()
}

// stay declines a request to leave, for the first of the two goroutines that has heard of it.
func (s *session) stay() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.user.Moving():
	default:
		return
	}
	if why := s.mode(); why != modeBetween { // else leave tries again
		s.relay.counters.stayed(why)
		s.user.Stay(why)
	}
}

// delivered is called when a piece has been passed on.
func (s *session) delivered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.carried--
	s.tell()
	if s.ended {
		s.hurry()
	}
}

// tell has the agent's requests heard where they can be answered. mu is held.
func (s *session) tell() {
	when := migrate.Later
	switch {
	case s.quiet:
		when = migrate.Never
	case s.between() || s.exchange.Opaque() != "" || s.ended:
		when = migrate.Now
	}
	if when != s.when {
		s.when = when
		s.user.SetMovable(when)
	}
	if s.stopping && s.between() {
		_ = s.user.SetReadDeadline(past)
	}
}

// hurry bounds how long the user may be silent, when nobody answers any more. mu is held.
func (s *session) hurry() { _ = s.user.SetReadDeadline(time.Now().Add(s.relay.config.finWait)) }

// between reports whether the connection may leave. mu is held.
func (s *session) between() bool {
	return s.exchange.Between() && s.carried == 0 && !s.ended && !s.quiet
}

// Modes that are no exchange.Reason.
const (
	modeBetween   = "between"
	modeInRequest = "in-request"
)

// mode is what the connection is at, for counters. mu is held.
func (s *session) mode() string {
	switch why := s.exchange.Opaque(); {
	case why != "":
		return string(why)
	case s.ended || s.quiet:
		return string(exchange.Closing)
	case s.between():
		return modeBetween
	}
	return modeInRequest
}

// stop ends the session as soon as it is between requests.
func (s *session) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	s.tell()
}

// reset has both ends hear of an end that is not an orderly one.
func (s *session) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	reset(s.user)
	s.user.Close()
	if s.server != nil {
		reset(s.server)
		s.server.Close()
	}
}

// close ends what has not ended, and waits for the other goroutine.
func (s *session) close() {
	s.mu.Lock()
	s.user.Close()
	if s.server != nil {
		s.server.Close()
	}
	s.mu.Unlock()
	if s.answered != nil {
		<-s.answered
	}
}
