package dataplane

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"golang.org/x/sys/unix"
)

// TestCountSockets: on loopback, connections are told apart by address and port, those of a listener on [::] too; a listener that
// does not accept has them waiting.
func TestCountSockets(t *testing.T) {
	deaf, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	any6, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer any6.Close()
	go keep(any6)
	deafPort, anyPort := uint16(deaf.Addr().(*net.TCPAddr).Port), uint16(any6.Addr().(*net.TCPAddr).Port)
	vip := netip.MustParseAddr("127.0.0.1")
	for i := range 3 {
		dialUser(t, fmt.Sprintf("127.0.0.%d", 7+i), deafPort)
	}
	for i := range 5 {
		dialUser(t, fmt.Sprintf("127.0.0.%d", 7+i), anyPort)
	}
	local := []netip.AddrPort{
		netip.AddrPortFrom(vip, deafPort), netip.AddrPortFrom(vip, anyPort), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), anyPort),
		netip.AddrPortFrom(vip, 1),
	}
	var got []Sockets
	testnet.Eventually(t, 2*time.Second, func() bool {
		got, err = CountSockets(t.Context(), local)
		return err != nil || got[1].Waiting == 0
	}, "the accepting listener to accept")
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Connections != 3 || got[0].Waiting != 3 || got[0].Backlog < 3 {
		t.Errorf("a listener that does not accept: %+v, want 3 connections, all waiting", got[0])
	}
	if got[1].Connections != 5 || got[1].Backlog == 0 {
		t.Errorf("a listener on [::]: %+v, want 5 connections", got[1])
	}
	if got[2].Connections != 0 || got[2].Backlog != got[1].Backlog {
		t.Errorf("another address of it: %+v, want the listener and no connection", got[2])
	}
	if got[3] != (Sockets{}) {
		t.Errorf("a port without sockets: %+v", got[3])
	}

	// Too many for the kernel's filter: told apart here.
	for i := range maxFilter {
		local = append(local, netip.AddrPortFrom(netip.MustParseAddr("127.9.9.9"), uint16(i+1)))
	}
	all, err := CountSockets(t.Context(), local)
	if err != nil || !slices.Equal(all[:4], got) {
		t.Errorf("among many: %+v, error %v, want %+v", all[:4], err, got)
	}
}

// keep accepts, and holds what it accepted until the listener is closed: the garbage collector would close it before.
func keep(l net.Listener) {
	var accepted []net.Conn
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		accepted = append(accepted, c)
	}
	for _, c := range accepted {
		c.Close()
	}
}

// TestCountSocketsOfAFullProgram: the longest filter is one that the kernel takes.
func TestCountSocketsOfAFullProgram(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := netip.MustParseAddrPort(l.Addr().String())
	dialUser(t, "127.0.0.7", at.Port())
	var local []netip.AddrPort
	for i := range maxFilter - 1 {
		local = append(local, netip.AddrPortFrom(netip.MustParseAddr("127.9.9.9"), uint16(i+1)))
	}
	got, err := CountSockets(t.Context(), append(local, at))
	if err != nil || got[maxFilter-1].Connections != 1 {
		t.Errorf("error %v, the last of %d: %+v, want one connection", err, maxFilter, got[len(got)-1])
	}
}

// BenchmarkNetCountSockets has 100,000 connections of one port in a namespace of their own, both ends of each in it.
func BenchmarkNetCountSockets(b *testing.B) {
	const connections, clients = 100_000, 8
	node := testnet.New(b).Node("s1")
	node.Sysctl("net.core.somaxconn", "1000000")
	if out, err := node.Run("ip", "link", "set", "lo", "up"); err != nil {
		b.Fatal(out)
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	local := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("127.0.0.1:443")}
	l, err := node.Listen("tcp4", "127.0.0.1:80") // accepts nothing: what waits there needs no descriptor
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	for i := range clients {
		node.Start("env", fmt.Sprintf("%s=127.1.0.%d %d", clientEnv, i+1, connections/clients), self)
	}
	count := func() (got []Sockets, err error) {
		err = node.Do(func() error {
			got, err = CountSockets(context.Background(), local)
			return err
		})
		return got, err
	}
	testnet.Eventually(b, time.Minute, func() bool {
		got, err := count()
		return err == nil && got[0].Connections == connections && got[0].Waiting == connections
	}, "the connections")
	before := cpuTime(b)
	for b.Loop() {
		if _, err := count(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// clientEnv makes the test's binary a client that holds connections to 127.0.0.1:80: "ADDRESS NUMBER".
const clientEnv = "MANYCAST_TEST_CLIENT"

// holdMany returns only when it fails.
func holdMany(what string) error {
	var address string
	var n int
	if _, err := fmt.Sscan(what, &address, &n); err != nil {
		return err
	}
	for i := range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(address).As4(), Port: 10000 + i}); err != nil {
			return err
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 80}); err != nil {
			return err
		}
	}
	select {}
}
