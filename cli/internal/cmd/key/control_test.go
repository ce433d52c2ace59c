package key_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/cli/internal/cmd/key/keytest"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/keyfile"
)

func TestIdentity(t *testing.T) {
	_, _, open := keytest.Buckets()
	dir := t.TempDir()
	authority, file := filepath.Join(dir, "authority.key"), filepath.Join(dir, "d1.identity")
	if out, _, err := run(t, open, "create", "authority", "--out", authority); err != nil || !strings.Contains(out, authority+".pub") {
		t.Fatalf("%v\n%s", err, out)
	}
	args := []string{"create", "identity", "d1", "--role", "director", "--leader", "--address", "10.0.0.2", "--authority", authority, "--out", file, "--valid", "1h"}
	out, _, err := run(t, open, args...)
	if err != nil || !strings.Contains(out, "director, leader") {
		t.Fatalf("%v\n%s", err, out)
	}
	id, err := keyfile.ReadIdentity(file)
	if err != nil {
		t.Fatal(err)
	}
	public, err := keyfile.ReadAuthorityPublic(authority + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Verify(public, time.Now()); err != nil {
		t.Error(err)
	}
	if err := id.Verify(public, time.Now().Add(2*time.Hour)); err == nil {
		t.Error("good for longer than --valid")
	}
	if id.Name != "d1" || id.Role != control.Director || !id.Leader || id.Address.String() != "10.0.0.2" {
		t.Errorf("certificate of %s, role %d, leader %t, %s", id.Name, id.Role, id.Leader, id.Address)
	}
	if out, _, err := run(t, open, "show", file); err != nil || !strings.Contains(out, id.ID().String()) {
		t.Errorf("show: %v\n%s", err, out)
	}
	if _, _, err := run(t, open, args...); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("identity overwritten: %v", err)
	}
	if _, _, err := run(t, open, "create", "authority", "--out", authority); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("authority overwritten: %v", err)
	}
}

func TestIdentityThatNobodyWouldTake(t *testing.T) {
	_, _, open := keytest.Buckets()
	dir := t.TempDir()
	authority, file := filepath.Join(dir, "authority.key"), filepath.Join(dir, "x.identity")
	if _, _, err := run(t, open, "create", "authority", "--out", authority); err != nil {
		t.Fatal(err)
	}
	wrong := map[string][]string{
		"a role that is none":       {"x", "--role", "boss", "--address", "10.0.0.2"},
		"no role":                   {"x", "--address", "10.0.0.2"},
		"a router that leads":       {"x", "--role", "router", "--leader", "--address", "10.0.0.2"},
		"an address that is none":   {"x", "--role", "server", "--address", "ten"},
		"a group's address":         {"x", "--role", "server", "--address", "239.0.0.1"},
		"no time":                   {"x", "--role", "server", "--address", "10.0.0.2", "--valid", "0s"},
		"a name that is not a name": {"x y", "--role", "server", "--address", "10.0.0.2"},
	}
	for what, args := range wrong {
		if _, _, err := run(t, open, append([]string{"create", "identity", "--authority", authority, "--out", file}, args...)...); err == nil {
			t.Errorf("%s: made", what)
		}
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a file was written")
	}
}
