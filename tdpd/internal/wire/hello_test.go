package wire

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var hellos = []example{
	{"hello_link", Hello{Head: Head{ID: 42}, HelloParameters: HelloParameters{HoldTime: 15, GTSM: true}}},
	{"hello_targeted", Hello{
		Head:            Head{ID: 42},
		HelloParameters: HelloParameters{HoldTime: HoldTimeInfinite, Targeted: true, RequestTargeted: true},
		IPv4Transport:   addr("10.0.0.1"),
		ConfigSequence:  new(uint32(7)),
		IPv6Transport:   addr("2001:db8::1"),
		Preference:      PreferIPv6,
	}},
}

func TestHello(t *testing.T) { both(t, hellos) }

func TestHelloRefuses(t *testing.T) {
	refused(t, map[string]Message{
		"IPv6 for IPv4": Hello{IPv4Transport: addr("2001:db8::1")},
		"IPv4 for IPv6": Hello{IPv6Transport: addr("10.0.0.1")},
		"preference 5":  Hello{Preference: 5},
		"GTSM":          Hello{HelloParameters: HelloParameters{Targeted: true, GTSM: true}},
	})
}

// RFC 6720 section 2.1: a G bit counts for nothing in a targeted Hello.
func TestHelloTargetedWithGTSM(t *testing.T) {
	m, _, err := parseMessage(unhex(t, "0100 000c 0000002a 0400 0004 000f a000"))
	if err != nil || m.(Hello).GTSM || !m.(Hello).Targeted {
		t.Errorf("%+v, error %v", m, err)
	}
}

// RFC 7552 section 6.1: the first address of a family counts.
func TestHelloFirstTransportAddressCounts(t *testing.T) {
	b := unhex(t, "0100 001c 0000002a 0400 0004 000f 0000 0401 0004 0a000001 0401 0004 0a000002")
	m, _, err := parseMessage(b)
	if err != nil || m.(Hello).IPv4Transport != addr("10.0.0.1") {
		t.Errorf("%+v, error %v", m, err)
	}
}

func TestParseHello(t *testing.T) {
	id := Identifier{LSR: LSRID{1, 1, 1, 1}, Space: 2}
	want := hellos[1].message.(Hello)
	b, err := AppendPDU(nil, id, 0, UnknownMessage{MessageType: 0x3f00}, want)
	if err != nil {
		t.Fatal(err)
	}
	got, hello, err := ParseHello(append(b, "behind the PDU"...))
	if err != nil || got != id {
		t.Fatalf("from %v, error %v", got, err)
	}
	if diff := cmp.Diff(want, hello, equate); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	keepalive, err := AppendPDU(nil, id, 0, KeepAlive{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ParseHello(keepalive); err == nil {
		t.Error("a KeepAlive taken for a Hello")
	}
	for n := range len(b) {
		if _, _, err := ParseHello(b[:n]); err == nil {
			t.Errorf("%d of %d bytes taken for a Hello", n, len(b))
		}
	}
}

// RFC 7552 section 6.1.1: a preference that is not known ends the session with its sender, too.
func TestParseHelloUnknownPreference(t *testing.T) {
	b := unhex(t, "0001 001e 01010101 0000 0100 0014 0000002a 0400 0004 000f 0000 8701 0004 50000000")
	id, _, err := ParseHello(b)
	var e *Error
	if !errors.As(err, &e) || e.Status != StatusTransportConnectionMismatch || !e.Fatal() || id.LSR != (LSRID{1, 1, 1, 1}) {
		t.Errorf("from %v: %v", id, err)
	}
}

func FuzzHello(f *testing.F) { fuzz(f, TypeHello, hellos) }

func FuzzDatagram(f *testing.F) {
	for _, line := range lines(f, "frr-hello.hex") {
		f.Add(unhex(f, line))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		id, hello, err := ParseHello(b)
		if err != nil {
			return
		}
		out, err := AppendPDU(nil, id, 0, hello)
		if err != nil {
			t.Fatalf("%+v cannot be sent: %v", hello, err)
		}
		if _, again, err := ParseHello(out); err != nil || !cmp.Equal(hello, again, equate) {
			t.Errorf("%+v became %+v, error %v", hello, again, err)
		}
	})
}

func TestFamilyOf(t *testing.T) {
	for a, want := range map[netip.Addr]AddressFamily{
		addr("10.0.0.1"): IPv4, addr("2001:db8::1"): IPv6, addr("::ffff:10.0.0.1"): IPv6, {}: 0,
	} {
		if got := FamilyOf(a); got != want {
			t.Errorf("%v: %v, want %v", a, got, want)
		}
	}
}
