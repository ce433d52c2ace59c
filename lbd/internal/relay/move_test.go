package relay

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/apps"
)

func TestKeepAliveMoves(t *testing.T) {
	first := newHost(t, httpServer(t, "first"), Nothing)
	u := first.dial(t)
	second := first.peer(t, httpServer(t, "second"))
	from, to := first, second
	name := map[*host]string{first: "first", second: "second"}
	for i := range 100 {
		path := fmt.Sprintf("/%d", i)
		if i%3 != 2 { // and sometimes it goes on before it has asked anything
			if got := u.get(t, path); got != name[from]+" "+path {
				t.Fatalf("request %d: %q, want it of the %s", i, got, name[from])
			}
		}
		from.move(t, u, to)
		from, to = to, from
	}
	if got := u.get(t, "/end"); got != "first /end" {
		t.Errorf("after all moves: %q", got)
	}
	if a, b := first.counters.moved.Load(), second.counters.arrived.Load(); a != 50 || b != 50 {
		t.Errorf("%d have moved, %d arrived, want 50", a, b)
	}
	testnet.Eventually(t, patience, func() bool { return first.modes()[modeBetween] == 1 && len(second.all()) == 0 }, "one connection is left")
}

// Before the first request, too.
func TestNewConnectionMoves(t *testing.T) {
	first := newHost(t, httpServer(t, "first"), Nothing)
	u := first.dial(t)
	second := first.peer(t, httpServer(t, "second"))
	first.move(t, u, second)
	if got := u.get(t, "/"); got != "second /" {
		t.Errorf("heard %q", got)
	}
}

// A connection within a request waits for the answer's end.
func TestRequestIsFinishedBefore(t *testing.T) {
	served, goOn := make(chan struct{}), make(chan struct{})
	slow := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(served)
		<-goOn
		io.WriteString(w, "slow")
	}))
	first := newHost(t, slow, Nothing)
	u := first.dial(t)
	second := first.peer(t, httpServer(t, "second"))
	u.say(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-served
	if _, err := first.export(u, 20*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("export within a request: %v", err)
	}
	if n := first.modes()[modeInRequest]; n != 1 {
		t.Errorf("%d connections are within a request", n)
	}
	moved := make(chan error)
	go func() { moved <- first.tryMove(u, second) }()
	close(goOn)
	if got := u.answer(t); got != "slow" {
		t.Errorf("heard %q", got)
	}
	if err := <-moved; err != nil {
		t.Fatal(err)
	}
	if got := u.get(t, "/next"); got != "second /next" {
		t.Errorf("heard %q", got)
	}
}

// A connection that nobody takes goes on where it was, with the backend's connection that it had.
func TestGivenBack(t *testing.T) {
	accepted := make(chan struct{}, 10)
	h := newHost(t, rawServer(t, func(c *net.TCPConn) {
		accepted <- struct{}{}
		defer c.Close()
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") })}
		srv.Serve(&oneListener{c: c})
		<-time.After(patience)
	}), Nothing)
	u := h.dial(t)
	for range 10 {
		if got := u.get(t, "/"); got != "here" {
			t.Fatalf("heard %q", got)
		}
		e, err := h.export(u, patience)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(e.FD())
		e.Back()
	}
	if len(accepted) != 1 {
		t.Errorf("the backend had %d connections", len(accepted))
	}
}

// oneListener has one connection.
type oneListener struct{ c net.Conn }

func (l *oneListener) Accept() (c net.Conn, err error) {
	if c, l.c = l.c, nil; c == nil {
		return nil, io.EOF
	}
	return c, nil
}
func (l *oneListener) Close() error   { return nil }
func (l *oneListener) Addr() net.Addr { return &net.TCPAddr{} }

