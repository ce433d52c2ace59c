package relay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// A server behind the relay hears of the user what it was to hear.
func TestProxyHeaders(t *testing.T) {
	for how, header := range map[string]func(user, vip netip.AddrPort) []byte{
		ProxyV1: func(user, vip netip.AddrPort) []byte {
			return fmt.Appendf(nil, "PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n", user.Port(), vip.Port())
		},
		ProxyV2: func(user, vip netip.AddrPort) []byte {
			return append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01"),
				byte(user.Port()>>8), byte(user.Port()), byte(vip.Port()>>8), byte(vip.Port()))
		},
		Nothing: func(netip.AddrPort, netip.AddrPort) []byte { return nil },
	} {
		heard := make(chan []byte, 1)
		h := newHost(t, rawServer(t, func(c *net.TCPConn) {
			defer c.Close()
			text, err := io.ReadAll(c)
			if err != nil {
				t.Error(err)
			}
			heard <- text
		}), how)
		u := h.dial(t)
		u.say(t, "hello")
		u.CloseWrite()
		want := append(header(u.flow().Remote, u.flow().Local), "hello"...)
		if got := <-heard; !bytes.Equal(got, want) {
			t.Errorf("%s: the backend heard %q, want %q", how, got, want)
		}
	}
}

func TestProxyHeaderIPv6(t *testing.T) {
	user, vip := netip.MustParseAddrPort("[2001:db8::7]:40000"), netip.MustParseAddrPort("[2001:db8::80]:80")
	if got, want := string(proxyHeader(ProxyV1, user, vip)), "PROXY TCP6 2001:db8::7 2001:db8::80 40000 80\r\n"; got != want {
		t.Errorf("version 1: %q, want %q", got, want)
	}
	want := "\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x24" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x9c\x40\x00\x50"
	if got := string(proxyHeader(ProxyV2, user, vip)); got != want {
		t.Errorf("version 2: %q, want %q", got, want)
	}
}

func TestUnixBackend(t *testing.T) {
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "unix") })}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	h := newHost(t, unixPrefix+path, Nothing)
	if got := h.dial(t).get(t, "/"); got != "unix" {
		t.Errorf("heard %q", got)
	}
}

// A client that is no test's own: two requests on one connection, up and down.
func TestCurl(t *testing.T) {
	h := newHost(t, httpServer(t, "s"), Nothing)
	file := filepath.Join(t.TempDir(), "body")
	body := bytes.Repeat([]byte("0123456789"), 300_000)
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	url := "http://" + h.addr().String() + "/echo"
	out, err := exec.Command("curl", "-sS", "--data-binary", "@"+file, url, "--next", "-sS", "-H", "Transfer-Encoding: chunked", "--data-binary", "@"+file, url).Output()
	if err != nil || !bytes.Equal(out, append(body, body...)) {
		t.Errorf("curl: %v, %d bytes", err, len(out))
	}
	if n := h.counters.accepted.Load(); n != 1 {
		t.Errorf("curl has used %d connections", n)
	}
}

// Each end's end is the other's, while the other direction goes on.
func TestHalfClose(t *testing.T) {
	h := newHost(t, rawServer(t, func(c *net.TCPConn) {
		defer c.Close()
		text, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		c.Write(text)
	}), Nothing)
	u := h.dial(t)
	u.say(t, "hello")
	u.CloseWrite()
	if text, err := io.ReadAll(u); string(text) != "hello" || err != nil {
		t.Errorf("the user closes first: heard %q, %v", text, err)
	}
	heard := make(chan string, 1)
	h = newHost(t, rawServer(t, func(c *net.TCPConn) {
		defer c.Close()
		c.CloseWrite()
		text, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		heard <- string(text)
	}), Nothing)
	u = h.dial(t)
	if text, err := io.ReadAll(u); len(text) != 0 || err != nil {
		t.Errorf("the backend closes first: heard %q, %v", text, err)
	}
	u.say(t, "hello")
	u.Close()
	if got := <-heard; got != "hello" {
		t.Errorf("the backend heard %q", got)
	}
}

// The end of a user who says nothing after the backend's end does not last for ever.
func TestFinWait(t *testing.T) {
	h := startHost(t, "127.0.0.1:0", rawServer(t, func(c *net.TCPConn) { c.Close() }), Nothing, func(c *Config) { c.finWait = time.Millisecond })
	u := h.dial(t)
	if text, err := io.ReadAll(u); len(text) != 0 || err != nil {
		t.Errorf("heard %q, %v", text, err)
	}
	testnet.Eventually(t, patience, func() bool { return len(h.all()) == 0 }, "the connection is closed")
}

// A reset of one end is one of the other's.
func TestResets(t *testing.T) {
	heard := make(chan error, 1)
	h := newHost(t, rawServer(t, func(c *net.TCPConn) {
		defer c.Close()
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Error(err)
		}
		_, err := c.Read(make([]byte, 1))
		heard <- err
	}), Nothing)
	u := h.dial(t)
	u.hear(t, "x")
	u.SetLinger(0)
	u.Close()
	if err := <-heard; !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the backend heard %v", err)
	}
	h = newHost(t, rawServer(t, func(c *net.TCPConn) {
		c.Read(make([]byte, 1))
		c.SetLinger(0)
		c.Close()
	}), Nothing)
	u = h.dial(t)
	u.say(t, "x")
	if _, err := u.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the user heard %v", err)
	}
}

