package wire_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/record"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

var (
	private = ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))
	public  = private.Public().(ed25519.PublicKey)
	cookie  = wire.Cookie{0xc0, 0x0c, 0x1e, 0x5e, 0xc7, 0xe7, 0x5a, 0x1d}
	at      = netip.MustParseAddrPort
)

// golden reads a file of testdata. They were laid out in Python after docs/wire-formats.md and signed with a transcription of
// RFC 8032's Ed25519ctx.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	_, digits, _ := strings.Cut(string(text), "\n") // behind what it is
	b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

func options() map[string]wire.Option {
	return map[string]wire.Option{
		"option":             {Tag: 0x2a17, Cookie: cookie},
		"option_destination": {Tag: 0x2a17, Cookie: cookie, Destination: at("10.2.0.3:8080")},
	}
}

func changes() map[string]wire.Change {
	moment := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	return map[string]wire.Change{
		"change4": {
			Tag: 0x2a17, Cookie: cookie, User: at("10.1.0.7:40001"), VIP: at("192.0.2.80:80"),
			Old: at("10.2.0.3:8080"), New: at("10.3.0.4:8080"), Sequence: 2, Time: moment, KeyID: record.KeyID(public),
		},
		"change6": {
			Tag: 0x2a17, Cookie: cookie, User: at("[2001:db8:1::7]:40001"), VIP: at("[2001:db8::80]:443"),
			Old: at("[2001:db8::80]:443"), New: at("[2001:db8:3::4]:443"), Sequence: 1, Time: moment, KeyID: record.KeyID(public),
		},
	}
}

