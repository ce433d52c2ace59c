package wire_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/control/wire"
)

var update = flag.Bool("update", false, "write the golden files")

var group = netip.MustParseAddr("239.80.255.1")

func private(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func key(t testing.TB, id uint32, seed byte) *wire.Key {
	t.Helper()
	k, err := wire.NewKey(id, group, private(seed))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var sender = identity.ID{1, 2, 3, 4, 5, 6, 7, 8}

func frames() map[string]wire.Frame {
	return map[string]wire.Frame{
		"heartbeat": {Type: wire.Heartbeat, Sender: sender, Boot: 0x1122334455667788, Sequence: 77, Element: wire.Element{0xe0, 15: 0xef}},
		"part":      {Type: wire.Part, Sender: sender, Boot: 0x1122334455667788, Sequence: 3, Part: 1, Parts: 2, Bytes: []byte("a part")},
	}
}

func TestGolden(t *testing.T) {
	for name, f := range frames() {
		file := filepath.Join("testdata", name+".hex")
		raw := f.Seal(nil, key(t, 0xcafe, 9))
		if *update {
			if err := os.WriteFile(file, []byte(hex.EncodeToString(raw)+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		golden, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil || !bytes.Equal(golden, raw) {
			t.Errorf("%s: encoded %x, golden %x (%v)", name, raw, golden, err)
		}
		got, err := wire.Parse(golden)
		f.KeyID = 0xcafe
		if err != nil || !reflect.DeepEqual(got, f) {
			t.Errorf("%s: decoded %+v (%v), want %+v", name, got, err, f)
		}
		if !key(t, 0xcafe, 9).Verify(golden) || key(t, 0xcafe, 8).Verify(golden) {
			t.Errorf("%s: the MAC does not tell the keys apart", name)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := frames()["part"].Seal(nil, key(t, 1, 9))
	for what, c := range map[string]struct {
		change func([]byte) []byte
		want   error
	}{
		"empty":         {func([]byte) []byte { return nil }, wire.ErrMalformed},
		"short":         {func(b []byte) []byte { return b[:47] }, wire.ErrMalformed},
		"no magic":      {func(b []byte) []byte { b[0] = 'X'; return b }, wire.ErrMalformed},
		"version":       {func(b []byte) []byte { b[2] = 2; return b }, wire.ErrVersion},
		"type":          {func(b []byte) []byte { b[3] = 9; return b }, wire.ErrType},
		"sequence 0":    {func(b []byte) []byte { clear(b[24:32]); return b }, wire.ErrMalformed},
		"part behind":   {func(b []byte) []byte { b[33] = 2; return b }, wire.ErrMalformed},
		"many parts":    {func(b []byte) []byte { b[34] = 0xff; return b }, wire.ErrMalformed},
		"empty part":    {func(b []byte) []byte { return b[:52] }, wire.ErrMalformed},
		"long beat":     {func(b []byte) []byte { b[3] = 1; return b }, wire.ErrMalformed},
		"no parts":      {func(b []byte) []byte { clear(b[32:36]); return b }, wire.ErrMalformed},
		"header only":   {func(b []byte) []byte { return b[:32] }, wire.ErrMalformed},
		"without a MAC": {func(b []byte) []byte { return b[:40] }, wire.ErrMalformed},
	} {
		if _, err := wire.Parse(c.change(bytes.Clone(good))); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
}

func TestChain(t *testing.T) {
	c := wire.NewChain(wire.Salt{1}, 1000, 2000, wire.Element{2})
	if c.End() != 3000 {
		t.Fatalf("ends at %d", c.End())
	}
	a := wire.Anchor{Salt: wire.Salt{1}, Index: 1500, Element: c.At(1500)}
	other := wire.NewChain(wire.Salt{1}, 1000, 2000, wire.Element{3})
	for _, x := range []struct {
		what  string
		index uint64
		e     wire.Element
		want  bool
	}{
		{"next", 1501, c.At(1501), true},
		{"after loss", 1500 + wire.MaxStep, c.At(1500 + wire.MaxStep), true},
		{"after too much loss", 1501 + wire.MaxStep, c.At(1501 + wire.MaxStep), false},
		{"itself", 1500, c.At(1500), false},
		{"before", 1400, c.At(1400), false},
		{"of another chain", 1501, other.At(1501), false},
		{"right element, wrong index", 1502, c.At(1501), false},
	} {
		if got := a.Leads(x.index, x.e); got != x.want {
			t.Errorf("%s: %v", x.what, got)
		}
	}
	a.Salt = wire.Salt{9}
	if a.Leads(1501, c.At(1501)) {
		t.Error("under another salt")
	}
}

func TestMessage(t *testing.T) {
	o := wire.Origin{Group: group, Sender: sender, Boot: 5, Number: 6}
	for _, m := range []wire.Message{
		{Kind: control.KindReport, Certificate: []byte("certificate"), Body: []byte("report")},
		{Kind: control.KindReport},
		{Kind: control.KindAnnounce, Body: bytes.Repeat([]byte("x"), 5000)},
		{Kind: control.KindDone},
	} {
		signed, err := m.Sign(o, private(1))
		if err != nil {
			t.Fatal(err)
		}
		split, err := wire.Split(o, signed, wire.MinFrame, key(t, 1, 9))
		if err != nil {
			t.Fatal(err)
		}
		var whole []byte
		for i, raw := range split {
			f, err := wire.Parse(raw)
			if err != nil || int(f.Part) != i || int(f.Parts) != len(split) || len(raw) > wire.MinFrame {
				t.Fatalf("part %d of %d bytes: %+v, %v", i, len(raw), f, err)
			}
			whole = append(whole, f.Bytes...)
		}
		got, err := wire.ParseMessage(whole)
		if err != nil || got.Kind != m.Kind || !bytes.Equal(got.Body, m.Body) || !bytes.Equal(got.Certificate, m.Certificate) {
			t.Fatalf("%+v, %v", got, err)
		}
		public := private(1).Public().(ed25519.PublicKey)
		if !got.Verify(o, public) {
			t.Error("does not verify")
		}
		for what, other := range map[string]wire.Origin{
			"group":  {Group: netip.MustParseAddr("239.80.255.2"), Sender: sender, Boot: 5, Number: 6},
			"sender": {Group: group, Boot: 5, Number: 6},
			"boot":   {Group: group, Sender: sender, Boot: 6, Number: 6},
			"number": {Group: group, Sender: sender, Boot: 5, Number: 7},
		} {
			if got.Verify(other, public) {
				t.Errorf("verifies with another %s", what)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, frame := range frames() {
		f.Add(frame.Seal(nil, key(f, 1, 9)))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		frame, err := wire.Parse(raw)
		if err != nil {
			return
		}
		k := key(t, frame.KeyID, 9)
		again := frame.Seal(nil, k)
		if !bytes.Equal(again[:len(again)-16], raw[:len(raw)-16]) {
			t.Fatalf("%x came back as %x", raw, again)
		}
		k.Verify(raw)
	})
}

func FuzzMessage(f *testing.F) {
	o := wire.Origin{Group: group, Sender: sender, Boot: 5, Number: 6}
	for _, m := range []wire.Message{{Kind: control.KindReport, Certificate: []byte("c"), Body: []byte("b")}, {Kind: control.KindDone, Body: []byte("b")}} {
		signed, err := m.Sign(o, private(1))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(signed)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := wire.ParseMessage(raw)
		if err != nil {
			return
		}
		again, err := m.Sign(o, private(1))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again[:len(again)-64], raw[:len(raw)-64]) {
			t.Fatalf("%x came back as %x", raw, again)
		}
	})
}