// Without a backend users hear what a host without a server says. When it is back they are served.
func TestBackendDown(t *testing.T) {
	l := listenLoopback(t)
	at := l.Addr().String()
	l.Close()
	first := newHost(t, at, Nothing)
	u, err := net.DialTCP("tcp", nil, first.addr())
	if err == nil {
		_, err = u.Read(make([]byte, 1))
		u.Close()
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the user heard %v", err)
	}
	if n := first.counters.unreachable.Load(); n != 1 {
		t.Errorf("%d are counted", n)
	}
	serveAt(t, at)
	if got := first.dial(t).get(t, "/"); got != "back" {
		t.Errorf("heard %q", got)
	}
}

func serveAt(t *testing.T, at string) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "back") })}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
}

// At the end requests that are on their way have their answers, and what is between requests ends.
func TestStop(t *testing.T) {
	served, goOn := make(chan struct{}), make(chan struct{})
	h := newHost(t, serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(served)
			<-goOn
		}
		io.WriteString(w, "answer")
	})), Nothing)
	idle, busy := h.dial(t), h.dial(t)
	if got := idle.get(t, "/"); got != "answer" {
		t.Errorf("heard %q", got)
	}
	busy.say(t, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-served
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		h.stop()
	}()
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("between requests: %v", err)
	}
	close(goOn)
	if got := busy.answer(t); got != "answer" {
		t.Errorf("heard %q", got)
	}
	if _, err := busy.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after the answer: %v", err)
	}
	<-stopped
}

// What does not end in time ends with the relay.
func TestStopTimeout(t *testing.T) {
	h := startHost(t, "127.0.0.1:0", rawServer(t, func(c *net.TCPConn) {
		defer c.Close()
		io.Copy(c, c)
	}), Nothing, func(c *Config) { c.StopTimeout = 0 })
	u := h.dial(t)
	u.say(t, "\x16")
	u.hear(t, "\x16")
	h.stop()
	if _, err := u.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("heard %v", err)
	}
}

// More users than there are places for wait.
func TestConnectionsLimit(t *testing.T) {
	h := startHost(t, "127.0.0.1:0", httpServer(t, "s"), Nothing, func(c *Config) { c.Connections = 2 })
	users := []*user{h.dial(t), h.dial(t)}
	for _, u := range users {
		u.get(t, "/")
	}
	third := h.dial(t)
	third.say(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if n := len(h.all()); n != 2 {
		t.Errorf("%d connections", n)
	}
	users[0].Close()
	if got := third.answer(t); got != "s /" {
		t.Errorf("heard %q", got)
	}
}

// Users of all addresses get places, also where there are fewer of these.
func TestFewerPlacesThanAddresses(t *testing.T) {
	h := startHost(t, "127.0.0.1:0", httpServer(t, "s"), Nothing, func(c *Config) {
		c.Connections = 1
		c.Listens[0].Addresses = append(c.Listens[0].Addresses, c.Listens[0].Addresses[0])
	})
	for i := range 4 {
		c, err := net.Dial("tcp", h.fronts[i%2].listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		u := &user{c.(*net.TCPConn), bufio.NewReader(c)}
		if got := u.get(t, "/"); got != "s /" {
			t.Errorf("heard %q", got)
		}
		u.Close()
	}
}

func TestState(t *testing.T) {
	for _, n := range []uint64{0, 1, 1 << 40, 1<<64 - 1} {
		if got, err := decodeState(encodeState(n)); got != n || err != nil {
			t.Errorf("%d requests: %d, %v", n, got, err)
		}
	}
	for _, bad := range []string{"", "\x02\x01", "\x01", "\x01\x80", "\x01\x01\x01", "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		if err := checkState([]byte(bad)); err == nil {
			t.Errorf("state %q is taken", bad)
		}
	}
}

func FuzzState(f *testing.F) {
	f.Add(encodeState(300))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := decodeState(b); err == nil {
			if again, err := decodeState(encodeState(n)); again != n || err != nil {
				t.Errorf("%d requests: %d, %v", n, again, err)
			}
		}
	})
}

func TestListenCheck(t *testing.T) {
	good := Listen{Name: "web", Addresses: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.80:80")}, Backend: "127.0.0.1:8080", User: Transparent}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Listen){
		"name":            func(l *Listen) { l.Name = "" },
		"no address":      func(l *Listen) { l.Addresses = nil },
		"any address":     func(l *Listen) { l.Addresses = []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80")} },
		"user":            func(l *Listen) { l.User = "known" },
		"no backend":      func(l *Listen) { l.Backend = "" },
		"backend's name":  func(l *Listen) { l.Backend = "localhost:80" },
		"itself":          func(l *Listen) { l.Backend = "192.0.2.80:80" },
		"versions":        func(l *Listen) { l.Backend = "[::1]:80" },
		"relative socket": func(l *Listen) { l.Backend, l.User = "unix:app.sock", ProxyV2 },
		"seen by socket":  func(l *Listen) { l.Backend = "unix:/run/app.sock" },
	} {
		bad := good
		if change(&bad); bad.Check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
