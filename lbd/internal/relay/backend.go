package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// halfConn is a connection of which one direction can be closed.
type halfConn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// backend is a server, and how it hears of its users.
type backend struct {
	network, address string
	user             string // as in Listen
	timeout          time.Duration
	failing          *atomic.Bool // the last connection could not be had
}

func newBackend(l Listen, timeout time.Duration) backend {
	b := backend{"tcp", l.Backend, l.User, timeout, &atomic.Bool{}}
	if path, ok := strings.CutPrefix(l.Backend, unixPrefix); ok {
		b.network, b.address = "unix", path
	}
	return b
}

// dial connects for a user who came to a VIP, and tells the backend who that is.
func (b backend) dial(user, vip netip.AddrPort) (halfConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), b.timeout)
	defer cancel()
	conn, err := b.connect(ctx, user)
	if err != nil {
		return nil, err
	}
	if header := proxyHeader(b.user, user, vip); header != nil {
		if _, err := conn.Write(header); err != nil { // fits into any socket's buffer
			conn.Close()
			return nil, err
		}
	}
	return conn.(halfConn), nil
}

// connect connects; a transparent backend's connection comes from the user's address and, unless another one has it, from the user's port.
func (b backend) connect(ctx context.Context, user netip.AddrPort) (net.Conn, error) {
	if b.user != Transparent {
		return (&net.Dialer{}).DialContext(ctx, b.network, b.address)
	}
	conn, err := b.connectFrom(ctx, user)
	if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) {
		conn, err = b.connectFrom(ctx, netip.AddrPortFrom(user.Addr(), 0))
	}
	return conn, err
}

func (b backend) connectFrom(ctx context.Context, from netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), ControlContext: func(_ context.Context, _, _ string, raw syscall.RawConn) error {
		return setOptions(raw, transparentOptions(from))
	}}
	return d.DialContext(ctx, b.network, b.address)
}

// option is a socket option that is set to 1.
type option struct{ level, name int }

// transparentOptions let a socket have an address of another host's.
func transparentOptions(from netip.AddrPort) []option {
	options := []option{{unix.SOL_SOCKET, unix.SO_REUSEADDR}}
	if from.Addr().Is4() {
		options = append(options, option{unix.SOL_IP, unix.IP_TRANSPARENT})
	} else {
		options = append(options, option{unix.SOL_IPV6, unix.IPV6_TRANSPARENT})
	}
	if from.Port() == 0 { // the port is chosen when it is known whereto: only both together have to be unique
		options = append(options, option{unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT})
	}
	return options
}

func setOptions(raw syscall.RawConn, options []option) error {
	var errs []error
	err := raw.Control(func(fd uintptr) {
		for _, o := range options {
			errs = append(errs, unix.SetsockoptInt(int(fd), o.level, o.name, 1))
		}
	})
	return errors.Join(append(errs, err)...)
}

// reset has the peer of a TCP connection hear of an end that is not an orderly one, when it is closed.
func reset(conn syscall.Conn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return // it is closed
	}
	_ = raw.Control(func(fd uintptr) { // without effect on unix sockets, and harmless
		_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	})
}
