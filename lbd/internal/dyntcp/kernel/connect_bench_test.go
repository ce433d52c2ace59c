package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
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
	whole      []time.Duration // connections, from connect to close
}

// loops are what connections of BenchmarkNetConnect are for. Servers close first, so that users' ports are free at once.
var loops = map[string][]byte{"close": nil, "request": make([]byte, 100)}

// BenchmarkNetConnect makes connections one after the other, between hosts with the programs of both sides and between hosts without, in short turns:
// of close, they are made, accepted and closed at both ends; of request, one goes and is answered before (as netperf's TCP_CRR). Each host's programs
// see its own sockets alone, as on hosts of their own. Other are connections beside the programs, to what is no service. Floor has programs in the place
// of both sides' that do the least.
func BenchmarkNetConnect(b *testing.B) {
	for _, loop := range slices.Sorted(maps.Keys(loops)) {
		b.Run(loop, func(b *testing.B) { benchmarkConnect(b, loops[loop], (*path).both) })
		b.Run(loop+"-floor", func(b *testing.B) { benchmarkConnect(b, loops[loop], (*path).floor) })
	}
}

// both loads the programs of both sides, with the capabilities that the units give. agreed counts connections that can move.
func (p *path) both(user, server cgroup) (agreed func() uint64) {
	client, _ := p.clientOf(user), p.serverOf(p.s1, server, unix.CAP_PERFMON)
	return func() uint64 { return clientCounters(p.t, client).Agreed }
}

func benchmarkConnect(b *testing.B, request []byte, load func(p *path, user, server cgroup) (agreed func() uint64)) {
	const each = 100 // connections of a turn
	vip := families["IPv4"].vip
	without, with := newPath(b), newPath(b)
	plainGroup, userGroup, serverGroup := newCgroup(b, "plain"), newCgroup(b, "user"), newCgroup(b, "server")
	agreed := load(with, userGroup, serverGroup)
	serverGroup.join()
	no := netip.AddrPortFrom(vip.Addr(), vip.Port()+1) // service
	service, another := with.listen(with.s1, vip.String()), with.listen(with.s1, no.String())
	plainGroup.join()
	alone := without.listen(without.s1, vip.String())
	var plain, other, extended turns
	turn := func(t *turns, g cgroup, p *path, to netip.AddrPort, l *net.TCPListener) {
		g.join()
		began := time.Now()
		p.dial(t, to, l, each, request)
		t.rates = append(t.rates, each/time.Since(began).Seconds())
	}
	for range 10 { // what comes first is slow
		turn(new(turns), plainGroup, without, vip, alone)
		turn(new(turns), userGroup, with, no, another)
		turn(new(turns), userGroup, with, vip, service)
	}
	before := agreed()
	for b.Loop() {
		turn(&extended, userGroup, with, vip, service)
		turn(&plain, plainGroup, without, vip, alone)
		turn(&other, userGroup, with, no, another)
	}
	if n := agreed() - before; n != uint64(each*b.N) {
		b.Fatalf("%d of %d connections can move", n, each*b.N)
	}
	for name, t := range map[string]*turns{"plain": &plain, "extended": &extended, "other": &other} {
		b.ReportMetric(median(t.rates), "connects/s-"+name)
		b.ReportMetric(float64(median(t.handshakes))/float64(time.Microsecond), "handshake-us-"+name)
		b.ReportMetric(float64(median(t.whole))/float64(time.Microsecond), "connection-us-"+name)
	}
}

func median[T cmp.Ordered](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}

// dial makes n connections to an address of IPv4. One thread is both ends, so that nobody is woken and waited for.
func (p *path) dial(t *turns, to netip.AddrPort, l *net.TCPListener, n int, request []byte) {
	p.t.Helper()
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
			t.handshakes = append(t.handshakes, time.Since(began))
			accepted, _, e := unix.Accept4(at, unix.SOCK_CLOEXEC)
			if err := errors.Join(err, e, exchange(fd, accepted, request), unix.Close(accepted), ended(fd), unix.Close(fd)); err != nil {
				return fmt.Errorf("connect to %s: %w", to, err)
			}
			t.whole = append(t.whole, time.Since(began))
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// exchange sends a request, and its like as the answer.
func exchange(user, server int, request []byte) error {
	for _, way := range [][2]int{{user, server}, {server, user}} {
		if len(request) == 0 {
			return nil
		}
		if _, err := unix.Write(way[0], request); err != nil {
			return err
		}
		if n, err := unix.Read(way[1], make([]byte, len(request))); err != nil || n != len(request) {
			return fmt.Errorf("%d bytes of %d: %w", n, len(request), err)
		}
	}
	return nil
}

// ended waits for the other end's close.
func ended(fd int) error {
	var b [1]byte
	n, err := unix.Read(fd, b[:])
	if err == nil && n != 0 {
		err = errors.New("more than was sent")
	}
	return err
}
