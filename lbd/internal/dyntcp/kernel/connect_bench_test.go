package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// turns are what was measured of one kind of connections.
type turns struct {
	rates      []float64 // connections/s of each turn
	handshakes []time.Duration
}

// BenchmarkNetConnect makes connections one after the other, between hosts with the programs of both sides and between hosts without, in turns. A
// connection is made, accepted, and closed at both ends. Each host's programs see its own sockets alone, as on hosts of their own.
func BenchmarkNetConnect(b *testing.B) {
	const each = 2000 // connections of a turn
	e := families["IPv4"]
	without, with := newPath(b), newPath(b)
	userGroup, serverGroup := newCgroup(b, "user"), newCgroup(b, "server")
	client, server := with.clientOf(userGroup), with.serverOf(with.s1, serverGroup)
	serverGroup.join()
	l := with.listen(with.s1, e.vip.String())
	userGroup.join()
	plainListener := without.listen(without.s1, e.vip.String())
	turn := func(t *turns, p *path, l *net.TCPListener) {
		began := time.Now()
		t.handshakes = append(t.handshakes, p.dial(e.vip, l, each)...)
		t.rates = append(t.rates, each/time.Since(began).Seconds())
	}
	services := []ClientService{{VIP: e.vip, Published: published}}
	var plain, other, extended turns
	turn(new(turns), without, plainListener) // what comes first is slow
	turn(new(turns), with, l)
	for b.Loop() {
		before := clientCounters(b, client).Agreed
		turn(&extended, with, l)
		if n := clientCounters(b, client).Agreed - before; n != each {
			b.Fatalf("%d of %d connections can move", n, each)
		}
		userGroup.leave()
		turn(&plain, without, plainListener)
		userGroup.join()
		if err := errors.Join(client.Set(nil), server.Set(nil)); err != nil {
			b.Fatal(err)
		}
		turn(&other, with, l)
		if err := errors.Join(client.Set(services), server.Set(with.services(with.s1))); err != nil {
			b.Fatal(err)
		}
	}
	for name, t := range map[string]turns{"plain": plain, "extended": extended, "other": other} {
		slices.Sort(t.rates)
		slices.Sort(t.handshakes)
		b.ReportMetric(t.rates[len(t.rates)/2], "connects/s-"+name)
		b.ReportMetric(float64(t.handshakes[len(t.handshakes)/2])/float64(time.Microsecond), "handshake-us-"+name)
	}
}

// dial makes connections to an address of IPv4, each reset at once, and returns how long each took to be made. One thread is both ends, so that nobody
// is woken and waited for.
func (p *path) dial(to netip.AddrPort, l *net.TCPListener, n int) []time.Duration {
	p.t.Helper()
	took := make([]time.Duration, 0, n)
	listener, err := l.File()
	if err != nil {
		p.t.Fatal(err)
	}
	defer listener.Close()
	at := int(listener.Fd())
	err = p.user.Do(func() error {
		address := &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
		for range n {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			began := time.Now()
			err = unix.Connect(fd, address)
			took = append(took, time.Since(began))
			accepted, _, e := unix.Accept4(at, unix.SOCK_CLOEXEC)
			reset := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			if err := errors.Join(err, e, reset, unix.Close(fd), unix.Close(accepted)); err != nil {
				return fmt.Errorf("connect to %s: %w", to, err)
			}
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return took
}
