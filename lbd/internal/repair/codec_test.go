package repair

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// sample has a value in each field.
func sample() State {
	return State{
		Local: netip.MustParseAddrPort("192.0.2.1:443"), Remote: netip.MustParseAddrPort("198.51.100.7:40000"),
		SendUnacknowledged: 0xfffffff0, ReceiveNext: 7, SendClosed: true, ReceiveClosed: true,
		Received: []byte("received"), Sent: []byte("sent"), Unsent: []byte("unsent"),
		MSS: 1460, Scaling: true, SendScale: 7, ReceiveScale: 10, SACK: true, Timestamps: true, Microseconds: true, Timestamp: 12345,
		Window:     Window{SendUpdate: 6, Send: 65000, SendMax: 70000, Receive: 80000, ReceiveFrom: 5},
		SendBuffer: 87040, ReceiveBuffer: 131072, SendBufferSet: true, ReceiveBufferSet: true,
		Options: Options{
			NoDelay: true, KeepAlive: true, Idle: 15 * time.Second, Interval: 10 * time.Second, Count: 9, UserTimeout: 1500 * time.Millisecond,
			Linger: 3, TOS: 0xb8, Congestion: "cubic",
		},
	}
}

func TestBothWays(t *testing.T) {
	idle := State{
		Local: netip.MustParseAddrPort("[2001:db8::1]:80"), Remote: netip.MustParseAddrPort("[2001:db8::2]:1024"),
		MSS: 536, Options: Options{Linger: -1},
	}
	mapped := sample()
	mapped.OnIPv6(true)
	for _, want := range []State{sample(), idle, mapped} {
		b := want.Append(nil)
		if len(b) != want.Size() {
			t.Errorf("%d bytes, said to be %d", len(b), want.Size())
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
			t.Error(d)
		}
	}
}

func TestOnIPv6(t *testing.T) {
	s := sample()
	s.OnIPv6(true)
	if s.Local != netip.MustParseAddrPort("[::ffff:192.0.2.1]:443") || s.Remote != netip.MustParseAddrPort("[::ffff:198.51.100.7]:40000") {
		t.Errorf("%v %v", s.Local, s.Remote)
	}
	if s.OnIPv6(false); s.Local != sample().Local || s.Remote != sample().Remote {
		t.Errorf("%v %v", s.Local, s.Remote)
	}
	s.Local, s.Remote = netip.MustParseAddrPort("[2001:db8::1]:80"), netip.MustParseAddrPort("[2001:db8::2]:1024")
	if s.OnIPv6(false); !s.Local.Addr().Is6() {
		t.Errorf("%v", s.Local)
	}
}

func TestInvalid(t *testing.T) {
	for name, spoil := range map[string]func(*State){
		"no address":   func(s *State) { s.Local = netip.AddrPort{} },
		"unspecified":  func(s *State) { s.Local = netip.MustParseAddrPort("0.0.0.0:1") },
		"multicast":    func(s *State) { s.Remote = netip.MustParseAddrPort("239.1.1.1:1") },
		"broadcast":    func(s *State) { s.Remote = netip.MustParseAddrPort("255.255.255.255:1") },
		"this network": func(s *State) { s.Remote = netip.MustParseAddrPort("0.1.2.3:1") },
		"multicast of IPv6": func(s *State) {
			s.Local, s.Remote = netip.MustParseAddrPort("[fd00::1]:1"), netip.MustParseAddrPort("[ff02::1]:1")
		},
		"mapped multicast":              func(s *State) { s.OnIPv6(true); s.Remote = netip.MustParseAddrPort("[::ffff:239.1.1.1]:1") },
		"two families":                  func(s *State) { s.Remote = netip.MustParseAddrPort("[fd00::1]:1") },
		"to itself":                     func(s *State) { s.Remote = s.Local },
		"no local port":                 func(s *State) { s.Local = netip.MustParseAddrPort("192.0.2.1:0") },
		"no remote port":                func(s *State) { s.Remote = netip.MustParseAddrPort("192.0.2.2:0") },
		"received too much":             func(s *State) { s.Received = make([]byte, MaxQueue+1) },
		"too much to send":              func(s *State) { s.Sent, s.Unsent = make([]byte, MaxQueue), make([]byte, 1) },
		"MSS":                           func(s *State) { s.MSS = 47 },
		"send scale":                    func(s *State) { s.SendScale = 15 },
		"receive scale":                 func(s *State) { s.ReceiveScale = 15 },
		"scale without scaling":         func(s *State) { s.Scaling = false },
		"microseconds of no timestamps": func(s *State) { s.Timestamps = false },
		"window":                        func(s *State) { s.Window.SendMax = MaxWindow + 1 },
		"own window":                    func(s *State) { s.Window.Receive = MaxWindow + 1 },
		"window over the largest":       func(s *State) { s.Window.Send = s.Window.SendMax + 1 },
		"update of the future":          func(s *State) { s.Window.SendUpdate = s.ReceiveNext + s.Window.Receive + 1 },
		"window of the future":          func(s *State) { s.Window.ReceiveFrom = s.ReceiveNext + 1 },
		"send buffer":                   func(s *State) { s.SendBuffer = MaxBuffer + 1 },
		"receive buffer":                func(s *State) { s.ReceiveBuffer = MaxBuffer + 1 },
		"keepalive at once":             func(s *State) { s.Options.Idle = 0 },
		"keepalive in a day":            func(s *State) { s.Options.Idle = 32768 * time.Second },
		"keepalive without a pause":     func(s *State) { s.Options.Interval = 0 },
		"keepalive, never":              func(s *State) { s.Options.Count = 0 },
		"keepalive, too often":          func(s *State) { s.Options.Count = 128 },
		"user timeout":                  func(s *State) { s.Options.UserTimeout = 1 << 31 * time.Millisecond },
		"linger":                        func(s *State) { s.Options.Linger = -2 },
		"congestion, too long":          func(s *State) { s.Options.Congestion = "0123456789abcdef" },
		"congestion, a path":            func(s *State) { s.Options.Congestion = "../x" },
	} {
		s := sample()
		spoil(&s)
		if err := s.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Restore(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: restored: %v", name, err)
		}
		if _, err := Decode(s.Append(nil)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: decoded: %v", name, err)
		}
	}
}

