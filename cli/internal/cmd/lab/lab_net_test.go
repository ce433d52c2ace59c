package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/testnet"
)

const pair = `
name: pair
about: two nodes and a link
management: {node: a, prefix: 172.31.83.0/24}
nodes:
  - name: a
    addresses: {eth0: 10.9.0.1/24}
    processes: [{name: sleeper, command: [sleep, "3600"], ready: none}]
  - {name: b, addresses: {eth0: 10.9.0.2/24}}
links: [a:eth0 b:eth0]
steps: [{start: [a/sleeper]}]
`

// The binary itself: exec turns into the command, and the exit status is the command's own.
func TestNetUpListStatusExecDown(t *testing.T) {
	testnet.New(t) // fails the test where namespaces cannot be made
	dir := t.TempDir()
	binary := filepath.Join(dir, "manycast")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/manycast/manycast/cli").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	file := filepath.Join(dir, "pair.yaml")
	if err := os.WriteFile(file, []byte(pair), 0o644); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("cli%d", os.Getpid())
	manycast := func(args ...string) (string, int) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), binary, append([]string{"lab"}, args...)...).CombinedOutput()
		var status *exec.ExitError
		if err != nil && !errors.As(err, &status) {
			t.Fatal(err)
		}
		if status != nil {
			return string(out), status.ExitCode()
		}
		return string(out), 0
	}
	t.Cleanup(func() {
		if out, err := exec.Command(binary, "lab", "down", name).CombinedOutput(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
	})
	for _, tt := range []struct {
		args   []string
		status int
		want   []string
	}{
		{[]string{"up", file, "--name", name}, 0, []string{"lab " + name + " is up"}},
		{[]string{"up", file, "--name", name}, 1, []string{"lab down " + name}},
		{[]string{"status", name}, 0, []string{"sleeper", "yes"}},
		{[]string{"status", name, "-o", "yaml"}, 0, []string{"complete: true", "running: true", "topology: pair"}},
		{[]string{"exec", "--lab", name, "a", "--", "ping", "-c1", "-W5", "10.9.0.2"}, 0, []string{"1 received"}},
		{[]string{"exec", "--lab", name, "a", "--", "sh", "-c", "exit 7"}, 7, nil},
		{[]string{"exec", "--lab", name, "c", "--", "true"}, 1, []string{"c"}},
		{[]string{"exec", "--lab", name, "a", "--", "no-such-program"}, 127, []string{"no-such-program"}},
		{[]string{"list", "-o", "yaml"}, 0, []string{"name: multicast"}},
		{[]string{"run", "multicast", "--duration", "1s", "--name", name}, 1, []string{"want at least"}},
		{[]string{"down", name}, 0, []string{"lab " + name}},
		{[]string{"status", name}, 1, []string{"not up"}},
	} {
		out, status := manycast(tt.args...)
		if status != tt.status {
			t.Errorf("lab %v: exit status %d, want %d\n%s", tt.args, status, tt.status, out)
		}
		for _, want := range tt.want {
			if !strings.Contains(out, want) {
				t.Errorf("lab %v: no %q in\n%s", tt.args, want, out)
			}
		}
	}
}
