package dataplane

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// serveHTTP answers at once, but for /slow, which it answers when it is told to.
func serveHTTP(t *testing.T, slow <-chan struct{}) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-slow
		}
		_, _ = io.WriteString(w, "served")
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func ask(t *testing.T, c net.Conn, path string) {
	t.Helper()
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}

// answer reads one, and returns what comes behind it.
func answer(t *testing.T, c net.Conn) error {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "served" {
		t.Fatalf("%q, %v", body, err)
	}
	_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	_, err = r.ReadByte()
	return err
}

// TestNetOrderlyEnd: the application finishes what it does, and then closes: no user sees a reset.
func TestNetOrderlyEnd(t *testing.T) {
	slow := make(chan struct{})
	port := serveHTTP(t, slow)
	idle, busy, stays := dialUser(t, "127.0.0.7", port), dialUser(t, "127.0.0.8", port), dialUser(t, "127.0.0.9", port)
	for _, c := range []net.Conn{idle, stays} {
		ask(t, c, "/")
		if err := answer(t, c); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	ask(t, busy, "/slow")
	time.AfterFunc(200*time.Millisecond, func() { close(slow) })
	n, err := EndConnections(context.Background(), netip.MustParseAddr("127.0.0.1"), []Port{tcp(port)}, func(user netip.AddrPort) bool {
		return user.Addr() != netip.MustParseAddr("127.0.0.9")
	}, Ending{Orderly: true, Grace: 5 * time.Second})
	if err != nil || n != 2 {
		t.Errorf("ended %d, %v", n, err)
	}
	if err := answer(t, busy); !errors.Is(err, io.EOF) {
		t.Errorf("busy user: %v behind its answer, want the end", err)
	}
	if err := readError(t, idle); !errors.Is(err, io.EOF) {
		t.Errorf("idle user: %v, want the end", err)
	}
	if err := readError(t, stays); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("other user: %v, want nothing", err)
	}
}

// TestNetOrderlyEndOfWhoDoesNotClose ends by a reset after all.
func TestNetOrderlyEndOfWhoDoesNotClose(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0") // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	c := dialUser(t, "127.0.0.7", port)
	n, err := EndConnections(context.Background(), netip.MustParseAddr("127.0.0.1"), []Port{tcp(port)}, func(netip.AddrPort) bool { return true },
		Ending{Orderly: true, Grace: 50 * time.Millisecond})
	if err != nil && !strings.Contains(err.Error(), "are reset") || n != 1 {
		t.Errorf("ended %d, %v", n, err)
	}
	if err := readError(t, c); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("user sees %v, want a reset", err)
	}
}

// TestNetIdleEnd: what carries data stays.
func TestNetIdleEnd(t *testing.T) {
	port := serveHTTP(t, nil)
	idle, busy := dialUser(t, "127.0.0.7", port), dialUser(t, "127.0.0.8", port)
	all := func(netip.AddrPort) bool { return true }
	vip, ports, how := netip.MustParseAddr("127.0.0.1"), []Port{tcp(port)}, Ending{Idle: 300 * time.Millisecond}
	for end := time.Now().Add(600 * time.Millisecond); time.Now().Before(end); {
		ask(t, busy, "/")
		if _, err := busy.Read(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n, err := EndConnections(context.Background(), vip, ports, all, how); err != nil || n != 1 {
		t.Errorf("ended %d, %v, want the idle one", n, err)
	}
	if err := readError(t, idle); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("idle user sees %v, want a reset", err)
	}
	if err := readError(t, busy); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("busy user sees %v, want nothing", err)
	}
}
