package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

// These tests boot machines: they run on the host, as part of make test-vm. A boot keeps one CPU busy, so they go side by side.

const shell = "/bin/sh"

// rig is vmtest, built, with a directory of its own for temporary files.
type rig struct {
	t            *testing.T
	program, tmp string
	kind         string // user-mode Linux; where it does not start, QEMU
}

func newRig(t *testing.T) rig {
	t.Helper()
	r := rig{t, filepath.Join(t.TempDir(), "vmtest"), t.TempDir(), kindUML}
	build := exec.Command("go", "build", "-o", r.program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if out, err := r.command("-kernel", kindUML, "--", "true").CombinedOutput(); bytes.Contains(out, []byte(errNotStarted.Error())) {
		r.kind = kindQEMU
	} else if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return r
}

// of is the rig of a test of its own inside this one, that boots beside others.
func (r rig) of(t *testing.T) rig {
	t.Parallel()
	r.t, r.tmp = t, t.TempDir()
	return r
}

func (r rig) command(args ...string) *exec.Cmd {
	cmd := exec.Command(r.program, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+r.tmp)
	return cmd
}

// run returns what the shell's script wrote and its status.
func (r rig) run(script string, flags ...string) (stdout, stderr string, status int) {
	r.t.Helper()
	cmd := r.command(append(flags, "--", shell, "-c", script)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (&exec.ExitError{}); err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	r.nothingLeft()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// nothingLeft checks that there is no file, and no process that has this run's directory in its arguments.
func (r rig) nothingLeft() {
	r.t.Helper()
	if left, err := os.ReadDir(r.tmp); err != nil || len(left) > 0 {
		r.t.Errorf("files left: %v, %v", left, err)
	}
	if left := r.processes(); len(left) > 0 {
		r.t.Errorf("processes left: %q", left)
	}
}

func (r rig) processes() (found []string) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err == nil && bytes.Contains(line, []byte(r.tmp)) { // it may have gone since
			found = append(found, string(line))
		}
	}
	return found
}

func TestBootPassesOutputAndStatus(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	tests := map[string]struct {
		script, stdout, stderr string
		status                 int
	}{
		"success": {"echo out", "out\n", "", 0},
		"status":  {"echo out; echo err >&2; exit 7", "out\n", "err\n", 7},
		"signal":  {"kill -KILL $$", "", "vmtest: " + shell + ": killed\n", 137},
		"orphans": {"sleep 1000 & (sleep 1000 &) ; exit 3", "", "", 3},
		"place":   {"uname -n; ls /sys/class/net; cat /proc/sys/net/mpls/platform_labels; id -u", "vmtest\nlo\n0\n0\n", "", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := r.of(t)
			stdout, stderr, status := r.run(tt.script, "-kernel", r.kind)
			if stdout != tt.stdout || stderr != tt.stderr || status != tt.status {
				t.Errorf("got %q, %q, %d; want %q, %q, %d", stdout, stderr, status, tt.stdout, tt.stderr, tt.status)
			}
		})
	}
}

// Who asks for no kind gets one that starts.
func TestBootAuto(t *testing.T) {
	t.Parallel()
	stdout, stderr, status := newRig(t).run("ls -d /proc/sys/net/mpls")
	if stdout != "/proc/sys/net/mpls\n" || status != 0 {
		t.Errorf("got %q, %q, %d", stdout, stderr, status)
	}
}

func TestBootLosesNoOutput(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stdout, stderr, status := r.run("yes 0123456 | head -c 4000000; yes abc | head -c 1000000 >&2", "-kernel", r.kind)
	if stdout != strings.Repeat("0123456\n", 500000) || stderr != strings.Repeat("abc\n", 250000) || status != 0 {
		t.Errorf("%d and %d bytes, status %d", len(stdout), len(stderr), status)
	}
}

