package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/clientstatus"
	"github.com/manycast/manycast/internal/connects"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// manycastConnect is `manycast connect`, that of make build, whose lbd is this test's.
func manycastConnect(t *testing.T, p *clientNet) []string {
	t.Helper()
	binary, err := filepath.Abs("../bin/manycast")
	must(t, err)
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/manycast/manycast/cli").CombinedOutput(); err != nil {
		t.Fatalf("build manycast: %v\n%s", err, out)
	}
	argv := p.argv()
	return []string{"env", asLBD + "=1", binary, "connect", "--lbd", argv[2], "--config", argv[len(argv)-1], "--bpffs", p.bpffs, "--"}
}

// leftOf is what a process of `manycast connect` has left, but for what is not its own.
func leftOf(t *testing.T, p *clientNet, pid int) (left []string) {
	t.Helper()
	name := fmt.Sprintf("%s%d", connects.Prefix, pid)
	for _, path := range []string{filepath.Join(clientstatus.RunDir, name), filepath.Join(p.bpffs, name)} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			left = append(left, path)
		}
	}
	out, err := exec.Command("find", "/sys/fs/cgroup", "-name", "manycast-"+name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return append(left, strings.Fields(string(out))...)
}

func exitCode(err error) int {
	var e *exec.ExitError
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	return 0
}

