package scenario

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/testnet"
)

// One failure of most kinds, with the real daemons; all of them are `make failures`.
func TestNetFailures(t *testing.T) {
	testnet.New(t) // fails the test where namespaces cannot be made
	bin := t.TempDir()
	for _, program := range []string{"cli", "igmpd", "lbd", "dnsd"} {
		name := filepath.Join(bin, map[bool]string{true: "manycast", false: program}[program == "cli"])
		if out, err := exec.Command("go", "build", "-o", name, "github.com/manycast/manycast/"+program).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", program, err, out)
		}
	}
	root, err := os.MkdirTemp("/tmp", "failures")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	if err := os.Chmod(root, 0o755); err != nil { // the lab's user passes
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	store := &lab.Store{Root: root, Bin: bin, Notice: t.Output()}
	r, err := Failures(ctx, store, Options{
		Clients: 16, Name: fmt.Sprintf("f%d", os.Getpid()), Few: true,
		Progress: NewProgress(t.Output(), false),
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Failures) != len(report.Kinds) || !r.OK() {
		t.Errorf("%d failures", len(r.Failures))
	}
	for _, c := range r.Checks {
		if !c.OK {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
}
