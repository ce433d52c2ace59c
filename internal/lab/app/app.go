// Package app is the lab's application: a small HTTP server that says which server it runs on, and a UDP echo that does.
package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// ServerHeader is the response header with the server's name; the body has it, too.
const ServerHeader = "X-Server"

// App serves one address. It is a daemon.Task.
type App struct {
	name  string
	http  net.Listener
	udp   net.PacketConn
	ready chan struct{}
}

// Listen opens HTTP and UDP on addr, a VIP that need not be there yet (IP_FREEBIND).
func Listen(ctx context.Context, name, addr string) (*App, error) {
	cfg := net.ListenConfig{Control: freeBind}
	l, err := cfg.Listen(ctx, "tcp4", addr)
	if err != nil {
		return nil, fmt.Errorf("app %s: %w", name, err)
	}
	u, err := cfg.ListenPacket(ctx, "udp4", addr)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("app %s: %w", name, err)
	}
	a := &App{name: name, http: l, udp: u, ready: make(chan struct{})}
	close(a.ready) // what is in the listen queue is served
	return a, nil
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

// String names the task.
func (a *App) String() string { return "app " + a.name }

// Ready is closed when connections are taken.
func (a *App) Ready() <-chan struct{} { return a.ready }

// Run serves until ctx is done.
func (a *App) Run(ctx context.Context) error {
	server := &http.Server{Handler: a.handler(), ReadHeaderTimeout: 10 * time.Second}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(a.http); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error { return a.echo() })
	group.Go(func() error {
		<-ctx.Done()
		a.udp.Close()
		return server.Close()
	})
	return group.Wait()
}

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
