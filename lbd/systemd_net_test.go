package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// install is `make install` below a directory.
func install(t *testing.T, dest string) {
	t.Helper()
	built := t.TempDir()
	run := func(env []string, argv ...string) {
		t.Helper()
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir, cmd.Env = "..", append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", argv, err, out)
		}
	}
	const small = "-ldflags=-s -w" // it goes into memory
	run(nil, "go", "build", small, "-o", filepath.Join(built, "manycast"), "./cli")
	run(nil, "go", "build", small, "-o", built+"/", "./igmpd", "./lbd", "./dnsd", "./tdpd")
	run([]string{"BUILT=" + built, "DESTDIR=" + dest}, "tools/packaging/install", "install")
}

// unitClient is lbd client where systemd runs it as its unit says.
type unitClient struct {
	*testnet.Systemd
	p *clientNet
}

func (u unitClient) must(argv ...string) string {
	u.p.t.Helper()
	out, err := u.Run(argv...)
	if err != nil {
		u.p.t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return strings.TrimSpace(out)
}

// pid is the daemon's, as systemd knows it.
func (u unitClient) pid() string {
	u.p.t.Helper()
	return u.must("systemctl", "show", "--value", "--property=MainPID", "manycast-client")
}

// confined: its process has what the unit gives it, and is where it says.
func (u unitClient) confined() {
	u.p.t.Helper()
	pid := u.pid()
	status := u.must("cat", "/proc/"+pid+"/status")
	user := u.must("id", "-u", "manycast-client")
	capabilities := fmt.Sprintf("%016x", 1<<unix.CAP_NET_ADMIN|1<<unix.CAP_BPF)
	for _, want := range []string{
		"Uid:\t" + user + "\t" + user + "\t" + user + "\t" + user, "NoNewPrivs:\t1", "Seccomp:\t2",
		"CapPrm:\t" + capabilities, "CapEff:\t" + capabilities, "CapBnd:\t" + capabilities, "CapAmb:\t" + capabilities,
	} {
		if !strings.Contains(status, want+"\n") {
			u.p.t.Errorf("no %q in\n%s", want, status)
		}
	}
	if group := u.must("cat", "/proc/"+pid+"/cgroup"); !strings.HasSuffix(group, "0::/system.slice/manycast-client.service") {
		u.p.t.Errorf("it is in %s", group)
	}
}

// programs are those that it has in the kernel: at the user's interface and at the slice.
func (u unitClient) programs() []string {
	u.p.t.Helper()
	at := strings.Join(u.p.user.Programs("eth0"), "\n") + "\n"
	all := regexp.MustCompile(`client_\w+`).FindAllString(at+u.must("bpftool", "cgroup", "show", userSlice), -1)
	slices.Sort(all)
	return all
}

func (u unitClient) pins() string {
	u.p.t.Helper()
	return u.must("find", "/sys/fs/bpf/manycast/client", "-mindepth", "1")
}

// start has it installed, configured and started by the commands of docs/operations.md.
func (u unitClient) start() {
	u.p.t.Helper()
	u.must("systemd-sysusers")
	u.must("systemd-tmpfiles", "--create")
	u.must("systemctl", "daemon-reload")
	written := u.p.t.TempDir()
	u.p.configure(fmt.Sprintf("interfaces = [\"eth0\"]\ncgroup = %q\nkeys.pinned = [\"/etc/manycast/keys\"]\n", userSlice), written)
	for from, to := range map[string]string{"client.toml": "etc/manycast/client.toml", "shop.yaml": "etc/manycast/keys/shop.yaml"} {
		text, err := os.ReadFile(filepath.Join(written, from))
		must(u.p.t, err)
		must(u.p.t, os.WriteFile(u.Path(to), text, 0o644))
	}
	u.must("lbd", "client", "--check")
	u.must("systemctl", "enable", "--now", "manycast-client")
}

const userSlice = "/sys/fs/cgroup/user.slice"

// TestNetClientUnderSystemd: lbd client, started by systemd as its unit says, follows connections of a slice, over its restarts, and leaves nothing.
func TestNetClientUnderSystemd(t *testing.T) {
	p := newClientNet(t)
	files := t.TempDir()
	install(t, files)
	u := unitClient{p.user.Systemd(files), p}
	u.start()
	p.socket = u.Path("run/manycast/client/status.sock")
	u.confined()
	programs := u.programs()
	if want := []string{"client_connections", "client_egress", "client_ingress"}; !slices.Equal(programs, want) {
		t.Errorf("its programs are %v, want %v", programs, want)
	}

	l, err := p.nodes[0].Listen("tcp", clientVIP.String())
	must(t, err)
	in := func(slice string) []string {
		return u.Command("systemd-run", "--quiet", "--collect", "--wait", "--pipe", "--slice="+slice)
	}
	c := p.connecting(in("user.slice"), l)
	other := p.connecting(in("system.slice"), l)
	l.Close()
	if list := u.must("manycast", "flow", "list", "--client"); !strings.Contains(list, c.flow.User.String()) || strings.Contains(list, other.flow.User.String()) {
		t.Errorf("connections of the slice are not %s alone:\n%s", c.flow.User, list)
	}

	follows := func(when string) {
		t.Helper()
		p.move(&c)
		if s := p.status(); len(s.Connections) != 1 || s.Connections[0].Destination != p.places[c.at] || uint64(s.Connections[0].Moves) != c.moves {
			t.Errorf("%s: after %d moves %+v", when, c.moves, s.Connections)
		}
	}
	follows("started")
	started := u.pid()
	u.must("systemctl", "restart", "manycast-client")
	follows("restarted")
	restarted := u.pid()
	u.must("kill", "-KILL", restarted)
	testnet.Eventually(t, 20*time.Second, func() bool {
		out, _ := u.Run("systemctl", "is-active", "manycast-client")
		return strings.TrimSpace(out) == "active" && u.pid() != restarted
	}, "systemd starts it again")
	u.confined()
	follows("killed")
	if again := u.programs(); started == restarted || !slices.Equal(again, programs) {
		t.Errorf("processes %s, %s, %s; programs %v", started, restarted, u.pid(), again)
	}

	for _, c := range []*connecting{&c, &other} {
		_, err := c.server.Write([]byte("hello\n"))
		must(t, err)
		if err := c.Wait(); exitCode(err) != 7 {
			t.Errorf("%s has ended with %v: %s", c.flow.User, err, c.Output())
		}
	}
	for range 2 { // what a stop leaves is as good for a start as what the installation has made
		u.must("systemctl", "stop", "manycast-client")
		if result := u.must("systemctl", "show", "--value", "--property=Result", "manycast-client"); result != "success" {
			t.Errorf("the stop: %s", result)
		}
		if left := u.programs(); len(left) > 0 || u.pins() != "" {
			t.Errorf("programs %v and pins %q are left", left, u.pins())
		}
		u.must("systemctl", "start", "manycast-client")
	}
}
