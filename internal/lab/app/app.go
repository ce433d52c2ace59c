// Package app is the lab's application: a small HTTP server that says which server it runs on, a UDP echo that does, and streams of
// numbered bytes.
package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/lab/numbered"
	"github.com/manycast/manycast/lbd/migrate"
)

// Response headers: the server's name, which the body has, too, and how many answers the connection has had, this one included.
const (
	ServerHeader = "X-Server"
	CountHeader  = "X-Answers"
)

// DefaultAgent is where an agent listens unless it is configured otherwise.
const DefaultAgent = migrate.DefaultAgent

// Config says what an application serves, on addresses that need not be there yet (IP_FREEBIND).
type Config struct {
	Name    string // of the server
	Listen  string // address:port of HTTP and UDP
	Streams string // address:port of streams; empty: none
	Number  uint8  // of the server, as streams have it
	Agent   string // unix socket by which connections move to other servers; empty: DefaultAgent
}

// App serves one address. It is a daemon.Task.
type App struct {
	name    string
	number  uint8
	http    *migrate.Listener
	udp     net.PacketConn
	streams *migrate.Listener // nil: none
	served  sync.WaitGroup
	ready   chan struct{}
}

// Listen opens all that is served.
func Listen(ctx context.Context, c Config) (*App, error) {
	if c.Number > numbered.MaxWriter {
		return nil, fmt.Errorf("app %s: number %d: want at most %d", c.Name, c.Number, numbered.MaxWriter)
	}
	a := &App{name: c.Name, number: c.Number, ready: make(chan struct{})}
	var err error
	if a.http, err = c.listen(ctx, c.Listen, migrate.Options{Name: "pages", Check: checkSession}); err != nil {
		return nil, err
	}
	cfg := net.ListenConfig{Control: freeBind}
	if a.udp, err = cfg.ListenPacket(ctx, "udp4", c.Listen); err != nil {
		return nil, errors.Join(fmt.Errorf("app %s: %w", c.Name, err), a.http.Close())
	}
	if c.Streams != "" {
		if a.streams, err = c.listen(ctx, c.Streams, migrate.Options{Name: "streams", Check: checkStream}); err != nil {
			return nil, errors.Join(err, a.http.Close(), a.udp.Close())
		}
	}
	close(a.ready) // what is in the listen queue is served
	return a, nil
}

// listen has connections that can leave and arrive.
func (c Config) listen(ctx context.Context, address string, o migrate.Options) (*migrate.Listener, error) {
	cfg := net.ListenConfig{Control: freeBind}
	l, err := cfg.Listen(ctx, "tcp4", address)
	if err != nil {
		return nil, fmt.Errorf("app %s: %w", c.Name, err)
	}
	o.Agent, o.Movable = c.Agent, migrate.Later
	m, err := migrate.NewListener(l.(*net.TCPListener), o)
	if err != nil {
		return nil, fmt.Errorf("app %s: %w", c.Name, err)
	}
	return m, nil
}

func freeBind(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) }); e != nil {
		return e
	}
	return err
}

// Addr is the address that it listens on.
func (a *App) Addr() net.Addr { return a.http.Addr() }

// StreamAddr is the address of streams.
func (a *App) StreamAddr() net.Addr { return a.streams.Addr() }

// String names the task.
func (a *App) String() string { return "app " + a.name }

// Ready is closed when connections are taken.
func (a *App) Ready() <-chan struct{} { return a.ready }

// Run serves until ctx is done.
func (a *App) Run(ctx context.Context) error {
	server := &http.Server{Handler: a.handler(), ReadHeaderTimeout: 10 * time.Second, ConnContext: withSession}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := migrate.ServeHTTP(server, a.http, exportSession); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error { return a.echo() })
	if a.streams != nil {
		group.Go(func() error { return a.serveStreams(ctx) })
	}
	group.Go(func() error {
		<-ctx.Done()
		a.udp.Close()
		if a.streams != nil {
			a.streams.Close()
		}
		return server.Close()
	})
	err := group.Wait()
	a.served.Wait()
	return err
}

// session is what the application keeps of a connection between requests.
type session struct{ Answers int }

type sessionKey struct{}

// withSession has a connection's session in its context, also of one that has arrived.
func withSession(ctx context.Context, c net.Conn) context.Context {
	s := &session{}
	if state, ok := c.(*migrate.Conn).Imported(); ok {
		json.Unmarshal(state, s) //nolint:errcheck // checkSession has read it
	}
	return context.WithValue(ctx, sessionKey{}, s)
}

func checkSession(state []byte) error { return json.Unmarshal(state, &session{}) }

func exportSession(ctx context.Context) ([]byte, error) { return json.Marshal(ctx.Value(sessionKey{})) }

// handler answers every path; "?ms=100" makes the answer wait that long, up to a minute.
func (a *App) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ms, err := strconv.ParseUint(r.URL.Query().Get("ms"), 10, 16); err == nil && ms > 0 {
			select {
			case <-time.After(time.Duration(ms) * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
		if s, ok := r.Context().Value(sessionKey{}).(*session); ok { // one request after the other
			s.Answers++
			w.Header().Set(CountHeader, strconv.Itoa(s.Answers))
		}
		w.Header().Set(ServerHeader, a.name)
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprintf(w, "%s %s\n", a.name, r.RemoteAddr)
	})
}

// echo sends each datagram back with the server's name in front.
func (a *App) echo() error {
	buf := make([]byte, 65535)
	for {
		n, from, err := a.udp.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("udp: %w", err)
		}
		a.udp.WriteTo(fmt.Appendf(nil, "%s %s", a.name, buf[:n]), from) //nolint:errcheck // a lost answer is UDP's
	}
}
