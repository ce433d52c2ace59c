package relay

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/apps"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// host is a server: a relay in front of a backend, and the agent beside it. Two in one process are two servers: a connection moves between them by
// its descriptor alone, where agents would freeze and restore it.
type host struct {
	*Relay
	agent *apps.Server
	stop  func() // waits for the relay's end
}

// newHost makes a server to which users connect.
func newHost(t testing.TB, backend, user string) *host {
	t.Helper()
	return startHost(t, "127.0.0.1:0", backend, user, func(*Config) {})
}

// peer makes another one at the same address, with a backend of its own. Users that connect from now on get to either.
func (h *host) peer(t testing.TB, backend string) *host {
	t.Helper()
	return startHost(t, h.addr().String(), backend, Nothing, func(*Config) {})
}

func startHost(t testing.TB, at, backend, user string, change func(*Config)) *host {
	t.Helper()
	c := Config{
		Listens: []Listen{{Name: "web", Addresses: []netip.AddrPort{netip.MustParseAddrPort(at)}, Backend: backend, User: user}},
		Agent:   socketPath(t), Connections: 1000, ConnectTimeout: patience, StopTimeout: patience, Log: slog.New(slog.DiscardHandler),
		listen: listenBesideOthers,
	}
	change(&c)
	agent := apps.NewServer(c.Agent, apps.DefaultLimits(), c.Log)
	run(t, agent)
	<-agent.Ready()
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{r, agent, run(t, r)}
	testnet.Eventually(t, patience, func() bool { return agent.Serves(h.addr().AddrPort()) }, "the agent knows the relay")
	return h
}

// run runs a task until the end of the test, or until stop is called.
func run(t testing.TB, task interface{ Run(context.Context) error }) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := task.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

// listenBesideOthers lets several relays have an address.
func listenBesideOthers(ctx context.Context, at string) (net.Listener, error) {
	l := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return setOptions(raw, []option{{unix.SOL_SOCKET, unix.SO_REUSEPORT}})
	}}
	l.SetMultipathTCP(false)
	return l.Listen(ctx, "tcp", at)
}

// socketPath is short, as names of sockets are.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "socket")
}

func (h *host) addr() *net.TCPAddr { return h.fronts[0].listener.Addr().(*net.TCPAddr) }

// user is somebody's connection.
type user struct {
	*net.TCPConn
	answers *bufio.Reader
}

func (h *host) dial(t testing.TB) *user {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, h.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &user{c, bufio.NewReader(c)}
}

func (u *user) flow() apps.Flow {
	return apps.Flow{Local: u.RemoteAddr().(*net.TCPAddr).AddrPort(), Remote: u.LocalAddr().(*net.TCPAddr).AddrPort()}
}

// export asks for the user's connection, until the relay has accepted it.
func (h *host) export(u *user, within time.Duration) (apps.Exported, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for {
		e, err := h.agent.Export(ctx, u.flow())
		if !errors.Is(err, apps.ErrUnknown) {
			return e, err
		}
		time.Sleep(time.Millisecond)
	}
}

// move moves the user's connection to another server.
func (h *host) move(t testing.TB, u *user, to *host) {
	t.Helper()
	if err := h.tryMove(u, to); err != nil {
		t.Fatal(err)
	}
}

func (h *host) tryMove(u *user, to *host) error {
	e, err := h.export(u, patience)
	if err != nil {
		return err
	}
	defer unix.Close(e.FD())
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	i, err := to.agent.Import(ctx, u.flow(), e.FD(), e.App())
	if err != nil {
		e.Back()
		return err
	}
	e.Gone()
	i.Live()
	return nil
}

// stays checks that the connection does not move, and what is said for it.
func (h *host) stays(t testing.TB, u *user, why string) {
	t.Helper()
	testnet.Eventually(t, patience, func() bool { return h.modes()[why] == 1 }, why)
	e, err := h.export(u, patience)
	if err == nil {
		unix.Close(e.FD())
		e.Back()
	}
	if stays := new(apps.StaysError); !errors.As(err, &stays) || stays.Reason != why {
		t.Errorf("export: %v, want %q", err, why)
	}
	if n := h.counters.stays()[why]; n == 0 {
		t.Errorf("%d are counted", n)
	}
}

func (u *user) say(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(u, text); err != nil {
		t.Fatalf("say %q: %v", text, err)
	}
}

func (u *user) hear(t testing.TB, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(u.answers, got); err != nil || string(got) != want {
		t.Fatalf("heard %q, %v, want %q", got, err, want)
	}
}

// get makes a request and returns the answer's body.
func (u *user) get(t testing.TB, path string) string {
	t.Helper()
	u.say(t, "GET "+path+" HTTP/1.1\r\nHost: www.example.org\r\n\r\n")
	return u.answer(t)
}

func (u *user) answer(t testing.TB) string {
	t.Helper()
	a, err := http.ReadResponse(u.answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// httpServer is an unmodified server of net/http; it answers a name and the request's path, and /echo with what was sent.
func httpServer(t testing.TB, name string) (address string) {
	t.Helper()
	return serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/echo" {
			text, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			w.Write(text)
			return
		}
		io.WriteString(w, strings.Join([]string{name, r.URL.Path}, " "))
	}))
}

func serveHTTP(t testing.TB, h http.Handler) (address string) {
	t.Helper()
	l := listenLoopback(t)
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

func listenLoopback(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// rawServer handles each connection by a function, which closes it.
func rawServer(t testing.TB, handle func(*net.TCPConn)) (address string) {
	t.Helper()
	l := listenLoopback(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(c.(*net.TCPConn))
		}
	}()
	return l.Addr().String()
}
