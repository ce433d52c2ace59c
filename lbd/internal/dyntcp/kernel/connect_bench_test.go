package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// turns are what was measured of one kind of connections.
type turns struct {
	rates      []float64 // connections/s of each turn
	handshakes []time.Duration
}

// BenchmarkNetConnect makes connections one after the other, with the programs of both sides and without any, in turns. A connection is made,
// accepted, and closed at both ends.
func BenchmarkNetConnect(b *testing.B) {
	const each = 2000 // connections of a turn
	p := newPath(b)
	e := families["IPv4"]
	l := p.listen(p.s1, e.vip.String())
	p.dial(e.vip, l, each) // what comes first is slow
	var plain, other, extended turns
	turn := func(t *turns) {
		began := time.Now()
		t.handshakes = append(t.handshakes, p.dial(e.vip, l, each)...)
		t.rates = append(t.rates, each/time.Since(began).Seconds())
	}
	for b.Loop() {
		turn(&plain)
		c, s := p.client(), p.server(p.s1)
		turn(&extended)
		if n := clientCounters(b, c); n.Agreed != each {
			b.Fatalf("counted %+v", n)
		}
		if err := errors.Join(c.Set([]ClientService{{VIP: families["IPv6"].vip}}), s.Set(nil)); err != nil {
			b.Fatal(err)
		}
		turn(&other)
		if err := errors.Join(c.Close(false), s.Close(false)); err != nil {
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

// dial makes connections to an address of IPv4, each reset at once, and returns how long each took to be made.
func (p *path) dial(to netip.AddrPort, l *net.TCPListener, n int) []time.Duration {
	p.t.Helper()
	took := make([]time.Duration, 0, n)
	var accepted sync.WaitGroup
	accepted.Go(func() {
		for range n {
			if c, err := l.AcceptTCP(); err == nil {
				c.Close()
			}
		}
	})
	err := p.user.Do(func() error {
		address := &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
		for range n {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			began := time.Now()
			err = unix.Connect(fd, address)
			took = append(took, time.Since(began))
			err = errors.Join(err, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}), unix.Close(fd))
			if err != nil {
				return fmt.Errorf("connect to %s: %w", to, err)
			}
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	accepted.Wait()
	return took
}
