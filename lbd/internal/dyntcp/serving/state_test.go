package serving

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"testing"

	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

var at = netip.MustParseAddrPort

func states() []State {
	return []State{
		{Tag: 0x2a17, Cookie: wire.Cookie{1, 2, 3, 4, 5, 6, 7, 8}, Destination: at("10.2.0.1:80"), Places: []netip.AddrPort{at("192.0.2.80:80"), at("10.2.0.1:80")}},
		{Cookie: wire.Cookie{9}, Sequence: 1<<63 + 3, Destination: at("[2001:db8::1]:443")},
	}
}

func TestStateRoundTrips(t *testing.T) {
	for _, want := range states() {
		b := append(want.Append(nil), "kernel"...)
		if len(b) != want.Size()+len("kernel") {
			t.Errorf("%d bytes, said %d", len(b), want.Size())
		}
		got, rest, ok, err := Decode(b)
		if err != nil || !ok || string(rest) != "kernel" || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %q, %t, %v; want %+v", got, rest, ok, err, want)
		}
		for n := 1; n < want.Size(); n++ {
			if _, _, _, err := Decode(b[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%d of %d bytes: %v", n, want.Size(), err)
			}
		}
	}
}

// States of releases without dynamic TCP, and of plain connections, are taken as they are.
func TestPlainStateIsTakenWhole(t *testing.T) {
	for _, b := range [][]byte{nil, {1, 2, 3}, []byte("\x01kernel")} {
		if s, rest, ok, err := Decode(b); ok || err != nil || !bytes.Equal(rest, b) {
			t.Errorf("%x: %+v, %x, %t, %v", b, s, rest, ok, err)
		}
	}
}

func TestBadStates(t *testing.T) {
	for name, change := range map[string]func(b []byte) []byte{
		"places":     func(b []byte) []byte { b[1] = 9; return append(b, make([]byte, 9*placeSize)...) },
		"no address": func(b []byte) []byte { clear(b[fixedSize-placeSize : fixedSize]); return b },
		"no port":    func(b []byte) []byte { clear(b[fixedSize-2 : fixedSize]); return b },
	} {
		if _, _, _, err := Decode(change(states()[0].Append(nil))); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzState(f *testing.F) {
	for _, s := range states() {
		f.Add(s.Append(nil))
	}
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, rest, ok, err := Decode(b)
		switch {
		case err != nil && !errors.Is(err, ErrMalformed):
			t.Fatal(err)
		case err == nil && !ok && !bytes.Equal(rest, b):
			t.Fatalf("%x of %x", rest, b)
		case ok:
			again, _, _, err := Decode(s.Append(nil))
			if err != nil || !reflect.DeepEqual(again, s) {
				t.Fatalf("%+v, then %+v, %v", s, again, err)
			}
		}
	})
}
