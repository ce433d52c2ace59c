package repair

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// receive reads n numbered bytes, from an offset on.
func receive(t *testing.T, c net.Conn, offset uint64, n int) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, n)
	if got, err := io.ReadFull(c, b); err != nil {
		t.Fatalf("%d bytes of %d: %v", got, n, err)
	}
	for at := 0; at < n; at += longest {
		part := b[at:min(at+longest, n)]
		if !bytes.Equal(part, numbered(offset+uint64(at), len(part))) {
			t.Fatalf("wrong bytes after %d", offset+uint64(at))
		}
	}
}

func send(t *testing.T, c net.Conn, offset uint64, n int) {
	t.Helper()
	c.SetWriteDeadline(time.Now().Add(30 * time.Second))
	for n > 0 {
		m, err := c.Write(numbered(offset, min(n, longest)))
		if err != nil {
			t.Fatal(err)
		}
		offset, n = offset+uint64(m), n-m
	}
}

// receiveEnd reads a FIN.
func receiveEnd(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("%d bytes and %v, want the end", n, err)
	}
}

// state is a connection's, as the kernel has it.
func state(t *testing.T, c *net.TCPConn) uint8 {
	t.Helper()
	fd := descriptor(t, c)
	defer unix.Close(fd)
	f := &fault{fd: fd}
	i := f.info()
	if f.err != nil {
		t.Fatal(f.err)
	}
	return i.state
}

func awaitState(t *testing.T, c *net.TCPConn, want uint8) {
	t.Helper()
	testnet.Eventually(t, 5*time.Second, func() bool { return state(t, c) == want }, "state ", want)
}

func shutConn(t *testing.T, c *net.TCPConn) {
	t.Helper()
	fd := descriptor(t, c)
	defer unix.Close(fd)
	shut(t, fd)
}

func openConn(t *testing.T, c *net.TCPConn) {
	t.Helper()
	fd := descriptor(t, c)
	defer unix.Close(fd)
	open(t, fd)
}

// wantReason asks Movable and Freeze, in the first server's namespace.
func (w *network) wantReason(c *net.TCPConn, want Reason) {
	w.t.Helper()
	fd := descriptor(w.t, c)
	defer unix.Close(fd)
	var reason Reason
	if err := w.servers[0].Do(func() error { return Movable(fd) }); !errors.As(err, &reason) || reason != want {
		w.t.Errorf("Movable: %v, want %s", err, want)
	}
	w.wantNotFrozen(fd, want)
}

// wantNotFrozen is for reasons that only Freeze sees.
func (w *network) wantNotFrozen(fd int, want Reason) {
	w.t.Helper()
	var reason Reason
	if _, err := Freeze(fd); !errors.As(err, &reason) || reason != want {
		w.t.Errorf("Freeze: %v, want %s", err, want)
	}
}

// gone waits until no connection to the service is left at a server.
func (w *network) gone(server int) {
	w.t.Helper()
	testnet.Eventually(w.t, 10*time.Second, func() bool {
		out, err := w.servers[server].Run("ss", "-Htan", "state", "connected")
		return err == nil && out == ""
	}, "no connection is left")
}

func both(t *testing.T, f func(t *testing.T, w *network)) {
	t.Helper()
	for _, c := range []struct{ name, vip, listen string }{{"IPv4", vip4, vip4}, {"IPv6", vip6, vip6}, {"mapped", vip4, "::"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // most wait for the kernel's timers
			f(t, newNetwork(t, c.vip, c.listen))
		})
	}
}

func TestNetEstablished(t *testing.T) {
	both(t, func(t *testing.T, w *network) {
		u, s := w.connect()
		send(t, u, 0, 1000)
		receive(t, s, 0, 500)
		s = w.moveOne(s, 1)
		receive(t, s, 500, 500)
		send(t, s, 0, 1000)
		receive(t, u, 0, 1000)
		u.CloseWrite()
		receiveEnd(t, s)
		s.Close()
		receiveEnd(t, u)
		w.gone(0)
		w.gone(1)
	})
}

// The user has sent its last byte; the server still answers.
func TestNetCloseWait(t *testing.T) {
	both(t, func(t *testing.T, w *network) {
		u, s := w.connect()
		send(t, u, 0, 1000)
		u.CloseWrite()
		awaitState(t, s, closeWait)
		w.wantNotFrozen(descriptor(t, s), Unread)
		receive(t, s, 0, 1000)
		for i := range 4 { // it goes on being moved
			s = w.moveOne(s, 1-i%2)
			send(t, s, uint64(i)*1000, 1000)
			receive(t, u, uint64(i)*1000, 1000)
			receiveEnd(t, s)
		}
		s.Close()
		receiveEnd(t, u)
		w.gone(0)
		w.gone(1)
	})
}

// The server has sent its last byte, and the user knows; the user still sends.
func TestNetFinWait2(t *testing.T) {
	both(t, func(t *testing.T, w *network) {
		u, s := w.connect()
		send(t, s, 0, 1000)
		s.CloseWrite()
		awaitState(t, s, finWait2)
		for i := range 4 {
			s = w.moveOne(s, 1-i%2)
			send(t, u, uint64(i)*1000, 1000)
			receive(t, s, uint64(i)*1000, 1000)
		}
		receive(t, u, 0, 1000)
		receiveEnd(t, u)
		u.Close()
		receiveEnd(t, s)
	})
}

