package relay

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// A user who comes back, from the same port, is let in: what the kernel still has of the connection before costs the port at most.
func TestNetTransparentAgain(t *testing.T) {
	n := testnet.New(t).Node("s")
	l, err := n.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	listen := Listen{Name: "web", Addresses: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.80:80")}, Backend: "127.0.0.1:8080", User: Transparent}
	b := newBackend(listen, patience)
	user := netip.MustParseAddrPort("198.51.100.7:40000")
	connect := func() halfConn {
		var c halfConn
		err := testnet.WithCapabilities(func() error {
			return n.Do(func() (err error) {
				c, err = b.dial(user, listen.Addresses[0])
				return err
			})
		}, unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN) // the former is the namespace's
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var routes *Routes
	if err := n.Do(func() error {
		routes = OpenRoutes([]Listen{listen}, 8466, false, slog.New(slog.DiscardHandler))
		return nil
	}); err != nil || routes.State() != "" {
		t.Fatal(err, routes.State())
	}
	for i := range 3 {
		ours := connect()
		theirs, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		from := theirs.RemoteAddr().(*net.TCPAddr).AddrPort()
		if from.Addr() != user.Addr() || i == 0 && from.Port() != user.Port() {
			t.Errorf("connection %d comes from %v, want %v", i, from, user)
		}
		ours.Close()
		if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("connection %d: %v", i, err)
		}
		theirs.Close()
	}
	// Two of one user's at a time, by different addresses of the service.
	first, second := connect(), connect()
	for range 2 {
		theirs, err := l.Accept()
		if err != nil || theirs.RemoteAddr().(*net.TCPAddr).AddrPort().Addr() != user.Addr() {
			t.Errorf("comes from %v, %v", theirs.RemoteAddr(), err)
		}
		theirs.Close()
	}
	first.Close()
	second.Close()
}
