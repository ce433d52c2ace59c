package keyfile_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/keyfile"
)

func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "authority.key")
	made, err := identity.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	if err := keyfile.WriteAuthority(file, made, false); err != nil {
		t.Fatal(err)
	}
	if err := keyfile.WriteAuthority(file, made, false); err == nil {
		t.Error("an authority was replaced untold")
	}
	authority, err := keyfile.ReadAuthority(file)
	if err != nil {
		t.Fatal(err)
	}
	public, err := keyfile.ReadAuthorityPublic(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	id, err := identity.New(authority, identity.Certificate{
		Name: "s1", Role: control.Server, Address: netip.MustParseAddr("10.0.0.1"), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s1.id")
	if err := keyfile.WriteIdentity(path, id, false); err != nil {
		t.Fatal(err)
	}
	got, err := keyfile.ReadIdentity(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID() != id.ID() || !got.Private.Equal(id.Private) || got.Verify(public, now) != nil {
		t.Errorf("read back %+v", got)
	}
	if _, err := keyfile.ReadGroup(path); err == nil {
		t.Error("an identity was taken for a group key")
	}
	for _, mode := range []struct {
		file string
		mode os.FileMode
		read func(string) error
	}{
		{path, 0o640, func(f string) error { _, err := keyfile.ReadIdentity(f); return err }},
		{file, 0o640, func(f string) error { _, err := keyfile.ReadAuthority(f); return err }},
		{file + ".pub", 0o666, func(f string) error { _, err := keyfile.ReadAuthorityPublic(f); return err }},
	} {
		if err := os.Chmod(mode.file, mode.mode); err != nil {
			t.Fatal(err)
		}
		if mode.read(mode.file) == nil {
			t.Errorf("%s of mode %v was read", mode.file, mode.mode)
		}
	}
}