// The connection of one command moves, those of others on the host are plain; its status is that of the command, and nothing is left.
func TestNetConnect(t *testing.T) {
	p := newClientNet(t)
	connect := manycastConnect(t, p)
	l, err := p.nodes[0].Listen("tcp", clientVIP.String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	command := p.connecting(connect, l)
	flow := command.flow
	p.socket = filepath.Join(clientstatus.RunDir, fmt.Sprintf("%s%d", connects.Prefix, command.PID()), clientstatus.SocketName)
	l.Close()
	other, _ := p.connect()
	s := p.status()
	if len(s.Connections) != 1 || s.Connections[0].User != flow.User || !strings.Contains(s.Scope, "manycast-"+connects.Prefix) {
		t.Errorf("status %+v, the other connection is %s", s, other.LocalAddr())
	}
	p.move(&command)
	if _, err := command.server.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); exitCode(err) != 7 {
		t.Errorf("the command has ended with %v", err)
	}
	if left := leftOf(t, p, command.PID()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Signals are the command's, what it leaves running stays, and without lbd client there is no command.
func TestNetConnectSignals(t *testing.T) {
	p := newClientNet(t)
	connect := manycastConnect(t, p)
	command := p.user.Start(append(connect, "sh", "-c", "sleep 300 >/dev/null 2>&1 & echo left $!; trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done")...)
	testnet.Eventually(t, 20*time.Second, func() bool { return strings.Contains(command.Output(), "up") }, "the command runs")
	var left int
	if _, err := fmt.Sscanf(command.Output(), "left %d", &left); err != nil {
		t.Fatal(command.Output(), err)
	}
	command.Signal(syscall.SIGTERM)
	if err := command.Wait(); exitCode(err) != 9 {
		t.Errorf("the command has ended with %v: %s", err, command.Output())
	}
	if err := syscall.Kill(left, syscall.SIGKILL); err != nil {
		t.Errorf("what the command has left is gone: %v", err)
	}
	if left := leftOf(t, p, command.PID()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	killed := p.user.Start(append(connect, "sh", "-c", "kill -KILL $$")...)
	if err := killed.Wait(); exitCode(err) != 128+9 {
		t.Errorf("a killed command has ended with %v: %s", err, killed.Output())
	}
	nothing := p.user.Start(append(connect, "/nothing")...)
	if err := nothing.Wait(); exitCode(err) != 1 || !strings.Contains(nothing.Output(), "/nothing") {
		t.Errorf("no command: %v, %s", err, nothing.Output())
	}
	for _, c := range []*testnet.Process{killed, nothing} {
		if left := leftOf(t, p, c.PID()); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// connecting is a command of `manycast connect` that has made a connection, and ends with a word from there.
type connecting struct {
	*testnet.Process
	flow   kernel.Flow
	server *net.TCPConn
	at     int              // of clientNet's servers
	moves  uint64           // so far
	places []netip.AddrPort // where its user may be
}

func (p *clientNet) connected(command *testnet.Process, flow kernel.Flow, server *net.TCPConn) connecting {
	return connecting{Process: command, flow: flow, server: server, places: []netip.AddrPort{clientVIP, p.places[0]}}
}

func (p *clientNet) connecting(connect []string, l net.Listener) connecting {
	p.t.Helper()
	script := "exec 3<>/dev/tcp/192.0.2.80/80; while echo; do sleep 0.05; done >&3 & read word <&3; kill $!; [ $word = hello ] && exit 7"
	command := p.user.Start(append(slices.Clone(connect), "bash", "-c", script)...)
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		p.t.Fatalf("the command does not connect: %v: %s", err, command.Output())
	}
	user := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	return p.connected(command, kernel.Flow{User: netip.AddrPortFrom(user.Addr().Unmap(), user.Port()), VIP: clientVIP}, c.(*net.TCPConn))
}

// move takes the connection to the other server, which tells the user.
func (p *clientNet) move(c *connecting) {
	p.t.Helper()
	from, to := c.at, 1-c.at
	h := p.held(from, c.server)
	c.at, c.moves = to, c.moves+1
	h.Sequence, h.Heard, h.Destination = c.moves, false, p.places[to]
	c.server = p.carry(c.flow, c.server, from, to, h)
	change := wire.Change{Tag: h.Tag, Cookie: h.Cookie, User: c.flow.User, VIP: c.flow.VIP, Old: p.places[from], New: p.places[to], Sequence: c.moves}
	if r := p.announce(to, change, c.places); r.Outcome != movement.Arrived {
		p.t.Errorf("%s: %+v", c.flow, r)
	}
	c.places = []netip.AddrPort{p.places[to]}
}

// Two commands beside the client of the whole host: each connection moves, told by its own client.
func TestNetConnectSideBySide(t *testing.T) {
	p := newClientNet(t)
	connect := manycastConnect(t, p)
	whole := p.client(p.argv())
	l, err := p.nodes[0].Listen("tcp", clientVIP.String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	first, second := p.connecting(connect, l), p.connecting(connect, l)
	l.Close()
	user, server := p.connect()
	others := p.connected(nil, clientFlow(user), server)
	if s := p.status(); len(s.Connections) != 1 || s.Connections[0].User != others.flow.User {
		t.Errorf("the whole host's client has %+v", s.Connections)
	}
	go func() { // as the commands do: a user that says nothing is not heard
		for err := error(nil); err == nil; time.Sleep(50 * time.Millisecond) {
			_, err = user.Write([]byte("\n"))
		}
	}()
	for _, c := range []*connecting{&first, &others, &second} {
		if out, err := p.nodes[0].Run("nft", "delete table inet gate"); err != nil && c != &first {
			t.Fatal(out, err)
		}
		p.move(c)
	}
	word := make([]byte, 5)
	_, err = others.server.Write([]byte("hello"))
	if e := user.SetReadDeadline(time.Now().Add(20 * time.Second)); err == nil && e == nil {
		_, err = io.ReadFull(user, word)
	}
	if err != nil || string(word) != "hello" {
		t.Errorf("%q, %v", word, err)
	}
	for _, c := range []connecting{first, second} {
		if _, err := c.server.Write([]byte("hello\n")); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); exitCode(err) != 7 {
			t.Errorf("the command has ended with %v: %s", err, c.Output())
		}
		if left := leftOf(t, p, c.PID()); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	whole.Signal(syscall.SIGTERM)
	if err := whole.Wait(); err != nil {
		t.Error(err)
	}
}

// childOf is the lbd client of a run of `manycast connect`.
func childOf(t *testing.T, p *clientNet, command *testnet.Process) (pid int) {
	t.Helper()
	out, err := exec.Command("pgrep", "-P", fmt.Sprint(command.PID()), "-f", "client --config").Output()
	if _, e := fmt.Sscan(string(out), &pid); err != nil || e != nil {
		t.Fatalf("lbd client of %d: %q, %v", command.PID(), out, err)
	}
	return pid
}

// Whoever is killed, nothing is left: one removes what both have made, and where both are killed the next client does, but not what others have who live.
func TestNetConnectKilled(t *testing.T) {
	p := newClientNet(t)
	connect := manycastConnect(t, p)
	run := func() *testnet.Process {
		command := p.user.Start(append(connect, "sh", "-c", "echo up $$; exec sleep 300")...)
		testnet.Eventually(t, 20*time.Second, func() bool { return strings.Contains(command.Output(), "up") }, "the command runs")
		if left := leftOf(t, p, command.PID()); len(left) != 3 {
			t.Fatalf("a run has %v", left)
		}
		return command
	}
	stays := func(command *testnet.Process) {
		var pid int
		if _, err := fmt.Sscanf(command.Output(), "up %d", &pid); err != nil {
			t.Fatal(command.Output(), err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Errorf("the command is gone: %v", err)
		}
	}
	gone := func(command *testnet.Process, what ...any) {
		t.Helper()
		testnet.Eventually(t, 20*time.Second, func() bool { return len(leftOf(t, p, command.PID())) == 0 }, what...)
	}
	lives := run()

	killed := run()
	killed.Signal(syscall.SIGKILL)
	gone(killed, "its client removes what a killed run has")
	stays(killed)

	killed = run()
	if err := syscall.Kill(childOf(t, p, killed), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killed.Signal(syscall.SIGTERM) // the command's
	if err := killed.Wait(); err == nil || !strings.Contains(killed.Output(), "killed") {
		t.Errorf("a run whose client was killed: %v: %s", err, killed.Output())
	}
	gone(killed, "a run removes what its killed client has")

	for what, next := range map[string]func(){
		"another run": func() {
			if err := p.user.Start(append(connect, "true")...).Wait(); err != nil {
				t.Error(err)
			}
		},
		"lbd client": func() {
			client := p.client(p.argv())
			client.Signal(syscall.SIGTERM)
			if err := client.Wait(); err != nil {
				t.Error(err)
			}
		},
	} {
		both := run()
		child := childOf(t, p, both)
		if err := errors.Join(syscall.Kill(both.PID(), syscall.SIGSTOP), syscall.Kill(child, syscall.SIGKILL), syscall.Kill(both.PID(), syscall.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		both.Wait()
		if left := leftOf(t, p, both.PID()); len(left) != 3 {
			t.Errorf("two that were killed at once have left %v", left)
		}
		next()
		if left := leftOf(t, p, both.PID()); len(left) > 0 {
			t.Errorf("%s leaves %v", what, left)
		}
		stays(both)
	}
	if left := leftOf(t, p, lives.PID()); len(left) != 3 {
		t.Errorf("of a run that goes on there is left %v", left)
	}
	lives.Signal(syscall.SIGTERM)
	lives.Wait()
	gone(lives, "a run that was ended leaves nothing")
	if left := p.user.Programs("eth0"); len(left) > 0 {
		t.Errorf("programs are left: %q", left)
	}
}
