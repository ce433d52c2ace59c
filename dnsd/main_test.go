package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/daemon"
)

func writeConfig(t *testing.T, dataDir, more string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dnsd.toml")
	text := fmt.Sprintf("listen = [\"127.0.0.1:0\"]\ndata_dir = %q\n"+
		"[[zone]]\nname = \"cast.example.\"\nns = [\"ns1.cast.example.\"]\nmbox = \"h.cast.example.\"\n%s", dataDir, more)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSecondDaemonOnTheDataDir(t *testing.T) {
	dir := t.TempDir()
	lock, err := daemon.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := run(writeConfig(t, dir, ""), false); err == nil || !strings.Contains(err.Error(), "in use by another daemon") {
		t.Errorf("%v", err)
	}
}

func TestCheckTouchesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := run(writeConfig(t, dir, ""), true); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}

func TestSecretThatOthersCanRead(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("c2VjcmV0c2VjcmV0c2VjcmV0"), 0o644); err != nil {
		t.Fatal(err)
	}
	more := fmt.Sprintf("[[tsig]]\nname = \"cli.\"\nsecret_file = %q\n", secret)
	if err := run(writeConfig(t, t.TempDir(), more), false); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("%v", err)
	}
}
