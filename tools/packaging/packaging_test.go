// Package packaging has no code: what it holds is installed by `make install`, which is tested here.
package packaging

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const root = "../.."

// run runs a command in the source tree and returns what it says.
func run(t *testing.T, env []string, argv ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func must(t *testing.T, env []string, argv ...string) string {
	t.Helper()
	out, err := run(t, env, argv...)
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return out
}

// build builds all binaries into a directory, without symbols.
func build(t *testing.T) (built string) {
	t.Helper()
	built = t.TempDir()
	const small = "-ldflags=-s -w"
	must(t, nil, "go", "build", small, "-o", built+"/manycast", "./cli")
	must(t, nil, "go", "build", small, "-o", built+"/", "./igmpd", "./lbd", "./dnsd", "./tdpd")
	return built
}

// TestInstall goes the way of a machine: binaries are built once, all that follows is looked at below a DESTDIR.
func TestInstall(t *testing.T) {
	dest := t.TempDir()
	env := []string{"BUILT=" + build(t), "DESTDIR=" + dest, "PREFIX=/usr", "SYSCONFDIR=/etc"}
	must(t, env, "tools/packaging/install", "install")

	t.Run("tree", func(t *testing.T) { checkTree(t, dest) })
	t.Run("configurations", func(t *testing.T) { checkConfigurations(t, dest) })
	t.Run("starts", checkStarts)
	t.Run("verify", func(t *testing.T) { verify(t, dest) })
	t.Run("exposure", func(t *testing.T) { exposure(t, dest) })
	t.Run("users", func(t *testing.T) { users(t, dest) })
	t.Run("again", func(t *testing.T) { again(t, dest, env) })
}

// checkStarts: each unit looks at its configuration before it starts, and a start that hangs ends.
func checkStarts(t *testing.T) {
	for _, unit := range units(t) {
		text, err := os.ReadFile(filepath.Join("systemd", unit))
		if err != nil {
			t.Fatal(err)
		}
		wants := []string{`(?m)^ExecStartPre=/usr/bin/.* --check$`, `(?m)^TimeoutStartSec=[1-9][0-9]*s$`}
		if unit == "manycast-tdpd.service" { // its speaker of BGP is in the same group of processes: docs/bgp.md, Restarts
			wants = append(wants, `(?m)^OOMPolicy=continue$`, `(?m)^KillMode=mixed$`)
		}
		for _, want := range wants {
			if !regexp.MustCompile(want).Match(text) {
				t.Errorf("%s: nothing like %s", unit, want)
			}
		}
	}
}

func tree(t *testing.T, dest string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dest, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		fmt.Fprintf(&b, "%04o %s\n", info.Mode().Perm(), strings.TrimPrefix(path, dest))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func checkTree(t *testing.T, dest string) {
	want, err := os.ReadFile("testdata/tree")
	if err != nil {
		t.Fatal(err)
	}
	if got := tree(t, dest); got != string(want) {
		t.Errorf("installed:\n%swant testdata/tree:\n%s", got, want)
	}
}

// checkConfigurations: each reference configuration is good as it is; what it names need not be there.
func checkConfigurations(t *testing.T, dest string) {
	for file, argv := range map[string][]string{
		"igmpd.toml": {"igmpd"}, "director.toml": {"lbd", "director"}, "agent.toml": {"lbd", "agent"}, "relay.toml": {"lbd", "relay"},
		"client.toml": {"lbd", "client"}, "dnsd.toml": {"dnsd"},
		"tdpd.toml": {"tdpd"},
	} {
		argv[0] = filepath.Join(dest, "usr/bin", argv[0])
		must(t, nil, append(argv, "--check", "--config", filepath.Join(dest, "etc/manycast", file))...)
	}
}

func units(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("systemd/*.service")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for i, p := range paths {
		paths[i] = filepath.Base(p)
	}
	return paths
}

// verify: systemd has nothing to say of the units; and it would, of a binary that is not there.
func verify(t *testing.T, dest string) {
	argv := append([]string{"systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "--root=" + dest}, units(t)...)
	// The foreign units that ours are ordered after are not below dest: nothing else may be missing.
	if out := must(t, nil, argv...); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	path := filepath.Join(dest, "usr/lib/systemd/system/manycast-dnsd.service")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(path, good, 0o644)
	for _, bad := range [][2]string{{"ExecStart=/usr/bin/dnsd", "ExecStart=/usr/bin/nobody"}, {"RestartSec=", "RestratSec="}} {
		if err := os.WriteFile(path, bytes.Replace(good, []byte(bad[0]), []byte(bad[1]), 1), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := run(t, nil, argv...); err == nil && out == "" {
			t.Errorf("%s: systemd-analyze verify has nothing to say", bad[1])
		}
	}
}

var overall = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

// exposure prints what `systemd-analyze security` says of each unit, and holds it against the bound in testdata.
func exposure(t *testing.T, dest string) {
	text, err := os.ReadFile("testdata/exposure")
	if err != nil {
		t.Fatal(err)
	}
	bounds := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if name, bound, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			if bounds[name], err = strconv.ParseFloat(bound, 64); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, unit := range units(t) {
		out := must(t, nil, "systemd-analyze", "security", "--no-pager", "--offline=true", filepath.Join(dest, "usr/lib/systemd/system", unit))
		m := overall.FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("no figure of %s in %s", unit, out)
		}
		level, err := strconv.ParseFloat(m[1], 64)
		bound, ok := bounds[unit]
		if err != nil || !ok || level > bound {
			t.Errorf("%s: exposure %s, bound %v in testdata/exposure", unit, m[1], bound)
		}
		fmt.Printf("exposure %-32s %s (bound %v)\n", unit, m[1], bound)
	}
}

// users: each unit's user is one of sysusers.conf, and systemd takes that file.
func users(t *testing.T, dest string) {
	must(t, nil, "systemd-sysusers", "--root="+dest)
	passwd, err := os.ReadFile(filepath.Join(dest, "etc/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	for _, unit := range units(t) {
		text, err := os.ReadFile(filepath.Join("systemd", unit))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "\nUser=")
		user, _, _ := strings.Cut(rest, "\n")
		if user == "" || !strings.Contains("\n"+string(passwd), "\n"+user+":") {
			t.Errorf("%s: user %q is none of sysusers.conf", unit, user)
		}
	}
}

// TestDirectories: the status socket of a user's host, and the pins, are where nobody but their daemon and root gets to.
func TestDirectories(t *testing.T) {
	root := t.TempDir()
	for from, to := range map[string]string{"sysusers.conf": "usr/lib/sysusers.d", "tmpfiles.conf": "usr/lib/tmpfiles.d", "": "etc"} {
		if err := os.MkdirAll(filepath.Join(root, to), 0o755); err != nil {
			t.Fatal(err)
		}
		if from != "" {
			must(t, nil, "cp", "tools/packaging/"+from, filepath.Join(root, to, "manycast.conf"))
		}
	}
	must(t, nil, "systemd-sysusers", "--root="+root)
	must(t, nil, "systemd-tmpfiles", "--root="+root, "--create")
	passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	for dir, user := range map[string]string{
		"run/manycast/client": "manycast-client", "sys/fs/bpf/manycast/client": "manycast-client", "sys/fs/bpf/manycast/agent": "manycast-agent",
	} {
		at, err := os.Stat(filepath.Join(root, dir))
		if err != nil {
			t.Fatal(err)
		}
		owner := at.Sys().(*syscall.Stat_t).Uid
		if at.Mode() != os.ModeDir|0o700 || !strings.Contains("\n"+string(passwd), fmt.Sprintf("\n%s:x:%d:", user, owner)) {
			t.Errorf("%s: %v of user %d, want 0700 of %s", dir, at.Mode(), owner, user)
		}
	}
}

// again: a configuration that was changed outlives the next installation and the removal; nothing else does.
func again(t *testing.T, dest string, env []string) {
	path := filepath.Join(dest, "etc/manycast/agent.toml")
	if err := os.WriteFile(path, []byte("name = \"mine\"\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"install", "uninstall"} {
		must(t, env, "tools/packaging/install", what)
		if text, err := os.ReadFile(path); string(text) != "name = \"mine\"\n" {
			t.Errorf("after %s the configuration is %q, %v", what, text, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dest, "usr/*/*")); left != nil {
		for line := range strings.Lines(tree(t, dest)) {
			if strings.Contains(line, " /usr/") {
				t.Errorf("left: %s", line)
			}
		}
	}
}
