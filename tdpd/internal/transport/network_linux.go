package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/manycast/manycast/tdpd/internal/discovery"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

const (
	connectWithin = 15 * time.Second
	// acceptedMax is how many connections others may have opened at a time.
	acceptedMax = 2048
)

// Config of Open.
type Config struct {
	ID wire.Identifier
	// Transports are where this router's sessions are, one of a family at most. They need not be there yet.
	Transport4, Transport6 netip.Addr
}

// Linux is the Network of the namespace in which it was opened.
type Linux struct {
	cfg       Config
	log       *slog.Logger
	events    chan Event
	quit      chan struct{}
	working   sync.WaitGroup
	hellos    []*helloSocket
	listeners []*net.TCPListener
	accepted  atomic.Int64
}

// Open opens the sockets. Ports below 1024 want CAP_NET_BIND_SERVICE, signatures CAP_NET_ADMIN.
func Open(cfg Config, log *slog.Logger) (*Linux, error) {
	l := &Linux{cfg: cfg, log: log, events: make(chan Event), quit: make(chan struct{})}
	for _, local := range []netip.Addr{cfg.Transport4, cfg.Transport6} {
		if !local.IsValid() {
			continue
		}
		if err := l.open(local); err != nil {
			l.Close()
			return nil, fmt.Errorf("LDP on %v: %w", local, err)
		}
	}
	return l, nil
}

func (l *Linux) open(local netip.Addr) error {
	h, err := openHellos(local)
	if err != nil {
		return err
	}
	l.hellos = append(l.hellos, h)
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return control(c, listens(local)) }}
	listener, err := lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(local, wire.Port).String())
	if err != nil {
		return err
	}
	l.listeners = append(l.listeners, listener.(*net.TCPListener))
	l.working.Go(func() { l.receive(h) })
	l.working.Go(func() { l.accept(listener) })
	return nil
}

// Events implements Network.
func (l *Linux) Events() <-chan Event { return l.events }

// SetInterfaces implements Network.
func (l *Linux) SetInterfaces(all []discovery.Interface) error {
	var errs []error
	for _, h := range l.hellos {
		errs = append(errs, h.setInterfaces(all))
	}
	return errors.Join(errs...)
}

// Hello implements Network.
func (l *Linux) Hello(s discovery.Send) error {
	datagram, err := wire.AppendPDU(nil, l.cfg.ID, wire.DefaultMaxPDULength, s.Hello)
	if err != nil {
		return err
	}
	for _, h := range l.hellos {
		if h.local.Is4() == s.To.Is4() {
			return h.send(datagram, s.Interface, s.To)
		}
	}
	return fmt.Errorf("no transport address of the family of %v", s.To)
}

// SetSecret implements Network.
func (l *Linux) SetSecret(peer netip.Addr, secret string) error {
	for _, listener := range l.listeners {
		if localOf(listener).Is4() != peer.Is4() {
			continue
		}
		raw, err := listener.SyscallConn()
		if err != nil {
			return err
		}
		if err := control(raw, signs(peer, secret)); err != nil {
			return fmt.Errorf("TCP MD5 for %v: %w", peer, err)
		}
	}
	return nil
}

func localOf(l *net.TCPListener) netip.Addr {
	return l.Addr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}

// Connect implements Network.
func (l *Linux) Connect(o Options) Conn {
	c := newConn(l.cfg.ID, o.Peer, l.events, l.quit)
	l.working.Go(func() {
		nc, err := l.dial(c, o)
		if err != nil {
			c.fail()
			c.tell(Failed{c, err})
			return
		}
		if !c.tell(Connected{c}) {
			nc.Close()
			return
		}
		c.run(nc)
	})
	return c
}

func (l *Linux) dial(c *conn, o Options) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), connectWithin)
	defer cancel()
	go func() {
		select {
		case <-c.closed:
		case <-l.quit:
		case <-ctx.Done():
		}
		cancel()
	}()
	set := []option{from(o.Local)}
	if o.Secret != "" {
		set = append(set, signs(o.Peer, o.Secret))
	}
	if o.GTSM {
		set = append(set, sends255(o.Peer), wants255(o.Peer))
	}
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.Local, 0)),
		Control:   func(_, _ string, c syscall.RawConn) error { return control(c, set...) },
	}
	return d.DialContext(ctx, "tcp", netip.AddrPortFrom(o.Peer, wire.Port).String())
}

func (l *Linux) accept(listener net.Listener) {
	for {
		nc, err := listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // of a connection that is gone, or for want of file descriptors
			l.log.Warn("accept a session's connection", "err", err)
			select {
			case <-l.quit:
			case <-time.After(100 * time.Millisecond):
			}
			continue
		case l.accepted.Add(1) > acceptedMax:
			l.accepted.Add(-1)
			nc.Close()
			continue
		}
		c := newConn(l.cfg.ID, nc.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().WithZone(""), l.events, l.quit)
		l.working.Go(func() {
			defer l.accepted.Add(-1)
			if !c.tell(Accepted{c}) {
				nc.Close()
				return
			}
			c.run(nc)
		})
	}
}

// receive hands hellos over. What cannot be one is passed over in silence (RFC 5036 section 3.5.1.2).
func (l *Linux) receive(h *helloSocket) {
	buf := make([]byte, 64<<10)
	for {
		e, ok, err := h.receive(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			l.log.Warn("receive hellos", "err", err)
			select {
			case <-l.quit:
				return
			case <-time.After(100 * time.Millisecond):
			}
		case ok:
			select {
			case l.events <- e:
			case <-l.quit:
				return
			}
		}
	}
}

// Close implements Network.
func (l *Linux) Close() {
	close(l.quit)
	for _, listener := range l.listeners {
		listener.Close()
	}
	for _, h := range l.hellos {
		h.close()
	}
	l.working.Wait()
}