func TestBootFailsWithTheMachine(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	tests := map[string]struct {
		script string
		flags  []string
		want   []string
	}{
		"panic":   {"echo before; echo c > /proc/sysrq-trigger; sleep 100", nil, []string{"ended before the command did", "Kernel panic"}},
		"halt":    {"echo o > /proc/sysrq-trigger; sleep 100", nil, []string{"ended before the command did"}},
		"timeout": {"sleep 1000", []string{"-timeout", "5s"}, []string{"not done after 5s", "end of its console"}},
		"module":  {"true", []string{"-modules", "nonesuch"}, []string{"has no module nonesuch"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := r.of(t)
			_, stderr, status := r.run(tt.script, append([]string{"-kernel", r.kind}, tt.flags...)...)
			if status != failed {
				t.Errorf("status %d, want %d", status, failed)
			}
			for _, want := range tt.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("no %q in: %s", want, stderr)
				}
			}
		})
	}
}

func TestBootKeepsWhatIsWrittenWhereItIsAsked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dir := t.TempDir()
	kept, lost := filepath.Join(dir, "kept"), filepath.Join(dir, "lost")
	for _, d := range []string{kept, lost} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, stderr, status := r.run("echo x | tee "+kept+"/f "+lost+"/f >/dev/null", "-kernel", r.kind, "-write", kept); status != 0 {
		t.Fatalf("%d: %s", status, stderr)
	}
	if data, err := os.ReadFile(kept + "/f"); err != nil || string(data) != "x\n" {
		t.Errorf("kept: %q, %v", data, err)
	}
	if _, err := os.Stat(lost + "/f"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the host has what was written elsewhere: %v", err)
	}
}

func TestBootEndsBySignal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			r := r.of(t)
			cmd := r.command("-kernel", r.kind, "--", "sh", "-c", "echo up; sleep 1000")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
				t.Fatal(err)
			}
			if len(r.processes()) == 0 {
				t.Error("no process has the run's directory in its arguments: this test would see none that is left")
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // what counts is the status
			if sig == syscall.SIGKILL {
				// Nobody is left to remove the files, but the processes go.
				testnet.Eventually(t, 5*time.Second, func() bool { return len(r.processes()) == 0 }, "processes gone")
				return
			}
			if status := cmd.ProcessState.ExitCode(); status != 128+int(sig) {
				t.Errorf("status %d", status)
			}
			r.nothingLeft()
		})
	}
}

func TestBootEmulatedKernel(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dir := t.TempDir()
	script := "nproc; ls /sys/kernel/btf/vmlinux /proc/sys/net/mpls/platform_labels; ip mrule | wc -l; " +
		"echo x > " + dir + "/f; echo err >&2; exit 7"
	stdout, stderr, status := r.run(script, "-kernel", kindQEMU, "-write", dir, "-timeout", "3m")
	want := "2\n/proc/sys/net/mpls/platform_labels\n/sys/kernel/btf/vmlinux\n1\n"
	if stdout != want || stderr != "err\n" || status != 7 {
		t.Errorf("got %q, %q, %d", stdout, stderr, status)
	}
	if data, err := os.ReadFile(dir + "/f"); err != nil || string(data) != "x\n" {
		t.Errorf("kept: %q, %v", data, err)
	}
}

// TestBootPacketPrograms: Linux 6.1, Debian 12's, is the oldest that the suite runs on. Its verifier takes the packet programs from
// a loader that has what the units give (the tests' own loaders have no more), and packets pass them by clsact. Emulated it is
// slow: hence few tests, that load and attach every program, and no other machine beside.
func TestBootPacketPrograms(t *testing.T) {
	r := newRig(t)
	r.on61([]guestTests{
		{at: "lbd/internal/dataplane", tests: []string{"TestNetDirectorProgramRefuses", "TestNetAgentProgramClampsMSS/at_an_odd_offset", "TestNetClsact", "TestNetForwardUnknownOwner"}},
		{at: "tdpd/internal/fastpath", tests: []string{"TestNetUsersGetLabels", "TestNetSplitUsers", "TestNetLabelsAreSwappedAndPopped", "TestNetLabelsLeaveInUDP", "TestNetLabelsComeInUDP", "TestNetPacketsWithoutATagAreToldOf"}},
		{at: "tdpd/internal/marking", tests: []string{"TestNetUsersAreMarked", "TestNetUsersOfTwoServers"}},
		{at: "lbd/internal/dyntcp/kernel", tests: []string{"TestNetHandshakeOnTheWire", "TestNetDestinationSwitches", "TestNetChangesAreJudged", "TestNetRedirect", "TestNetSeveralClients/IPv4", "TestNetListen/IPv6", "TestNetMoveFromTheNextHop"}},
		{at: "igmpd/internal/kernel", tests: []string{"TestNetOwnerMode"}},
		{at: "internal/steer", tests: []string{"TestNetNobodyIsNotNoGroup"}},
	})
}

