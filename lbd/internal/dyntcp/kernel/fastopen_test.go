package kernel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fastopen connects with TCP fast open (RFC 7413), and sends with the SYN where there is a cookie.
func (p *path) fastopen(to string, l *net.TCPListener) pair {
	p.t.Helper()
	var c net.Conn
	err := p.user.Do(func() (err error) {
		d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1) })
			return errors.Join(err, e)
		}}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		c, err = d.DialContext(ctx, "tcp", to)
		return err
	})
	if err == nil {
		_, err = io.WriteString(c, "first")
	}
	if err != nil {
		p.t.Fatal(err)
	}
	l.SetDeadline(time.Now().Add(20 * time.Second))
	server, err := l.AcceptTCP()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		c.Close()
		server.Close()
	})
	server.SetDeadline(time.Now().Add(20 * time.Second))
	if b := make([]byte, 5); true {
		if _, err := io.ReadFull(server, b); err != nil || string(b) != "first" {
			p.t.Fatalf("%q, %v", b, err)
		}
	}
	return pair{c.(*net.TCPConn), server}
}

// With timestamps a SYN with a cookie of fast open has no room for the option: such connections are plain. Without there is room, but in a SYN-ACK that
// brings a cookie not for the destination. What the first SYN-ACK has with timestamps is the kernel's choice: some leave those out.
func TestNetFastOpen(t *testing.T) {
	for name, timestamps := range map[string]string{"with timestamps": "1", "without": "0"} {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			e := families["IPv4"]
			p.user.Sysctl("net.ipv4.tcp_timestamps", timestamps)
			p.user.Sysctl("net.ipv4.tcp_fastopen", "1")
			p.s1.Sysctl("net.ipv4.tcp_fastopen", "0x402") // every listener's
			client, server := p.client(), p.server(p.s1)
			l := p.listen(p.s1, e.vip.String())
			wire := p.tap(p.router, "users")
			for i, place := range []netip.AddrPort{e.vip, e.s1} {
				c := p.fastopen(e.vip.String(), l)
				p.echo(c)
				is, err := client.Connection(c.flow())
				if plain := errors.Is(err, ErrGone); timestamps == "1" && (plain || i == 0) {
					continue
				}
				if h := p.held(server, c); err != nil || is.Destination != place || h.Cookie != is.Cookie {
					t.Errorf("connection %d: the user's host has %+v, %v, the server %+v", i+1, is, err, h)
				}
			}
			fast := wire.find(flagSYN, func(s segment) bool { return s.payload == 5 })
			if ours := bytes.Contains(fast.options, []byte{wire0, wire1}); ours != (timestamps == "0") {
				t.Errorf("a SYN with a cookie has % x", fast.options)
			}
			if n := clientCounters(t, client); (n.NoRoom > 0) != (timestamps == "1") {
				t.Errorf("counted %+v", n)
			}
		})
	}
}
