package migrate_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/lbd/internal/apps"
	"github.com/manycast/manycast/lbd/migrate"
	"golang.org/x/sys/unix"
)

// serveHTTP serves srv on s until the test ends.
func serveHTTP(t *testing.T, s *server, srv *http.Server, export func(context.Context) ([]byte, error)) *server {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- migrate.ServeHTTP(srv, s.Listener, export) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return s
}

// browser is a user's end of one connection.
type browser struct {
	net.Conn
	in *bufio.Reader
}

func browse(t *testing.T, to net.Addr) *browser {
	t.Helper()
	c := dial(t, to)
	return &browser{c, bufio.NewReader(c)}
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: shop\r\n\r\n" }

// wants reads one answer.
func (b *browser) wants(t *testing.T, want string) {
	t.Helper()
	answer, err := http.ReadResponse(b.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil || strings.TrimSpace(string(text)) != want {
		t.Fatalf("answer %q, %v, want %q", text, err, want)
	}
}

// mustWait checks that the connection cannot leave now.
func mustWait(t *testing.T, s *server, b *browser) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.agent.Export(ctx, flow(b)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a connection with a request on its way: Export: %v", err)
	}
}

func TestHTTPMovesWithItsSession(t *testing.T) {
	o := migrate.Options{Movable: migrate.Later, Check: checkSession}
	a := serveHTTP(t, newServer(t, o), newShop(), exportSession)
	b := browse(t, a.Addr())
	say(t, b, get("/?buy=tea"))
	b.wants(t, "[tea]")
	servers := []*server{a, serveHTTP(t, a.peer(t, o), newShop(), exportSession)}
	for i := range 20 {
		servers[i%2].move(t, b, servers[(i+1)%2])
	}
	say(t, b, get("/?buy=milk"))
	b.wants(t, "[tea milk]")
	a.move(t, b, servers[1])
	say(t, b, get("/"))
	b.wants(t, "[tea milk]")
}

// A connection moves before its first request, too.
// TestHTTPMovedIsSilentAsBefore: net/http gives a new connection less time for its first request than others have for their next one.
func TestHTTPMovedIsSilentAsBefore(t *testing.T) {
	o := migrate.Options{Movable: migrate.Later, Check: checkSession}
	patient := func() *http.Server {
		srv := newShop()
		srv.ReadHeaderTimeout, srv.IdleTimeout = 50*time.Millisecond, 10*time.Second
		return srv
	}
	a := serveHTTP(t, newServer(t, o), patient(), exportSession)
	b, c := browse(t, a.Addr()), browse(t, a.Addr())
	for _, user := range []*browser{b, c} {
		say(t, user, get("/?buy=tea"))
		user.wants(t, "[tea]")
	}
	to := serveHTTP(t, a.peer(t, o), patient(), exportSession)
	a.move(t, b, to)
	time.Sleep(150 * time.Millisecond)
	say(t, b, get("/?buy=milk"))
	b.wants(t, "[tea milk]")
	say(t, b, "GET / HT") // and a request that does not go on ends it
	b.wantsEnd(t)

	a.move(t, c, to)
	say(t, c, "GET / HT")
	c.wantsEnd(t)
}

// wantsEnd waits for the server to close the connection, whatever it says before.
func (b *browser) wantsEnd(t *testing.T) {
	t.Helper()
	_ = b.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, b.in); err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the connection goes on: %v", err)
	}
}

func TestHTTPMovesUnused(t *testing.T) {
	o := migrate.Options{Movable: migrate.Later}
	a := serveHTTP(t, newServer(t, o), newShop(), exportSession)
	b := browse(t, a.Addr())
	other := serveHTTP(t, a.peer(t, o), newShop(), exportSession)
	a.move(t, b, other)
	say(t, b, get("/?buy=tea"))
	b.wants(t, "[tea]")
}