// What is no HTTP/1.1, or ends, stays, and goes on.
func TestStays(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	for why, script := range map[string]struct{ asked, answered string }{
		"tls":     {"\x16\x03\x01\x00\x05hello", "\x16\x03\x03"},
		"http2":   {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x00\x00\x00\x04\x00\x00\x00\x00\x00"},
		"tunnel":  {"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"},
		"closing": {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", ok},
		"opaque":  {"EHLO a\r\n\r\n", "250 a\r\n"},
	} {
		t.Run(why, func(t *testing.T) {
			h := newHost(t, rawServer(t, func(c *net.TCPConn) {
				defer c.Close()
				if _, err := io.ReadFull(c, make([]byte, len(script.asked))); err == nil {
					io.WriteString(c, script.answered)
					io.Copy(c, c)
				}
			}), Nothing)
			u := h.dial(t)
			u.say(t, script.asked)
			u.hear(t, script.answered)
			for range 3 {
				h.stays(t, u, why)
				u.say(t, "and on")
				u.hear(t, "and on")
			}
		})
	}
}

// A server that speaks first is heard, and no move loses what it says.
func TestServerSpeaksFirst(t *testing.T) {
	h := newHost(t, rawServer(t, func(c *net.TCPConn) {
		defer c.Close()
		io.WriteString(c, "220 mail\r\n")
		io.Copy(c, c)
	}), Nothing)
	u := h.dial(t)
	u.hear(t, "220 mail\r\n")
	h.stays(t, u, "opaque")
}

// asking asks for the connection again and again until the test's end.
func asking(t *testing.T, h *host, u *user) (asked func() int) {
	ctx, cancel := context.WithCancel(t.Context())
	n, ended := 0, make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			e, err := h.agent.Export(ctx, u.flow())
			if err == nil {
				unix.Close(e.FD())
				e.Back()
			}
			if stays := new(apps.StaysError); err == nil || errors.As(err, &stays) {
				n++
			}
		}
	}()
	return func() int { cancel(); <-ended; return n }
}

// No byte is lost, doubled or changed, in both directions at once, by requests to leave that come all the time.
func TestBytesWhileAsked(t *testing.T) {
	const size = 8 << 20
	for name, preface := range map[string]string{
		"opaque":     "\x00",
		"in request": fmt.Sprintf("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, rawServer(t, func(c *net.TCPConn) {
				defer c.Close()
				io.Copy(c, c)
			}), Nothing)
			u := h.dial(t)
			asked := asking(t, h, u)
			sent := make(chan [32]byte)
			go func() {
				random, sum := rand.NewChaCha8([32]byte{}), sha256.New()
				_, err := io.Copy(io.MultiWriter(u, sum), io.MultiReader(strings.NewReader(preface), io.LimitReader(random, size)))
				if err = errors.Join(err, u.CloseWrite()); err != nil {
					t.Error(err)
				}
				sent <- [32]byte(sum.Sum(nil))
			}()
			sum := sha256.New()
			n, err := io.Copy(sum, u)
			if want := <-sent; err != nil || [32]byte(sum.Sum(nil)) != want {
				t.Errorf("heard %d bytes of %d, %v, not as they were", n, len(preface)+size, err)
			}
			if n := asked(); name == "opaque" && n == 0 {
				t.Error("nobody has asked")
			}
		})
	}
}

// Keep-alive connections that are asked for and given back all the time lose no request.
func TestRequestsWhileAsked(t *testing.T) {
	h := newHost(t, httpServer(t, "s"), Nothing)
	u := h.dial(t)
	asked := asking(t, h, u)
	for i := range 500 {
		path := fmt.Sprintf("/%d", i)
		if got := u.get(t, path); got != "s "+path {
			t.Fatalf("heard %q", got)
		}
	}
	if asked() == 0 {
		t.Error("nobody has asked")
	}
}

// Users who ask for more before they have their answers move when they have them all.
func TestPipelinedMoves(t *testing.T) {
	first := newHost(t, httpServer(t, "first"), Nothing)
	u := first.dial(t)
	second := first.peer(t, httpServer(t, "second"))
	from, to := first, second
	for range 20 {
		u.say(t, strings.Repeat("GET /x HTTP/1.1\r\nHost: a\r\n\r\n", 20))
		moved := make(chan error)
		go func() { moved <- from.tryMove(u, to) }()
		for range 20 {
			if got := u.answer(t); !strings.HasSuffix(got, " /x") {
				t.Fatalf("heard %q", got)
			}
		}
		if err := <-moved; err != nil {
			t.Fatal(err)
		}
		from, to = to, from
	}
}

// Users who ask all the time while they are moved all the time have all their answers.
func TestMovesUnderLoad(t *testing.T) {
	const users, moves = 8, 50
	first := newHost(t, httpServer(t, "s"), Nothing)
	var all []*user
	for range users {
		u := first.dial(t)
		u.get(t, "/")
		all = append(all, u)
	}
	second := first.peer(t, httpServer(t, "s"))
	var moving sync.WaitGroup
	for _, u := range all {
		moving.Go(func() {
			from, to := first, second
			for range moves {
				if err := from.tryMove(u, to); err != nil {
					t.Error(err)
					return
				}
				from, to = to, from
			}
		})
	}
	moved := make(chan struct{})
	go func() {
		defer close(moved)
		moving.Wait()
	}()
	for i := 0; ; i++ {
		path := fmt.Sprintf("/%d", i)
		for _, u := range all {
			if got := u.get(t, path); got != "s "+path {
				t.Fatalf("heard %q", got)
			}
		}
		select {
		case <-moved:
			return
		default:
		}
	}
}
