package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

var labs atomic.Int64 // makes names unique in this process

// start brings the small lab up under a name of the test's own.
func start(t *testing.T, text string) (*Store, *Lab, error) {
	t.Helper()
	testnet.New(t) // fails the test where namespaces cannot be made
	s := &Store{Root: filepath.Join(t.TempDir(), "labs"), Bin: "/nonexistent"}
	name := fmt.Sprintf("t%d-%d", os.Getpid(), labs.Add(1))
	source := Source{[]byte(text), fstest.MapFS{
		"note":  {Data: []byte("node {{.Node}}, {{.Include \"where\"}}, c is {{.Mgmt \"c\"}}\n")},
		"where": {Data: []byte("a is {{.Addr \"a\" \"eth0\"}} and {{index (.Addrs \"a\" \"eth0\") 1}} for {{.Node}}")},
	}}
	t.Cleanup(func() {
		if _, err := s.Down(context.Background(), name); err != nil {
			t.Errorf("down: %v", err)
		}
	})
	l, err := s.Up(t.Context(), source, name, nil)
	if err == nil {
		t.Cleanup(l.Close)
	}
	return s, l, err
}

func nothingLeft(t *testing.T, s *Store, name string) {
	t.Helper()
	if left, err := s.Leftovers(name); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func running(l *Lab) (names []string) {
	for _, p := range l.Status().Processes {
		if p.Running {
			names = append(names, p.Node+"/"+p.Process)
		}
	}
	return names
}

func TestNetUpStatusDown(t *testing.T) {
	s, l, err := start(t, small)
	if err != nil {
		t.Fatal(err)
	}
	if got := running(l); len(got) != 2 {
		t.Errorf("running: %v", got)
	}
	if !mounted(l.BPFFS()) {
		t.Error("no bpffs")
	}
	want := "blue\nnode b, a is 10.9.0.1 and 10.9.0.11 for b, c is 172.31.81.12\n"
	testnet.Eventually(t, 5*time.Second, func() bool {
		got, _ := os.ReadFile(filepath.Join(l.Dir("b"), "colour"))
		return string(got) == want
	}, "environment and file of the node")

	// A second one of the name is refused, and does no harm.
	source := Source{Text: []byte(small)}
	if _, err := s.Up(t.Context(), source, l.Name(), nil); err == nil || !strings.Contains(err.Error(), "lab down "+l.Name()) {
		t.Errorf("up twice: %v", err)
	}
	// Another command finds it, and traffic passes the switch and the router.
	again, err := s.Open(l.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := running(again); len(got) != 2 {
		t.Errorf("running, seen by another command: %v", got)
	}
	if out, err := again.Command(t.Context(), "c", "ping", "-c1", "-W5", "10.9.0.2").CombinedOutput(); err != nil {
		t.Errorf("ping: %v: %s", err, out)
	}
	if out, err := again.Command(t.Context(), "c", "ping", "-c1", "-W5", "172.31.81.1").CombinedOutput(); err != nil {
		t.Errorf("ping over the management network: %v: %s", err, out)
	}

	removed, err := s.Down(t.Context(), l.Name())
	if err != nil || removed.Stopped != 2 || removed.Killed != 0 || removed.Namespaces != 4 || removed.Mounts != 1 {
		t.Errorf("down: %v, %v", removed, err)
	}
	nothingLeft(t, s, l.Name())
	if removed, err := s.Down(t.Context(), l.Name()); err != nil || !removed.None() {
		t.Errorf("down twice: %v, %v", removed, err)
	}
	if _, err := s.Open(l.Name()); err == nil || !strings.Contains(err.Error(), "not up") {
		t.Errorf("open what is down: %v", err)
	}
}

func TestNetKillAndRestoreANode(t *testing.T) {
	_, l, err := start(t, small)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := l.Namespace("b")
	if err != nil {
		t.Fatal(err)
	}
	inside := func() int {
		pids, err := ns.Processes()
		if err != nil {
			t.Fatal(err)
		}
		return len(pids)
	}
	// A daemon's own process, which outlives it, goes with the power, too.
	child := l.Command(context.Background(), "b", "sleep", "3600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	testnet.Eventually(t, 5*time.Second, func() bool { return inside() >= 2 }, "the processes of b")
	if err := l.KillNode("b"); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, 5*time.Second, func() bool { return inside() == 0 }, "no process of b")
	<-ended
	if got := running(l); len(got) != 1 || got[0] != "a/sleeper" {
		t.Errorf("running after b was killed: %v", got)
	}
	if err := l.Command(t.Context(), "a", "ping", "-c1", "-W1", "10.9.0.2").Run(); err == nil {
		t.Error("b answers with its links cut")
	}
	if err := l.Kill("b", "teller"); err == nil {
		t.Error("what does not run was killed")
	}
	if err := l.Restore("b"); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(t.Context(), "b", "teller"); err != nil {
		t.Fatal(err)
	}
	if got := running(l); len(got) != 2 {
		t.Errorf("running again: %v", got)
	}
	if out, err := l.Command(t.Context(), "a", "ping", "-c1", "-W5", "10.9.0.2").CombinedOutput(); err != nil {
		t.Errorf("ping: %v: %s", err, out)
	}
}

func TestNetDownAfterACrash(t *testing.T) {
	s, l, err := start(t, small)
	if err != nil {
		t.Fatal(err)
	}
	// The state is lost, and a program runs inside that nobody wrote down.
	if err := os.WriteFile(l.statePath(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := l.Command(context.Background(), "c", "sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ns, err := l.Namespace("c")
	if err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, 5*time.Second, func() bool {
		pids, err := ns.Processes()
		return err == nil && len(pids) == 1
	}, "the program runs inside")
	if _, err := s.Open(l.Name()); err == nil || !strings.Contains(err.Error(), "lab down") {
		t.Errorf("open what is damaged: %v", err)
	}
	removed, err := s.Down(t.Context(), l.Name())
	if err != nil || removed.Killed != 3 {
		t.Errorf("down: %v, %v", removed, err)
	}
	if err := <-ended; err == nil {
		t.Error("the program was not killed")
	}
	nothingLeft(t, s, l.Name())
}

func TestNetWhatFailsIsTakenDown(t *testing.T) {
	for name, tt := range map[string]struct{ old, new, want string }{
		"step":                {`run: [ping, -c1, -W5, 10.8.0.1]`, `run: [sh, -c, "echo no luck; exit 1"]`, "no luck"},
		"process that ends":   {`[sleep, "3600"], ready: none`, `[sh, -c, "echo bad day; exit 1"]`, "bad day"},
		"program not there":   {`[sleep, "3600"], ready: none`, `[no-such-program]`, "no-such-program"},
		"unknown var":         {`{{.Vars.colour}}`, `{{.Vars.taste}}`, "taste"},
		"route that goes not": {`10.8.0.0/16 via 10.9.0.2`, `10.8.0.0/16 via 10.66.0.2`, "route"},
	} {
		t.Run(name, func(t *testing.T) {
			s, l, err := start(t, strings.Replace(small, tt.old, tt.new, 1))
			if err == nil {
				t.Fatalf("lab %s is up", l.Name())
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if names, err := s.List(); err != nil || len(names) > 0 {
				t.Errorf("left: %v %v", names, err)
			}
		})
	}
}

// unprivileged is the small lab with a user; the teller of b has two capabilities and one group more, and writes down what it is.
func unprivileged() string {
	return strings.NewReplacer("name: small\n", "name: small\nuser: 60880\n",
		`echo "$COLOUR" >colour && cat note >>colour;`, `id -u >who; id -G >>who; grep -E "^(Cap|NoNewPrivs)" /proc/self/status >>who; cat note >>who;`,
		"files: {note: note}", "files: {note: note}\n        capabilities: [net_admin, net_raw]\n        groups: [daemon]",
		"run: [ping, -c1, -W5, 10.8.0.1]", `run: [sh, -c, "id -u >step; grep CapEff /proc/self/status >>step"]`).Replace(small)
}

func TestNetProcessesHaveJustTheirCapabilities(t *testing.T) {
	testnet.New(t)
	root, err := os.MkdirTemp("", "labs") // the test's own directory is closed to the user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	bin := filepath.Join(t.TempDir(), "bin") // as closed as a home directory
	if err := errors.Join(os.Chmod(root, 0o755), os.Mkdir(bin, 0o755), os.Symlink("/bin/sleep", filepath.Join(bin, "sleep"))); err != nil {
		t.Fatal(err)
	}
	s := &Store{Root: root, Bin: bin}
	name := fmt.Sprintf("t%d-%d", os.Getpid(), labs.Add(1))
	t.Cleanup(func() { s.Down(context.Background(), name) })
	l, err := s.Up(t.Context(), Source{[]byte(unprivileged()), fstest.MapFS{"note": {Data: []byte("read\n")}}}, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	const two = "0000000000003000\n"
	want := "60880\n60880 1\nCapInh:\t" + two + "CapPrm:\t" + two + "CapEff:\t" + two + "CapBnd:\t" + two + "CapAmb:\t" + two + "NoNewPrivs:\t1\nread\n"
	testnet.Eventually(t, 5*time.Second, func() bool {
		got, _ := os.ReadFile(filepath.Join(l.Dir("b"), "who"))
		return string(got) == want
	}, "user and capabilities of the process")
	if got, err := os.ReadFile(filepath.Join(l.Dir("a"), "step")); string(got) != "60880\nCapEff:\t0000000000000000\n" {
		t.Errorf("a step ran as %q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(l.Bin(), "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write beside the binaries: %v", err)
	}

	// The binaries survive, and nothing else of the lab does.
	if removed, err := s.Down(t.Context(), name); err != nil || removed.Mounts != 2 {
		t.Errorf("down: %v, %v", removed, err)
	}
	nothingLeft(t, s, name)
	if _, err := os.Lstat(filepath.Join(bin, "sleep")); err != nil {
		t.Error(err)
	}
}
