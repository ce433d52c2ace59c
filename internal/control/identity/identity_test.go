package identity_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"crypto/ed25519"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
)

var update = flag.Bool("update", false, "write the golden file")

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func certificate() identity.Certificate {
	return identity.Certificate{
		Name: "s1.dc1", Role: control.Server, Leader: true, Address: netip.MustParseAddr("10.1.2.3"),
		NotBefore: begin, NotAfter: begin.Add(time.Hour),
	}
}

func authority(seed byte) identity.Authority {
	return identity.Authority{Private: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))}
}

func TestGolden(t *testing.T) {
	c := certificate()
	c.Public = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)).Public().(ed25519.PublicKey)
	made, err := authority(1).Certify(c)
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/certificate.hex"
	if *update {
		if err := os.WriteFile(file, []byte(hex.EncodeToString(made.Raw())+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || !bytes.Equal(raw, made.Raw()) {
		t.Fatalf("encoded %x, golden %x (%v)", made.Raw(), raw, err)
	}
	got, err := identity.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Verify(authority(1).Public(), begin); err != nil {
		t.Error(err)
	}
	if got.Name != c.Name || got.Role != c.Role || !got.Leader || got.Address != c.Address || !got.Public.Equal(c.Public) ||
		!got.NotBefore.Equal(c.NotBefore) || !got.NotAfter.Equal(c.NotAfter) || got.ID() != made.ID() {
		t.Errorf("decoded %+v", got)
	}
}

func TestVerifyRefuses(t *testing.T) {
	id, err := identity.New(authority(1), certificate())
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Verify(authority(2).Public(), begin); !errors.Is(err, identity.ErrSignature) {
		t.Errorf("another authority: %v", err)
	}
	for _, at := range []time.Time{begin.Add(-time.Second), begin.Add(time.Hour)} {
		if err := id.Verify(authority(1).Public(), at); !errors.Is(err, identity.ErrExpired) {
			t.Errorf("at %v: %v", at, err)
		}
	}
	for i := range id.Raw() {
		raw := bytes.Clone(id.Raw())
		raw[i] ^= 1
		if c, err := identity.Parse(raw); err == nil && c.Verify(authority(1).Public(), begin) == nil {
			t.Errorf("byte %d changed, and still verified", i)
		}
	}
}

func TestCertifyRefuses(t *testing.T) {
	for what, change := range map[string]func(*identity.Certificate){
		"no name":          func(c *identity.Certificate) { c.Name = "" },
		"name of a path":   func(c *identity.Certificate) { c.Name = "a/b" },
		"long name":        func(c *identity.Certificate) { c.Name = strings.Repeat("x", 64) },
		"no role":          func(c *identity.Certificate) { c.Role = 0 },
		"leading router":   func(c *identity.Certificate) { c.Role = control.Router },
		"IPv6":             func(c *identity.Certificate) { c.Address = netip.MustParseAddr("2001:db8::1") },
		"multicast source": func(c *identity.Certificate) { c.Address = netip.MustParseAddr("239.1.1.1") },
		"never valid":      func(c *identity.Certificate) { c.NotAfter = c.NotBefore },
	} {
		c := certificate()
		change(&c)
		if _, err := identity.New(authority(1), c); err == nil {
			t.Errorf("%s: certified", what)
		}
	}
}

func FuzzParse(f *testing.F) {
	id, err := identity.New(authority(1), certificate())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(id.Raw())
	f.Add(id.Raw()[:20])
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := identity.Parse(raw)
		if err != nil {
			return
		}
		if !bytes.Equal(c.Raw(), raw) {
			t.Fatalf("%x came back as %x", raw, c.Raw())
		}
		again, err := authority(1).Certify(c)
		if err == nil && !bytes.Equal(again.Raw()[:len(raw)-64], raw[:len(raw)-64]) {
			t.Fatalf("encoded again %x, was %x", again.Raw(), raw)
		}
	})
}
