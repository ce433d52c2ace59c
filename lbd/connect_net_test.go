package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/clientstatus"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// manycastConnect is `manycast connect`, whose lbd is this test's.
func manycastConnect(t *testing.T, p *clientNet) []string {
	t.Helper()
	binary := filepath.Join(p.dir, "manycast")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/manycast/manycast/cli").CombinedOutput(); err != nil {
		t.Fatalf("build manycast: %v\n%s", err, out)
	}
	argv := p.argv()
	return []string{"env", asLBD + "=1", binary, "connect", "--lbd", argv[2], "--config", argv[len(argv)-1], "--bpffs", p.bpffs, "--"}
}

// leftOf is what a process of `manycast connect` has left, but for what is not its own.
func leftOf(t *testing.T, p *clientNet, pid int) (left []string) {
	t.Helper()
	name := fmt.Sprintf("%s%d", clientstatus.ConnectPrefix, pid)
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
	command := p.user.Start(append(connect, "bash", "-c", "exec 3<>/dev/tcp/192.0.2.80/80; while echo; do sleep 0.05; done >&3 & read word <&3; kill $!; [ $word = hello ] && exit 7")...)
	accepted := make(chan *net.TCPConn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c.(*net.TCPConn)
		}
	}()
	var server *net.TCPConn
	select {
	case server = <-accepted:
	case <-time.After(20 * time.Second):
		t.Fatal("the command does not connect")
	}
	user := server.RemoteAddr().(*net.TCPAddr).AddrPort()
	flow := kernel.Flow{User: netip.AddrPortFrom(user.Addr().Unmap(), user.Port()), VIP: clientVIP}
	p.socket = filepath.Join(clientstatus.RunDir, fmt.Sprintf("%s%d", clientstatus.ConnectPrefix, command.PID()), clientstatus.SocketName)
	l.Close()
	other, _ := p.connect()
	s := p.status()
	if len(s.Connections) != 1 || s.Connections[0].User != flow.User || !strings.Contains(s.Scope, "manycast-"+clientstatus.ConnectPrefix) {
		t.Errorf("status %+v, the other connection is %s", s, other.LocalAddr())
	}
	h := p.held(0, server)
	h.Sequence, h.Heard, h.Destination = 1, false, p.places[1]
	server = p.carry(flow, server, 0, 1, h)
	r := p.announce(1, wire.Change{Tag: h.Tag, Cookie: h.Cookie, User: flow.User, VIP: flow.VIP, Old: p.places[0], New: p.places[1], Sequence: 1},
		[]netip.AddrPort{clientVIP, p.places[0]})
	if r.Outcome != movement.Arrived {
		t.Errorf("%+v", r)
	}
	if _, err := server.Write([]byte("hello\n")); err != nil {
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
	first := p.client(p.argv())
	refused := p.user.Start(append(connect, "true")...)
	if err := refused.Wait(); exitCode(err) != 1 || !strings.Contains(refused.Output(), "another lbd client runs here") {
		t.Errorf("beside another: %v, %s", err, refused.Output())
	}
	first.Signal(syscall.SIGTERM)
	for _, c := range []*testnet.Process{killed, nothing, refused} {
		if left := leftOf(t, p, c.PID()); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	if err := first.Wait(); err != nil {
		t.Error(err)
	}
}
