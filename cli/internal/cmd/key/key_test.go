package key_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/cli/internal/cmd/key"
	"github.com/manycast/manycast/cli/internal/cmd/key/keytest"
	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/keybus"
	"github.com/manycast/manycast/internal/keyfile"
)

func run(t *testing.T, open keybus.OpenFunc, args ...string) (out, errs string, err error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	f := &cmdutil.Factory{Out: &stdout, Err: &stderr, Now: time.Now, Output: "table"}
	cmd := key.NewWith(f, open)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	return stdout.String(), stderr.String(), err
}

func TestMember(t *testing.T) {
	_, _, open := keytest.Buckets()
	file := filepath.Join(t.TempDir(), "s1.key")
	out, _, err := run(t, open, "create", "member", "s1", "--out", file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := keyfile.ReadMember(file)
	if err != nil || !strings.Contains(out, m.Public().String()) {
		t.Errorf("%v\n%s", err, out)
	}
	for _, args := range [][]string{{"list"}, {"show", "s1"}, {"show", file}, {"register", file}} {
		if out, _, err := run(t, open, args...); err != nil || !strings.Contains(out, "s1") || !strings.Contains(out, m.Public().String()) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	if _, _, err := run(t, open, "create", "member", "s1", "--out", file); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("file overwritten: %v", err)
	}
	other := filepath.Join(t.TempDir(), "other.key")
	if _, _, err := run(t, open, "create", "member", "s1", "--out", other); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("registration overwritten: %v", err)
	}
	if out, _, _ := run(t, open, "show", "s1"); !strings.Contains(out, m.Public().String()) {
		t.Errorf("another key is registered: %s", out)
	}
	if _, _, err := run(t, open, "register", other, "--force"); err != nil {
		t.Error(err)
	}
	if out, _, _ := run(t, open, "show", "s1"); strings.Contains(out, m.Public().String()) {
		t.Error("not replaced with --force")
	}
}

func TestMemberWithoutBus(t *testing.T) {
	away := func(context.Context) (keybus.Buckets, error) { return keybus.Buckets{}, errors.New("bus is away") }
	file := filepath.Join(t.TempDir(), "s1.key")
	out, errs, err := run(t, away, "create", "member", "s1", "--out", file)
	if err != nil || !strings.Contains(errs, "not registered") || !strings.Contains(out, "s1") {
		t.Errorf("%v\n%s%s", err, out, errs)
	}
	if _, _, err := run(t, away, "register", file); err == nil {
		t.Error("registered nowhere")
	}
}

func TestTSIGAndGroupFiles(t *testing.T) {
	_, _, open := keytest.Buckets()
	file := filepath.Join(t.TempDir(), "tsig")
	if _, _, err := run(t, open, "create", "tsig", file); err != nil {
		t.Fatal(err)
	}
	if _, err := keyfile.ReadTSIG(file); err != nil {
		t.Error(err)
	}
	if _, _, err := run(t, open, "show", file); err == nil {
		t.Error("a TSIG secret shown as a key")
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := keyfile.ReadTSIG(file); err == nil {
		t.Error("an open secret taken")
	}
}