// What net/http has read ahead of a request is not lost: the connection waits until that is served.
func TestHTTPWaitsForWhatItHasRead(t *testing.T) {
	next := get("/?buy=milk")
	for _, ahead := range []int{1, 3, 4, 20, len(next)} {
		a := serveHTTP(t, newServer(t, migrate.Options{Movable: migrate.Later}), newShop(), exportSession)
		b := browse(t, a.Addr())
		other := serveHTTP(t, a.peer(t, migrate.Options{Movable: migrate.Later}), newShop(), exportSession)
		say(t, b, get("/?buy=tea")+next[:ahead])
		b.wants(t, "[tea]")
		if ahead < len(next) {
			mustWait(t, a, b)
			say(t, b, next[ahead:])
		}
		b.wants(t, "[tea milk]")
		a.move(t, b, other)
		say(t, b, get("/"))
		b.wants(t, "[tea milk]")
	}
}

// The first bytes of a request that come while the connection waits for one are not left behind either.
func TestHTTPWaitsForTheRestOfARequest(t *testing.T) {
	a := serveHTTP(t, newServer(t, migrate.Options{Movable: migrate.Later}), newShop(), exportSession)
	b := browse(t, a.Addr())
	say(t, b, get("/?buy=tea"))
	b.wants(t, "[tea]")
	request := get("/?buy=milk")
	say(t, b, request[:2])
	time.Sleep(20 * time.Millisecond) // let it be read
	mustWait(t, a, b)
	say(t, b, request[2:])
	b.wants(t, "[tea milk]")
}

func TestHTTPWaitsForItsHandler(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	slow := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-end
		io.WriteString(w, "done")
	})}
	a := serveHTTP(t, newServer(t, migrate.Options{Movable: migrate.Later}), slow, nil)
	b := browse(t, a.Addr())
	other := serveHTTP(t, a.peer(t, migrate.Options{Movable: migrate.Later}), newShop(), exportSession)
	say(t, b, get("/"))
	<-begun
	mustWait(t, a, b)
	exports := make(chan apps.Exported, 1)
	go func() { exports <- a.export(t, b) }()
	close(end)
	b.wants(t, "done")
	e := <-exports
	i, err := other.agent.Import(within(t), flow(b), e.FD(), []byte(`{"basket":["sugar"]}`))
	if err != nil {
		t.Fatal(err)
	}
	e.Gone()
	unix.Close(e.FD())
	i.Live()
	say(t, b, get("/"))
	b.wants(t, "[sugar]")
}

func TestHTTPStays(t *testing.T) {
	hijack := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "mine")
		c.Read(make([]byte, 1))
	})}
	h2c := new(http.Protocols)
	h2c.SetHTTP1(true)
	h2c.SetUnencryptedHTTP2(true)
	for name, one := range map[string]struct {
		server *http.Server
		export func(context.Context) ([]byte, error)
		answer string
	}{
		"hijacked":           {hijack, nil, ""},
		"export fails":       {newShop(), func(context.Context) ([]byte, error) { return nil, errors.New("no") }, "[tea]"},
		"unencrypted HTTP/2": {&http.Server{Protocols: h2c, Handler: http.NotFoundHandler()}, nil, "404 page not found"},
	} {
		t.Run(name, func(t *testing.T) {
			a := serveHTTP(t, newServer(t, migrate.Options{Movable: migrate.Later}), one.server, one.export)
			b := browse(t, a.Addr())
			say(t, b, get("/?buy=tea"))
			if one.answer == "" {
				hear(t, b, "mine")
			} else {
				b.wants(t, one.answer)
			}
			var stays *apps.StaysError
			if _, err := a.tryExport(t, b); !errors.As(err, &stays) {
				t.Errorf("Export: %v", err)
			}
		})
	}
}

// The application's own hooks see a *Conn, as net/http would show it what its listener accepted.
func TestHTTPKeepsHooks(t *testing.T) {
	states := make(chan http.ConnState, 8)
	srv := newShop()
	srv.ConnState = func(c net.Conn, s http.ConnState) {
		if _, ok := c.(*migrate.Conn); !ok {
			t.Errorf("ConnState is called with %T", c)
		}
		states <- s
	}
	a := serveHTTP(t, newServer(t, migrate.Options{Movable: migrate.Later}), srv, exportSession)
	b := browse(t, a.Addr())
	say(t, b, get("/"))
	b.wants(t, "[]")
	e := a.export(t, b)
	e.Gone()
	unix.Close(e.FD())
	for _, want := range []http.ConnState{http.StateNew, http.StateActive, http.StateIdle, http.StateClosed} {
		if got := <-states; got != want {
			t.Errorf("state %v, want %v", got, want)
		}
	}
}
