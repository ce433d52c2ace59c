package migrate_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/manycast/manycast/lbd/internal/apps"
	"github.com/manycast/manycast/lbd/migrate"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// server is an application's listener and the agent beside it. Two of them in one process are two servers: a connection moves
// between them by its descriptor alone, where agents would freeze and restore it.
type server struct {
	*migrate.Listener
	agent *apps.Server
}

// newServer makes a server to which users connect.
func newServer(t testing.TB, o migrate.Options) *server {
	t.Helper()
	return listen(t, "127.0.0.1:0", o)
}

// peer makes another one at the same address, as servers of a VIP are. Users that connect from now on get to either.
func (s *server) peer(t testing.TB, o migrate.Options) *server {
	t.Helper()
	return listen(t, s.Addr().String(), o)
}

func listen(t testing.TB, address string, o migrate.Options) *server {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error { return shareAddress(raw) }}
	tcp, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	o.Agent = socketPath(t)
	agent := startAgent(t, o.Agent)
	l, err := migrate.NewListener(tcp.(*net.TCPListener), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &server{l, agent}
	eventually(t, "the agent knows the listener", func() bool { return agent.Serves(s.at()) })
	return s
}

// shareAddress lets several listeners have an address.
func shareAddress(raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return errors.Join(err, failed)
}

func startAgent(t testing.TB, path string) *apps.Server {
	t.Helper()
	agent := apps.NewServer(path, apps.DefaultLimits(), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-agent.Ready()
	return agent
}

// socketPath is short, as names of sockets are.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "m")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "agent.sock")
}

func (s *server) at() netip.AddrPort { return s.Addr().(*net.TCPAddr).AddrPort() }

// flow is a user's connection as all servers see it.
func flow(user net.Conn) apps.Flow {
	return apps.Flow{Local: user.RemoteAddr().(*net.TCPAddr).AddrPort(), Remote: user.LocalAddr().(*net.TCPAddr).AddrPort()}
}

func dial(t testing.TB, to net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// export asks for the user's connection, until the application has accepted it.
func (s *server) export(t testing.TB, user net.Conn) apps.Exported {
	t.Helper()
	e, err := s.tryExport(t, user)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (s *server) tryExport(t testing.TB, user net.Conn) (apps.Exported, error) {
	t.Helper()
	for {
		e, err := s.agent.Export(within(t), flow(user))
		if !errors.Is(err, apps.ErrUnknown) {
			return e, err
		}
		time.Sleep(time.Millisecond)
	}
}

// move moves the user's connection to another server.
func (s *server) move(t testing.TB, user net.Conn, to *server) {
	t.Helper()
	e := s.export(t, user)
	defer unix.Close(e.FD())
	i, err := to.agent.Import(within(t), flow(user), e.FD(), e.App())
	if err != nil {
		t.Fatal(err)
	}
	e.Gone()
	i.Live()
}

// accept takes one connection.
func accept(t testing.TB, l *migrate.Listener) *migrate.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*migrate.Conn)
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func say(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatalf("say %q: %v", text, err)
	}
}

func hear(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("heard %q, %v, want %q", got, err, want)
	}
}