func TestOneMapped(t *testing.T) {
	s := sample()
	s.Remote = netip.MustParseAddrPort("[::ffff:192.0.2.9]:1")
	if err := s.Validate(); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	s := sample()
	good := s.Append(nil)
	for n := range good {
		if _, err := Decode(good[:n]); !errors.Is(err, ErrInvalid) {
			t.Fatalf("%d bytes of %d: %v", n, len(good), err)
		}
	}
	spoil := func(at int, with ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], with)
		return b
	}
	lengths := fixed - 3*4
	for name, b := range map[string][]byte{
		"more":           append(bytes.Clone(good), 0),
		"kind":           spoil(1, 2),
		"flags":          spoil(2+2*18, 0xff),
		"received, huge": spoil(lengths, 0xff, 0xff, 0xff, 0xff),
		"sent, huge":     spoil(lengths+4, 0xff, 0xff, 0xff, 0xff),
		"name, long":     spoil(lengths-1, 0xff),
	} {
		if _, err := Decode(b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Decode(spoil(0, version+1)); !errors.Is(err, ErrVersion) || errors.Is(err, ErrInvalid) {
		t.Errorf("newer version: %v", err)
	}
}

// A timestamp never steps back (PAWS), whichever of its unit's bit the other kernel has told.
func TestNextTimestamp(t *testing.T) {
	for _, seen := range []uint32{0, 1, 1000, 1001, 1<<32 - 2, 1<<32 - 1} {
		for _, micro := range []bool{false, true} {
			next := nextTimestamp(&State{Timestamp: seen, Microseconds: micro})
			if d := next - seen; d == 0 || d > 3 || (next&1 == 1) != micro {
				t.Errorf("after %d, microseconds %v: %d", seen, micro, next)
			}
		}
	}
}

// A socket without memory has shut its window before what the peer's window was learned by.
func TestWindowThatWasShut(t *testing.T) {
	for _, tt := range []struct{ receive, update, want uint32 }{{0, 1100, 1000}, {50, 1100, 1050}, {200, 1100, 1100}, {0, 900, 900}} {
		s := sample()
		s.Window.ReceiveFrom, s.Window.Receive, s.Window.SendUpdate, s.ReceiveNext = 1000, tt.receive, tt.update, 1000
		s.Window.within(s.ReceiveNext)
		if s.Window.SendUpdate != tt.want {
			t.Errorf("a window of %d, learned by %d: by %d, want %d", tt.receive, tt.update, s.Window.SendUpdate, tt.want)
		}
		if err := s.checkQueues(); err != nil {
			t.Errorf("a window of %d, learned by %d: %v", tt.receive, tt.update, err)
		}
	}
}

func TestReasonOfState(t *testing.T) {
	want := []Reason{
		Closing, "", Opening, Opening, "", "", Closing, Closing, "", Closing, NotTCP, Closing, Opening,
	}
	for state, want := range want {
		if got := reasonOfState(uint8(state)); got != want {
			t.Errorf("state %d: %q, want %q", state, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	s := sample()
	f.Add(s.Append(nil))
	s.OnIPv6(true)
	f.Add(s.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			return
		}
		if again := s.Append(nil); !bytes.Equal(again, b) {
			t.Errorf("%x\nis again\n%x", b, again)
		}
	})
}

func FuzzParseDiag(f *testing.F) {
	b := make([]byte, 16+diagMessageLen)
	f.Add(b)
	f.Add(binary.NativeEndian.AppendUint32(b, 4|diagMD5<<16))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseDiag(b) // does not panic
	})
}
