package session

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

var (
	local = wire.Identifier{LSR: wire.LSRID{1, 1, 1, 1}}
	peer  = wire.Identifier{LSR: wire.LSRID{2, 2, 2, 2}}
	start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

// proposal is an acceptable Initialization of the peer.
func proposal() wire.Initialization {
	return wire.Initialization{SessionParameters: wire.SessionParameters{KeepAliveTime: 30, MaxPDULength: 1400, Receiver: local}}
}

// text is actions in few words, as the tables below have them.
func text(actions []Action) string {
	var out []string
	for _, a := range actions {
		switch a := a.(type) {
		case Send:
			word := a.Message.Type().String()
			if n, ok := a.Message.(wire.Notification); ok {
				word = n.Status.Code.String()
			}
			out = append(out, "send "+word)
		case Deliver:
			out = append(out, "deliver "+a.Message.Type().String())
		case Refused:
			word := "refused"
			if !a.Until.IsZero() {
				word += fmt.Sprintf(" %v", a.Until.Sub(start))
			}
			out = append(out, word)
		default:
			out = append(out, strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", a), "session.")))
		}
	}
	return strings.Join(out, ", ")
}

// inState is a session of that role brought to that state by the shortest way.
func inState(t *testing.T, role Role, state State) *Session {
	t.Helper()
	s := New(start, Config{
		Local: local, Peer: peer, Role: role, KeepAlive: 60 * time.Second,
		Takes: func(m wire.VendorPrivate) bool { return m.Vendor == 7 },
	})
	if role == Active {
		if got := text(s.Tick(start)); got != "connect" {
			t.Fatalf("an active session began with %q", got)
		}
	}
	for _, step := range []func(){
		func() { s.Connected(start) },
		func() { s.Message(start, proposal()) },
		func() { s.Message(start, wire.KeepAlive{}) },
	} {
		if now, _ := s.State(); now == state {
			return s
		}
		step()
	}
	if now, _ := s.State(); now != state {
		t.Fatalf("state %v, want %v", now, state)
	}
	return s
}

// TestTransitions is the table of RFC 5036 section 2.5.4: every state against every kind of event.
func TestTransitions(t *testing.T) {
	foreign := proposal()
	foreign.Receiver = wire.Identifier{LSR: wire.LSRID{9, 9, 9, 9}}
	fatal := wire.Notification{Status: wire.NewStatus(wire.StatusShutdown)}
	advice := wire.Notification{Status: wire.NewStatus(wire.StatusNoRoute)}
	message := func(m wire.Message) func(*Session) []Action {
		return func(s *Session) []Action { return s.Message(start, m) }
	}
	unknown, vendors := wire.UnknownMessage{MessageType: 0x3f00}, wire.VendorPrivate{MessageType: 0x3e01, Unknown: true}
	gone := "close, refused 15s"
	for _, x := range []struct {
		role  Role
		state State
		event string
		do    func(*Session) []Action
		want  State
		out   string
	}{
		{Active, NonExistent, "connected", func(s *Session) []Action { return s.Connected(start) }, OpenSent, "send Initialization"},
		{Passive, NonExistent, "connected", func(s *Session) []Action { return s.Connected(start) }, Initialized, ""},
		{Active, NonExistent, "not connected", func(s *Session) []Action { return s.Failed(start, errors.New("refused")) }, NonExistent, "refused 1s"},
		{Passive, NonExistent, "message", message(wire.KeepAlive{}), NonExistent, ""},
		{Passive, Initialized, "good Initialization", message(proposal()), OpenReceived, "send Initialization, send KeepAlive"},
		{Passive, Initialized, "foreign Initialization", message(foreign), NonExistent, "send Session Rejected/No Hello, close, refused"},
		{Passive, Initialized, "KeepAlive", message(wire.KeepAlive{}), NonExistent, "send Shutdown, close, refused"},
		{Active, OpenSent, "good Initialization", message(proposal()), OpenReceived, "send KeepAlive"},
		{Active, OpenSent, "foreign Initialization", message(foreign), NonExistent, "send Session Rejected/No Hello, " + gone},
		{Active, OpenSent, "KeepAlive", message(wire.KeepAlive{}), NonExistent, "send Shutdown, " + gone},
		{Active, OpenSent, "mapping", message(wire.LabelMapping{}), NonExistent, "send Shutdown, " + gone},
		{Active, OpenSent, "refusal", message(fatal), NonExistent, gone},
		{Passive, Initialized, "unknown, to be ignored", message(unknown), Initialized, ""},
		{Active, OpenSent, "unknown, to be ignored", message(unknown), OpenSent, ""},
		{Active, OpenSent, "a vendor's, to be ignored", message(vendors), OpenSent, ""},
		{Active, OpenReceived, "unknown, to be ignored", message(unknown), OpenReceived, ""},
		{Active, OpenReceived, "a vendor's", message(wire.VendorPrivate{MessageType: 0x3e01}), NonExistent, "send Shutdown, " + gone},
		{Active, Operational, "unknown, to be ignored", message(unknown), Operational, ""},
		{Active, Operational, "a vendor's, to be ignored", message(vendors), Operational, ""},
		{Active, Operational, "a vendor's that is taken", message(wire.VendorPrivate{MessageType: 0x3e02, Unknown: true, Vendor: 7}), Operational, "deliver 0x3e02"},
		{Active, Operational, "a vendor's", message(wire.VendorPrivate{MessageType: 0x3e01}), Operational, "send Unknown Message Type"},
		{Active, Operational, "Hello", message(wire.Hello{}), Operational, "send Unknown Message Type"},
		{Active, OpenSent, "Hello", message(wire.Hello{}), NonExistent, "send Shutdown, " + gone},
		{Active, OpenReceived, "KeepAlive", message(wire.KeepAlive{}), Operational, "up"},
		{Active, OpenReceived, "Initialization", message(proposal()), NonExistent, "send Shutdown, " + gone},
		{Active, OpenReceived, "refusal", message(fatal), NonExistent, gone},
		{Active, OpenReceived, "malformed", func(s *Session) []Action {
			return s.Malformed(start, refusal(wire.StatusUnknownTLV, "x"))
		}, NonExistent, "send Unknown TLV, " + gone},
		{Active, Operational, "KeepAlive", message(wire.KeepAlive{}), Operational, ""},
		{Active, Operational, "mapping", message(wire.LabelMapping{}), Operational, "deliver Label Mapping"},
		{Active, Operational, "advice", message(advice), Operational, "deliver Notification"},
		{Active, Operational, "Initialization", message(proposal()), NonExistent, "send Shutdown, close, down"},
		{Active, Operational, "shutdown", message(fatal), NonExistent, "close, down"},
		{Active, Operational, "malformed", func(s *Session) []Action {
			return s.Malformed(start, refusal(wire.StatusMalformedTLVValue, "x"))
		}, NonExistent, "send Malformed TLV Value, close, down"},
		{Active, Operational, "odd", func(s *Session) []Action {
			return s.Malformed(start, refusal(wire.StatusUnknownTLV, "x"))
		}, Operational, "send Unknown TLV"},
		{Active, Operational, "closed", func(s *Session) []Action { return s.Failed(start, nil) }, NonExistent, "close, down"},
		{Passive, Operational, "connected anew", func(s *Session) []Action { return s.Connected(start) }, Initialized, "close, down"},
		{Active, Operational, "hello expired", func(s *Session) []Action {
			return s.Shutdown(start, wire.StatusHoldTimerExpired, false)
		}, NonExistent, "send Hold Timer Expired, close, down"},
		{Active, Operational, "restart", func(s *Session) []Action { return s.Shutdown(start, wire.StatusShutdown, true) }, NonExistent, "close, down"},
	} {
		s := inState(t, x.role, x.state)
		got := text(x.do(s))
		if state, _ := s.State(); state != x.want || got != x.out {
			t.Errorf("%v, %v, %s: %v %q, want %v %q", x.role, x.state, x.event, state, got, x.want, x.out)
		}
	}
}

func TestNegotiation(t *testing.T) {
	s := inState(t, Passive, Operational)
	if p := s.Agreed(); p.KeepAlive != 30*time.Second || p.MaxPDU != 1400 || s.MaxPDU() != 1400 {
		t.Errorf("agreed on %+v", p)
	}
	if got := inState(t, Passive, Initialized).MaxPDU(); got != wire.DefaultMaxPDULength {
		t.Errorf("before that PDUs may have %d bytes", got)
	}
}

// TestKeepAlives: something leaves three times in the agreed time, and a peer that says nothing for all of it is gone.
func TestKeepAlives(t *testing.T) {
	s := inState(t, Active, Operational)
	for i := 1; i <= 2; i++ {
		at := s.Next()
		if want := start.Add(time.Duration(i) * 10 * time.Second); at != want {
			t.Fatalf("next at %v, want %v", at.Sub(start), want.Sub(start))
		}
		if got := text(s.Tick(at)); got != "send KeepAlive" {
			t.Fatalf("at %v: %q", at.Sub(start), got)
		}
	}
	if got := text(s.Say(start.Add(25*time.Second), wire.LabelMapping{})); got != "send Label Mapping" {
		t.Fatal(got)
	}
	if at := s.Next(); at != start.Add(30*time.Second) {
		t.Fatalf("next at %v, want the end of the peer's time", at.Sub(start))
	}
	if got := text(s.Tick(start.Add(30 * time.Second))); got != "send KeepAlive Timer Expired, close, down" {
		t.Fatal(got)
	}
}

// TestSilentOpening: a peer that connects and says nothing does not hold a session for ever.
func TestSilentOpening(t *testing.T) {
	for role, state := range map[Role]State{Passive: Initialized, Active: OpenSent} {
		s := inState(t, role, state)
		s.Tick(s.Next())
		if now, _ := s.State(); now != NonExistent {
			t.Errorf("%v: still in %v after %v", role, now, answerWithin)
		}
	}
}

// TestBackoff: refusals are followed by longer and longer waits (RFC 5036 section 2.5.3), an operational session ends them.
func TestBackoff(t *testing.T) {
	s := New(start, Config{Local: local, Peer: peer, Role: Active})
	now := start
	var waits []time.Duration
	for range 6 {
		s.Tick(now)
		s.Connected(now)
		s.Message(now, wire.Notification{Status: wire.NewStatus(wire.StatusRejectedNoHello)})
		waits = append(waits, s.Next().Sub(now))
		now = s.Next()
	}
	if got := fmt.Sprint(waits); got != "[15s 30s 1m0s 2m0s 2m0s 2m0s]" {
		t.Errorf("waits %s", got)
	}
	s.Retry(now)
	if s.Next() != now {
		t.Error("a changed configuration of the peer's is no reason to try at once")
	}
	s.Tick(now)
	s.Connected(now)
	s.Message(now, proposal())
	s.Message(now, wire.KeepAlive{})
	s.Failed(now, nil)
	if s.Next() != now {
		t.Errorf("after an operational session: next try in %v", s.Next().Sub(now))
	}
}

// TestBrokenOpening: a connection that breaks before there is a session may be the last one of a process that is back in a moment; where that
// goes on, the peer is refusing. An operational session ends it.
func TestBrokenOpening(t *testing.T) {
	s, now := New(start, Config{Local: local, Peer: peer, Role: Active}), start
	for round := range 2 {
		var waits []time.Duration
		for range 3 {
			s.Tick(now)
			s.Connected(now)
			s.Failed(now, errors.New("connection reset by peer"))
			waits = append(waits, s.Next().Sub(now))
			now = s.Next()
		}
		if got := fmt.Sprint(waits); got != "[1s 15s 30s]" {
			t.Errorf("round %d: waits %s", round, got)
		}
		s.Tick(now)
		s.Connected(now)
		s.Message(now, proposal())
		s.Message(now, wire.KeepAlive{})
		s.Failed(now, nil)
	}
}

// TestConnectAgain: a peer that cannot be connected to may be starting, and is tried again and again; what it refused before still counts.
func TestConnectAgain(t *testing.T) {
	s, now := New(start, Config{Local: local, Peer: peer, Role: Active}), start
	for range 100 {
		if got := text(s.Tick(now)); got != "connect" {
			t.Fatalf("after %v: %q", now.Sub(start), got)
		}
		s.Failed(now, errors.New("connection refused"))
		if wait := s.Next().Sub(now); wait != time.Second {
			t.Fatalf("after %v: next try in %v", now.Sub(start), wait)
		}
		now = s.Next()
	}
	s.Tick(now)
	s.Connected(now)
	s.Message(now, wire.Notification{Status: wire.NewStatus(wire.StatusRejectedNoHello)})
	if wait := s.Next().Sub(now); wait != minBackoff {
		t.Errorf("refused: next try in %v", wait)
	}
}

// TestWhoKeepsLabels: a peer that vanished may come back for its labels, one that said goodbye does not.
func TestWhoKeepsLabels(t *testing.T) {
	restart := &wire.FTSession{LearnFromNetwork: true, ReconnectTimeout: time.Minute}
	for what, x := range map[string]struct {
		do    func(*Session) []Action
		keeps bool
	}{
		"closed": {func(s *Session) []Action { return s.Failed(start, nil) }, true},
		"silent": {func(s *Session) []Action { return s.Tick(start.Add(time.Minute)) }, true},
		"shutdown": {func(s *Session) []Action {
			return s.Message(start, wire.Notification{Status: wire.NewStatus(wire.StatusShutdown)})
		}, false},
		"our end": {func(s *Session) []Action { return s.Shutdown(start, wire.StatusShutdown, false) }, false},
		"damaged": {func(s *Session) []Action { return s.Malformed(start, refusal(wire.StatusBadPDULength, "x")) }, false},
	} {
		s := inState(t, Passive, Initialized)
		p := proposal()
		p.FTSession = restart
		s.Message(start, p)
		s.Message(start, wire.KeepAlive{})
		var down *Down
		for _, a := range x.do(s) {
			if d, ok := a.(Down); ok {
				down = &d
			}
		}
		if down == nil || (down.Restart != nil) != x.keeps {
			t.Errorf("%s: %+v, want labels kept: %v", what, down, x.keeps)
		}
	}
}

func TestRoles(t *testing.T) {
	for _, x := range []struct{ local, peer, want string }{
		{"10.0.0.2", "10.0.0.1", "active"}, {"10.0.0.1", "10.0.0.2", "passive"}, {"200.0.0.1", "10.0.0.9", "active"},
		{"2001:db8::1", "2001:db8::2", "passive"}, {"fe80::2", "2001:db8::2", "active"},
	} {
		if got := RoleOf(netip.MustParseAddr(x.local), netip.MustParseAddr(x.peer)).String(); got != x.want {
			t.Errorf("%s with %s: %s, want %s", x.local, x.peer, got, x.want)
		}
	}
}

// TestMessageIDs: all messages of a session have different IDs, 0 is none.
func TestMessageIDs(t *testing.T) {
	s := inState(t, Active, Operational)
	seen := map[uint32]bool{0: true}
	for i := range 100 {
		for _, a := range s.Say(start.Add(time.Duration(i)*time.Second), wire.LabelMapping{}) {
			id := a.(Send).Message.MessageID()
			if seen[id] {
				t.Fatalf("ID %d twice", id)
			}
			seen[id] = true
		}
	}
}
