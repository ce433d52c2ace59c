package dataplane

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNetCloseConnections: on loopback, of two users of one port exactly the lost one sees a RST; a listener on [::], whose users
// are mapped addresses, is no different.
func TestNetCloseConnections(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::]:0"} {
		t.Run(listen, func(t *testing.T) {
			l, err := net.Listen("tcp", listen)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			port := uint16(l.Addr().(*net.TCPAddr).Port)
			vip := netip.MustParseAddr("127.0.0.1")
			stays, goes := dialUser(t, "127.0.0.7", port), dialUser(t, "127.0.0.8", port)

			users, err := ConnectedUsers(context.Background(), []netip.Addr{vip}, []Port{tcp(port), udp(port)})
			slices.SortFunc(users, netip.AddrPort.Compare)
			if err != nil || len(users) != 2 || users[0].String() != stays.LocalAddr().String() || users[1].String() != goes.LocalAddr().String() {
				t.Errorf("connected are %v, %v", users, err)
			}
			n, err := CloseConnections(context.Background(), vip, []Port{tcp(port), udp(port)}, func(user netip.AddrPort) bool {
				return user.Addr() == netip.MustParseAddr("127.0.0.8")
			})
			if err != nil || n != 1 {
				t.Fatalf("closed %d, error %v, want 1 closed", n, err)
			}
			if err := readError(t, goes); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("lost user sees %v, want a reset", err)
			}
			if err := readError(t, stays); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("other user sees %v, want nothing", err)
			}
		})
	}
}

// TestNetOwnConnectionsAreNobodys: what this host opens to its own VIP, as health probes do, is no user's: it is not counted, and ends with nobody's move.
func TestNetOwnConnectionsAreNobodys(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::]:0", "[::1]:0"} {
		t.Run(listen, func(t *testing.T) {
			l, err := net.Listen("tcp", listen)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			port := uint16(l.Addr().(*net.TCPAddr).Port)
			vip := netip.MustParseAddr("127.0.0.1")
			if listen == "[::1]:0" {
				vip = netip.IPv6Loopback()
			}
			probe, err := net.DialTimeout("tcp", netip.AddrPortFrom(vip, port).String(), 2*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer probe.Close()
			users, err := ConnectedUsers(context.Background(), []netip.Addr{vip}, []Port{tcp(port)})
			if err != nil || len(users) > 0 {
				t.Errorf("connected are %v, %v", users, err)
			}
			for _, how := range []Ending{{}, {Orderly: true, Grace: time.Second}} {
				n, err := EndConnections(context.Background(), vip, []Port{tcp(port)}, func(netip.AddrPort) bool { return true }, how)
				if err != nil || n != 0 {
					t.Errorf("closed %d, error %v", n, err)
				}
			}
			if err := readError(t, probe); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the probe sees %v, want nothing", err)
			}
		})
	}
}

func dialUser(t *testing.T, user string, port uint16) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(user)}, Timeout: 2 * time.Second}
	c, err := d.Dial("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func readError(t *testing.T, c net.Conn) error {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

func FuzzSplitMessages(f *testing.F) {
	f.Add([]byte{16, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{18, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		splitMessages(b, 1, func(body []byte) { parseSock(body) }) // does not panic
	})
}