// TestBootLiveConnections: connections in every state of TCP leave and arrive on Linux 6.1 as on later ones, by the kernel's sockets alone and by all
// that an agent has of it. What is about how much or how fast is left out, for an emulated machine is slow, and so are IPv4 users of a listener on
// [::], whose sockets are those of the others.
func TestBootLiveConnections(t *testing.T) {
	r := newRig(t)
	const repair = "lbd/internal/repair"
	states := r.tests(repair, "TestNetMovesUnderTraffic", "TestNetQueueTooLong")
	half := len(states) / 2
	r.on61([]guestTests{
		{at: repair, flags: "-test.skip=/mapped", tests: states[:half]},
		{at: repair, flags: "-test.skip=/mapped", tests: states[half:]},
		{at: "lbd/internal/mover", tests: []string{"TestNetDeadline"}},
	})
}

// guestTests are tests of a package, to be run inside a machine.
type guestTests struct {
	at    string
	flags string
	tests []string
}

// tests are a package's that need namespaces alone, but for some.
func (r rig) tests(at string, but ...string) (names []string) {
	r.t.Helper()
	out, err := exec.Command("go", "test", "-list", "^TestNet", "../../"+at).Output()
	if err != nil {
		r.t.Fatalf("list: %v\n%s", err, out)
	}
	for _, name := range strings.Fields(string(out)) {
		if strings.HasPrefix(name, "TestNet") && !slices.Contains(but, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		r.t.Fatalf("%s has no tests", at)
	}
	return names
}

// on61 runs tests on Linux 6.1, as many packages at a time as there are CPUs: those that take longest are to come first.
func (r rig) on61(all []guestTests) {
	r.t.Helper()
	dir := r.t.TempDir()
	script := "uname -r; printf '%s\\n'"
	for i, p := range all {
		at, err := filepath.Abs("../../" + p.at)
		if err != nil {
			r.t.Fatal(err)
		}
		program := filepath.Join(dir, fmt.Sprint(i))
		if out, err := exec.Command("go", "test", "-c", "-o", program, at).CombinedOutput(); err != nil {
			r.t.Fatalf("build: %v\n%s", err, out)
		}
		run := fmt.Sprintf("cd %s && exec %s -test.v %s -test.run '^%s$'\n", at, program, p.flags, strings.Join(p.tests, "$|^"))
		if err := os.WriteFile(program+".sh", []byte(run), 0o600); err != nil {
			r.t.Fatal(err)
		}
		script += " " + program + ".sh"
	}
	script += " | xargs -n 1 -P $(nproc) sh" // each CPU has one
	stdout, stderr, status := r.run(script, "-kernel", kindQEMU, "-modules", "vxlan", "-timeout", "5m")
	if status != 0 {
		r.t.Fatalf("status %d\n%s%s", status, stdout, stderr)
	}
	for _, p := range all {
		for _, name := range p.tests {
			if !strings.Contains(stdout, "--- PASS: "+name+" ") {
				r.t.Errorf("%s was not run:\n%s", name, stdout)
			}
		}
	}
	if kernel, _, _ := strings.Cut(stdout, "\n"); !strings.HasPrefix(kernel, "6.1.") {
		r.t.Errorf("all of it passes on %s, which shows nothing of 6.1: tools/setup unpacks that on Debian 12", kernel)
	}
}
