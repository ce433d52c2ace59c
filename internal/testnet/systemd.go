package testnet

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/cgroup2"
)

// Systemd is one of its own, with its own processes, control groups and files: it sees this machine's files, and what it writes is gone with it.
// It has a node's network, and is ended when the test ends.
type Systemd struct {
	t   testing.TB
	pid int
}

//go:embed systemd.sh
var systemdScript string

// Systemd boots one in the node, up to basic.target, and none of the services that are enabled on this machine. The files below a directory are put
// over this machine's before. It needs a file system that overlayfs takes, and cgroup2.
func (n *Node) Systemd(files string) *Systemd {
	n.t.Helper()
	own, err := cgroup2.Own()
	group := filepath.Join(own, n.Name())
	if err == nil {
		err = os.Mkdir(group, 0o755)
	}
	if err != nil {
		n.t.Fatalf("control group for systemd: %v", err)
	}
	n.t.Cleanup(func() { removeGroups(n.t, group) })
	script := filepath.Join(n.t.TempDir(), "systemd.sh")
	if err := os.WriteFile(script, []byte(systemdScript), 0o600); err != nil {
		n.t.Fatal(err)
	}
	const enter = `echo $$ >"$1/cgroup.procs"; exec unshare --mount --uts --ipc --cgroup --pid --fork --kill-child sh -e "$3" "$2"`
	p := n.Start("sh", "-ec", enter, "systemd", group, files, script)
	s := &Systemd{t: n.t}
	Eventually(n.t, 20*time.Second, func() bool {
		_, err := fmt.Sscanf(p.Output(), "pid %d", &s.pid)
		if err != nil && p.Ended() {
			n.t.Fatalf("systemd: %v", p.Wait())
		}
		return err == nil
	}, "systemd runs")
	n.t.Cleanup(s.tell)
	Eventually(n.t, 20*time.Second, func() bool {
		out, _ := s.Run("systemctl", "is-active", "basic.target")
		return strings.TrimSpace(out) == "active"
	}, "systemd has booted")
	return s
}

// Command is the command line that runs another one inside, as root, in no unit of systemd's: a node's Start takes it.
func (s *Systemd) Command(argv ...string) []string {
	return slices.Concat([]string{"nsenter", "--all", "--target", strconv.Itoa(s.pid), "--"}, argv)
}

// Run runs a program inside to its end and returns both its outputs.
func (s *Systemd) Run(argv ...string) (string, error) {
	argv = s.Command(argv...)
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	return string(out), err
}

// Path is where the test finds a file of systemd's.
func (s *Systemd) Path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(s.pid), "root", name)
}

// tell logs what its units have said when the test has failed.
func (s *Systemd) tell() {
	if !s.t.Failed() {
		return
	}
	out, err := s.Run("journalctl", "--no-pager", "--boot", "--output=short-precise")
	s.t.Logf("journal (%v):\n%s", err, out)
}

// removeGroups removes a control group with all below it, whose processes are about to end.
func removeGroups(t testing.TB, dir string) {
	Eventually(t, 20*time.Second, func() bool { return removeGroup(dir) }, "no process of systemd's is left")
}

// removeGroup says whether it is gone.
func removeGroup(dir string) bool {
	below, err := os.ReadDir(dir)
	if err != nil {
		return os.IsNotExist(err)
	}
	for _, d := range below {
		if d.IsDir() {
			removeGroup(filepath.Join(dir, d.Name()))
		}
	}
	return os.Remove(dir) == nil
}

// sweepGroups ends each systemd that a test process has left which was killed.
func sweepGroups() {
	own, err := cgroup2.Own()
	if err != nil {
		return // there is none
	}
	left, _ := filepath.Glob(filepath.Join(own, prefix+"*"))
	for _, dir := range left {
		if !inUse(filepath.Base(dir)) {
			_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) // best effort: another test may be at it, too
			_ = removeGroup(dir)
		}
	}
}
