package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// ErrBusy says that a connection was closed for too many others.
var ErrBusy = errors.New("too many links")

// Listener takes links.
type Listener struct {
	cfg     Config
	session *tls.Config
	tcp     *net.TCPListener

	mu        sync.Mutex
	links     int
	strangers map[netip.Addr]int
}

// Listen opens the port, address:port.
func Listen(address string, cfg Config) (*Listener, error) {
	cfg = cfg.withDefaults()
	session, err := cfg.session()
	if err != nil {
		return nil, err
	}
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("port for links: %w", err)
	}
	return &Listener{cfg: cfg, session: session, tcp: tcp.(*net.TCPListener), strangers: map[netip.Addr]int{}}, nil
}

// Addr is where it listens.
func (l *Listener) Addr() netip.AddrPort { return l.tcp.Addr().(*net.TCPAddr).AddrPort() }

// Serve takes links until ctx is done: handle has each, in a goroutine of its own, until it returns; then the link is closed. refused is
// told of those that did not come about, and from whom, by any goroutine.
func (l *Listener) Serve(ctx context.Context, handle func(context.Context, *Link), refused func(netip.AddrPort, error)) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.tcp.Close() })()
	for {
		conn, err := l.tcp.AcceptTCP()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("port for links: %w", err)
		case err != nil: // of the one connection, or no descriptors: the others go on
			refused(netip.AddrPort{}, err)
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
		if !l.enter(from.Addr()) {
			conn.Close()
			refused(from, ErrBusy)
			continue
		}
		all.Go(func() {
			defer l.leave()
			if err := l.serve(ctx, conn, from.Addr(), handle); err != nil {
				refused(from, err)
			}
		})
	}
}

func (l *Listener) serve(ctx context.Context, conn *net.TCPConn, from netip.Addr, handle func(context.Context, *Link)) error {
	defer conn.Close()
	link, err := l.cfg.answer(ctx, tls.Server(conn, l.session))
	l.known(from)
	if err != nil {
		return err
	}
	defer link.Close()
	defer context.AfterFunc(ctx, func() { link.Close() })()
	handle(ctx, link)
	return nil
}

// enter counts a stranger, if there is room for it.
func (l *Listener) enter(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.links >= l.cfg.Links || l.strangers[from] >= l.cfg.Strangers {
		return false
	}
	l.links++
	l.strangers[from]++
	return true
}

// known says that a stranger is none any more, or has been turned down.
func (l *Listener) known(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.strangers[from]--; l.strangers[from] == 0 {
		delete(l.strangers, from)
	}
}

func (l *Listener) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.links--
}
