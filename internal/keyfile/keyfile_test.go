package keyfile

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var group = netip.MustParseAddr("239.192.1.2")

func newGroup(t testing.TB) Group {
	t.Helper()
	g, err := NewGroup("web.cast.example.", group)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func newMember(t testing.TB, name string) Member {
	t.Helper()
	m, err := NewMember(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestGroupOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "g.key")
	g := newGroup(t)
	g.NotBefore = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	if err := WriteGroup(path, g, false); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	got, err := ReadGroup(path)
	if err != nil || !got.Private.Equal(g.Private) || got.Name != g.Name || got.Address != g.Address || !got.NotBefore.Equal(g.NotBefore) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := WriteGroup(path, newGroup(t), false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwritten: %v", err)
	}
	if again, err := ReadGroup(path); err != nil || !again.Private.Equal(g.Private) {
		t.Errorf("the old key is gone: %v", err)
	}
	if err := WriteGroup(path, newGroup(t), true); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".key-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestReadRefusesOpenFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.key")
	if err := WriteMember(path, newMember(t, "s1"), false); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o644} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadMember(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if m, err := ReadMember(path); err != nil || m.Name != "s1" {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := ReadGroup(path); err == nil {
		t.Error("a member key taken for a group key")
	}
}

func TestSealOpen(t *testing.T) {
	g, to, other := newGroup(t), newMember(t, "s1"), newMember(t, "s2")
	sealed, err := Seal(to.Public(), g)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := to.Open(sealed, group); err != nil || !got.Private.Equal(g.Private) {
		t.Errorf("%v", err)
	}
	if _, err := other.Open(sealed, group); err == nil {
		t.Error("opened by another member")
	}
	if _, err := to.Open(sealed, group.Next()); err == nil {
		t.Error("opened as another group's key")
	}
	for i := range sealed {
		damaged := append([]byte(nil), sealed...)
		damaged[i] ^= 1
		if _, err := to.Open(damaged, group); err == nil {
			t.Fatalf("byte %d changed and not noticed", i)
		}
	}
}

func TestReceive(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "groups")
	g, m := newGroup(t), newMember(t, "s1")
	value, err := Envelope("s1", m.Public(), g)
	if err != nil {
		t.Fatal(err)
	}
	for _, wantNew := range []bool{true, false} {
		if got, isNew, err := m.Receive(dir, value); err != nil || isNew != wantNew || !got.Private.Equal(g.Private) {
			t.Errorf("new %v, %v", isNew, err)
		}
	}
	keys, err := ReadGroups(dir)
	if err != nil || len(keys) != 1 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	wrong, err := Envelope("s2", m.Public(), g)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.Receive(dir, wrong); err == nil {
		t.Error("took another member's key")
	}
}

func TestAddressCannotLeaveTheDirectory(t *testing.T) {
	g := newGroup(t)
	g.Address = netip.MustParseAddr("fe80::1%/../../../tmp/x")
	if got, err := decodeGroup(g.encode()); err == nil {
		t.Errorf("taken: %s", got.FileName())
	}
}

func TestReadGroupsGoesOnPastBadFiles(t *testing.T) {
	dir := t.TempDir()
	g := newGroup(t)
	if err := WriteGroup(filepath.Join(dir, g.FileName()), g, false); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bad.key"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := ReadGroups(dir)
	if err == nil || len(keys) != 1 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	if keys, err := ReadGroups(filepath.Join(dir, "none")); err != nil || len(keys) != 0 {
		t.Errorf("%v, %v", keys, err)
	}
}

func TestPick(t *testing.T) {
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	old, next := newGroup(t), newGroup(t)
	next.NotBefore = now.Add(time.Minute)
	keys := []Group{next, old}
	if g, ok := Pick(keys, group, now); !ok || !g.Private.Equal(old.Private) {
		t.Error("want the old key until the new one is valid")
	}
	if g, ok := Pick(keys, group, now.Add(time.Minute)); !ok || !g.Private.Equal(next.Private) {
		t.Error("want the new key as soon as it is valid")
	}
	if _, ok := Pick(keys, group.Next(), now); ok {
		t.Error("a key of another group")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(newGroup(f).encode())
	f.Add(newMember(f, "s1").encode())
	f.Fuzz(func(t *testing.T, text []byte) {
		if g, err := decodeGroup(text); err == nil {
			if back, err := decodeGroup(g.encode()); err != nil || !back.Private.Equal(g.Private) {
				t.Errorf("%v", err)
			}
		}
		if m, err := decodeMember(text); err == nil {
			if back, err := decodeMember(m.encode()); err != nil || back.Public() != m.Public() {
				t.Errorf("%v", err)
			}
		}
	})
}

func FuzzReceive(f *testing.F) {
	m := newMember(f, "s1")
	value, err := Envelope("s1", m.Public(), newGroup(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	f.Fuzz(func(t *testing.T, value []byte) {
		dir := t.TempDir()
		g, _, err := m.Receive(dir, value)
		if err == nil && filepath.Dir(filepath.Join(dir, g.FileName())) != dir {
			t.Errorf("written outside of its directory: %s", g.FileName())
		}
	})
}

func TestBusKey(t *testing.T) {
	for address, want := range map[string]string{"239.192.1.2": "s1.239.192.1.2", "ff3e::1": "s1.ff3e--1"} {
		a := netip.MustParseAddr(address)
		if got := BusKey("s1", a); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if m, ok := MemberOf(want, a); !ok || m != "s1" {
			t.Errorf("%s: %q, %v", want, m, ok)
		}
		if _, ok := MemberOf(want, a.Next()); ok {
			t.Errorf("%s: taken for another group's", want)
		}
	}
}

func TestRegistration(t *testing.T) {
	m := newMember(t, "s1")
	value, err := Registration("s1", m.Public())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseRegistration("s1", value); err != nil || got != m.Public() {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := ParseRegistration("s2", value); err == nil {
		t.Error("a member's key taken under another name")
	}
}

func TestTSIG(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tsig")
	if err := WriteTSIG(path); err != nil {
		t.Fatal(err)
	}
	if secret, err := ReadTSIG(path); err != nil || len(secret) != 44 {
		t.Errorf("%d characters, %v", len(secret), err)
	}
	if err := WriteTSIG(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwritten: %v", err)
	}
	if err := os.WriteFile(path, []byte("c2hvcnQ="), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadTSIG(path); err == nil {
		t.Error("a short secret taken")
	}
}