func encodeOption(t testing.TB, o wire.Option) []byte {
	t.Helper()
	raw, err := o.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func sign(t testing.TB, c wire.Change) wire.Signed {
	t.Helper()
	s, err := wire.Sign(c, private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGolden(t *testing.T) {
	for name, want := range options() {
		raw := golden(t, name)
		if got, err := wire.DecodeOption(raw); err != nil || got != want {
			t.Errorf("%s: decoded %+v (%v), want %+v", name, got, err, want)
		}
		if got := encodeOption(t, want); !bytes.Equal(got, raw) {
			t.Errorf("%s: encoded % x, golden % x", name, got, raw)
		}
	}
	for name, want := range changes() {
		raw := golden(t, name)
		got, err := wire.Decode(raw)
		if err != nil || got.Change != want || !bytes.Equal(got.Raw, raw) {
			t.Errorf("%s: decoded %+v (%v), want %+v", name, got, err, want)
		}
		if !got.Verify(public) {
			t.Errorf("%s does not verify", name)
		}
		if sent := sign(t, want); !bytes.Equal(sent.Raw, raw) || sent.Change != want {
			t.Errorf("%s: signed % x, golden % x", name, sent.Raw, raw)
		}
	}
}

func TestFindOption(t *testing.T) {
	ours, want := encodeOption(t, options()["option_destination"]), options()["option_destination"]
	second := encodeOption(t, wire.Option{Tag: 1})
	mss := []byte{2, 4, 5, 0xb4}
	fastOpen := []byte{254, 12, 0xf9, 0x89, 1, 2, 3, 4, 5, 6, 7, 8}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for what, c := range map[string]struct {
		options []byte
		found   bool
		bad     bool
	}{
		"none":                       {},
		"others alone":               {options: join(mss, fastOpen)},
		"alone":                      {options: ours, found: true},
		"behind others":              {options: join(mss, []byte{1, 1}, fastOpen, ours), found: true},
		"the first counts":           {options: join(ours, second), found: true},
		"behind the end of the list": {options: join(mss, []byte{0}, ours)},
		"an experiment without ExID": {options: join([]byte{254, 2}, ours), found: true},
		"one byte left":              {options: join(mss, []byte{5}), bad: true},
		"length 0":                   {options: join([]byte{9, 0}, ours), bad: true},
		"length 1":                   {options: join([]byte{9, 1}, ours), bad: true},
		"too long for what is left":  {options: ours[:19], bad: true},
		"of another length":          {options: join([]byte{254, 16}, ours[2:14], []byte{1, 1}), bad: true},
		"more than a header holds":   {options: make([]byte, 44), bad: true},
	} {
		got, found, err := wire.FindOption(c.options)
		if found != c.found || errors.Is(err, wire.ErrMalformed) != c.bad || found && got != want {
			t.Errorf("%s: %+v, %v, %v", what, got, found, err)
		}
	}
}

func TestOptionFitsASYN(t *testing.T) {
	// What a kernel's SYN has at most without ours: MSS 4, SACK permitted and timestamps 12 (RFC 7323 appendix A), window scale 4.
	if n := wire.OptionsMax - 4 - 12 - 4; len(encodeOption(t, options()["option_destination"])) != n {
		t.Errorf("the option has %d bytes, a SYN-ACK has room for %d", wire.OptionDestinationSize, n)
	}
}

func TestOptionRefuses(t *testing.T) {
	for _, destination := range []string{
		"0.0.0.0:80", "127.0.0.1:80", "224.0.0.1:80", "255.255.255.255:80", "169.254.0.1:80", "10.2.0.3:0", "[2001:db8::1]:80", "[::ffff:10.2.0.3]:80",
	} {
		if raw, err := (wire.Option{Destination: at(destination)}).Append(nil); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("destination %s is encoded as % x", destination, raw)
		}
		if a := at(destination); a.Addr().Is4() {
			raw := encodeOption(t, options()["option_destination"])
			addr := a.Addr().As4()
			copy(raw[wire.OptionOffAddress:], addr[:])
			binary.BigEndian.PutUint16(raw[wire.OptionOffPort:], a.Port())
			if o, err := wire.DecodeOption(raw); !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("destination %s is taken as %+v", destination, o)
			}
		}
	}
	for what, raw := range map[string][]byte{
		"empty": nil, "short": golden(t, "option")[:13], "long": append(golden(t, "option"), 0),
		"kind": flip(golden(t, "option"), 0), "length": flip(golden(t, "option"), 1), "ExID": flip(golden(t, "option"), 3),
	} {
		if o, err := wire.DecodeOption(raw); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %+v, %v", what, o, err)
		}
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

func TestDecodeRefuses(t *testing.T) {
	put := func(offset int, v ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[offset:], v); return b }
	}
	mapped := func(v ...byte) []byte { return append([]byte{10: 0xff, 0xff}, v...) }
	for what, c := range map[string]struct {
		change func([]byte) []byte
		want   error
	}{
		"empty":                   {func([]byte) []byte { return nil }, wire.ErrMalformed},
		"magic alone":             {func(b []byte) []byte { return b[:4] }, wire.ErrMalformed},
		"one byte short":          {func(b []byte) []byte { return b[:len(b)-1] }, wire.ErrMalformed},
		"one byte more":           {func(b []byte) []byte { return append(b, 0) }, wire.ErrMalformed},
		"magic":                   {put(wire.ChangeOffMagic, 'X'), wire.ErrMalformed},
		"version":                 {put(wire.ChangeOffVersion, 2), wire.ErrVersion},
		"reserved":                {put(wire.ChangeOffReserved, 1), wire.ErrMalformed},
		"user's port 0":           {put(wire.ChangeOffUserPort, 0, 0), wire.ErrMalformed},
		"VIP's port 0":            {put(wire.ChangeOffVIPPort, 0, 0), wire.ErrMalformed},
		"new port 0":              {put(wire.ChangeOffNewPort, 0, 0), wire.ErrMalformed},
		"new 0.0.0.0":             {put(wire.ChangeOffNew, mapped(0, 0, 0, 0)...), wire.ErrMalformed},
		"new on the user's host":  {put(wire.ChangeOffNew, mapped(127, 0, 0, 1)...), wire.ErrMalformed},
		"new multicast":           {put(wire.ChangeOffNew, mapped(239, 0, 0, 1)...), wire.ErrMalformed},
		"new of the other family": {put(wire.ChangeOffNew, 0x20, 1), wire.ErrMalformed},
		"VIP of the other family": {put(wire.ChangeOffVIP, 0x20, 1), wire.ErrMalformed},
		"to where it was":         {put(wire.ChangeOffNew, mapped(10, 2, 0, 3)...), wire.ErrMalformed},
		"sequence 0":              {put(wire.ChangeOffSequence, make([]byte, 8)...), wire.ErrMalformed},
		"negative time":           {put(wire.ChangeOffTime, 0x80), wire.ErrMalformed},
	} {
		if s, err := wire.Decode(c.change(golden(t, "change4"))); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v, want %v", what, s.Change, err, c.want)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	for what, change := range map[string]func(*wire.Change){
		"no user":     func(c *wire.Change) { c.User = netip.AddrPort{} },
		"a zone":      func(c *wire.Change) { c.User = at("[2001:db8::1%eth0]:1") },
		"sequence 0":  func(c *wire.Change) { c.Sequence = 0 },
		"before 1970": func(c *wire.Change) { c.Time = time.Unix(-1, 0) },
		"no time":     func(c *wire.Change) { c.Time = time.Time{} },
	} {
		c := changes()["change4"]
		change(&c)
		if _, err := wire.Sign(c, private); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := wire.Sign(changes()["change4"], private[:32]); err == nil {
		t.Error("signed with half a key")
	}
}

func TestVerify(t *testing.T) {
	raw := golden(t, "change4")
	for i := range raw { // every bit of it is under the signature
		for bit := range 8 {
			b := bytes.Clone(raw)
			b[i] ^= 1 << bit
			if s, err := wire.Decode(b); err == nil && s.Verify(public) {
				t.Errorf("verifies with bit %d of byte %d flipped", bit, i)
			}
		}
	}
	s, err := wire.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)).Public().(ed25519.PublicKey)
	if s.Verify(other) || s.Verify(public[:31]) || s.Verify(nil) {
		t.Error("verifies under another key")
	}
	copy(s.Raw[wire.ChangeOffSignature:], ed25519.Sign(private, s.Raw[:wire.ChangeOffSignature]))
	if s.Verify(public) {
		t.Error("a signature of the same key for another purpose verifies")
	}
}

func TestCookieIsNotTold(t *testing.T) {
	if got := cookie.String(); got != "c00c…" {
		t.Errorf("a cookie is told as %q", got)
	}
}

// What is taken is encoded again to the same bytes: there are no two ways to say one thing.
func FuzzDecode(f *testing.F) {
	for name := range changes() {
		f.Add(golden(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := wire.Decode(b)
		if err != nil {
			return
		}
		again, err := wire.Sign(s.Change, private)
		if err != nil {
			t.Fatalf("taken %+v cannot be sent: %v", s.Change, err)
		}
		if body := again.Raw[:wire.ChangeOffSignature]; !bytes.Equal(body, b[:wire.ChangeOffSignature]) {
			t.Errorf("taken %x, sent %x", b, body)
		}
		s.Verify(public)
	})
}

func FuzzFindOption(f *testing.F) {
	for name := range options() {
		f.Add(append([]byte{2, 4, 5, 0xb4, 1, 1}, golden(f, name)...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, found, err := wire.FindOption(b)
		if !found {
			return
		}
		if err != nil {
			t.Fatalf("found and refused: %v", err)
		}
		if again := encodeOption(t, o); !bytes.Contains(b, again) {
			t.Errorf("% x in % x", again, b)
		}
	})
}