// The server has sent its last byte, which is lost.
func TestNetFinWait1(t *testing.T) {
	both(t, func(t *testing.T, w *network) {
		u, s := w.connect()
		shutConn(t, u)
		send(t, s, 0, 1000)
		s.CloseWrite()
		awaitState(t, s, finWait1)
		s = w.moveOne(s, 1)
		awaitState(t, s, finWait1)
		openConn(t, u)
		receive(t, u, 0, 1000)
		receiveEnd(t, u)
		awaitState(t, s, finWait2)
		send(t, u, 0, 1000)
		receive(t, s, 0, 1000)
		u.Close()
		receiveEnd(t, s)
	})
}

// The server's last byte waits for the user, who does not read.
func TestNetFinWait1Unsent(t *testing.T) {
	both(t, func(t *testing.T, w *network) {
		u, s := w.connect()
		n := fill(t, s, 0)
		s.CloseWrite()
		awaitState(t, s, finWait1)
		s = w.moveOne(s, 1)
		receive(t, u, 0, n)
		receiveEnd(t, u)
		awaitState(t, s, finWait2)
	})
}

// fill writes until nothing more goes, and tells how much.
func fill(t *testing.T, c *net.TCPConn, least int) (n int) {
	t.Helper()
	for {
		c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		m, err := c.Write(numbered(uint64(n), longest))
		n += m
		late := errors.Is(err, os.ErrDeadlineExceeded)
		if late && m == 0 && n >= least { // a machine that is slow makes some way
			return n
		}
		if err != nil && !late {
			t.Fatal(err)
		}
	}
}

// Both have sent their last byte: nothing is left to move.
func TestNetClosing(t *testing.T) {
	closeBoth := map[string]func(t *testing.T, u, s *net.TCPConn){
		"LAST_ACK": func(t *testing.T, u, s *net.TCPConn) {
			u.CloseWrite()
			awaitState(t, s, closeWait)
			shutConn(t, u)
			s.CloseWrite()
			awaitState(t, s, lastACK)
		},
		"CLOSING": func(t *testing.T, u, s *net.TCPConn) {
			shutConn(t, u)
			s.CloseWrite()
			u.CloseWrite()
			awaitState(t, s, closingState)
		},
		"TIME_WAIT": func(t *testing.T, u, s *net.TCPConn) { // the socket itself is CLOSED
			s.CloseWrite()
			awaitState(t, s, finWait2)
			u.CloseWrite()
			awaitState(t, s, closed)
		},
		"CLOSED": func(t *testing.T, u, s *net.TCPConn) {
			u.SetLinger(0)
			u.Close()
			awaitState(t, s, closed)
		},
	}
	for name, f := range closeBoth {
		t.Run(name, func(t *testing.T) {
			w := newNetwork(t, vip4, vip4)
			u, s := w.connect()
			f(t, u, s)
			w.wantReason(s, Closing)
		})
	}
}

// Of a handshake that is not over there is no socket to freeze, whether the server kept a request or gave a cookie away. The user's SYN, which it sends
// again, opens the connection where it goes then.
func TestNetSynReceived(t *testing.T) {
	for _, vip := range []string{vip4, vip6} {
		for name, cookies := range map[string]string{"request": "0", "cookie": "2"} {
			t.Run(name+" of "+vip, func(t *testing.T) { reopen(t, newNetwork(t, vip, vip), cookies) })
		}
	}
}

func reopen(t *testing.T, w *network, cookies string) {
	w.servers[0].Sysctl("net.ipv4.tcp_syncookies", cookies)
	family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: netip.MustParseAddr(vip4).As4(), Port: 8080})
	if w.vip == vip6 {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: netip.MustParseAddr(vip6).As16(), Port: 8080}
	}
	fd := -1
	err := w.user.Do(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	shut(t, fd)
	if err := unix.Connect(fd, to); !errors.Is(err, unix.EINPROGRESS) {
		t.Fatal(err)
	}
	look := []string{"ss", "-Htan", "state", "syn-recv"}
	if cookies == "2" {
		look = []string{"sh", "-c", "nstat -sz TcpExtSyncookiesSent | grep 'Sent *[1-9]'"}
	}
	testnet.Eventually(t, 5*time.Second, func() bool {
		out, err := w.servers[0].Run(look...)
		return err == nil && out != ""
	}, "the SYN is answered")
	l := w.listeners[0]
	l.SetDeadline(time.Now())
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("accepted: %v", err)
	}
	var reason Reason
	if _, err := Freeze(fd); !errors.As(err, &reason) || reason != Opening {
		t.Errorf("the user's end: %v", err)
	}
	w.lead(1)
	if err := w.servers[0].Down("eth0"); err != nil { // its answers, which it repeats, arrive no more
		t.Fatal(err)
	}
	open(t, fd)
	c := connection(t, fd)
	send(t, c, 0, 10)
	other := w.listeners[1]
	other.SetDeadline(time.Now().Add(10 * time.Second))
	s, err := other.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	receive(t, s, 0, 10)
}

// A listener is not moved.
func TestNetListen(t *testing.T) {
	w := newNetwork(t, vip4, vip4)
	raw, err := w.listeners[0].SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { w.wantNotFrozen(int(fd), NotTCP) })
}
