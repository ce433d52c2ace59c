package kernel

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// change is a message that moves the connection.
func change(t testing.TB, c Connection, to netip.AddrPort, sequence uint64) []byte {
	t.Helper()
	signed, err := wire.Sign(wire.Change{
		Tag: c.Tag, Cookie: c.Cookie, User: c.User, VIP: c.VIP, Old: c.Destination, New: to, Sequence: sequence, Time: time.Now(),
	}, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return signed.Raw
}

// Every datagram for the port is taken away, and counted by what is wrong with it; only what is true of a connection goes on. The fake says the same.
func TestNetChangesAreJudged(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			client, fake, server := p.client(), NewFakeClient(), p.server(p.s1)
			c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
			p.echo(c)
			is := connectionOf(t, client, c.flow())
			p.withSocket(c.server, func(fd int) error {
				return server.Adopt(fd, Held{Tag: is.Tag, Cookie: is.Cookie, Sequence: 7, Destination: e.also})
			})
			if err := client.SetDestination(c.flow(), is.Cookie, e.also, 7); err != nil {
				t.Fatal(err)
			}
			is = connectionOf(t, client, c.flow())
			fake.Open(is)
			good := change(t, is, e.s2, 8)
			flip := func(offset int) []byte {
				b := bytes.Clone(good)
				b[offset] ^= 1
				return b
			}
			listener, tap := p.bound(e.user.Addr()), p.tap(p.router, "users")
			attacker := p.udp(e.s2.Addr(), e.user.Addr())
			for _, tt := range []struct {
				what    string
				message []byte
				count   func(ClientCounters) uint64
			}{
				{"nothing", nil, malformed},
				{"one byte", []byte{1}, malformed},
				{"a byte short", good[:len(good)-1], malformed},
				{"a byte more", append(bytes.Clone(good), 0), malformed},
				{"as long as can be", make([]byte, 60000), malformed},
				{"another magic", flip(wire.ChangeOffMagic), malformed},
				{"another version", flip(wire.ChangeOffVersion), malformed},
				{"another reserved byte", flip(wire.ChangeOffReserved), malformed},
				{"another tag", flip(wire.ChangeOffTag + 1), func(n ClientCounters) uint64 { return n.ChangeTag }},
				{"another cookie", flip(wire.ChangeOffCookie), func(n ClientCounters) uint64 { return n.ChangeCookie }},
				{"a cookie's last bit", flip(wire.ChangeOffCookie + 7), func(n ClientCounters) uint64 { return n.ChangeCookie }},
				{"another user", flip(wire.ChangeOffUser + 15), unknown},
				{"another port of the user", flip(wire.ChangeOffUserPort + 1), unknown},
				{"another VIP", flip(wire.ChangeOffVIP + 15), unknown},
				{"another port of the VIP", flip(wire.ChangeOffVIPPort + 1), unknown},
				{"the last one again", change(t, is, e.s2, 7), old},
				{"an early one", change(t, is, e.s2, 1), old},
				{"a true one", good, func(n ClientCounters) uint64 { return n.ChangePassed }},
				{"one with a signature of nobody", flip(wire.ChangeOffSignature), func(n ClientCounters) uint64 { return n.ChangePassed }},
			} {
				before := tt.count(clientCounters(t, client))
				if _, err := attacker.Write(tt.message); err != nil {
					t.Fatal(err)
				}
				testnet.Eventually(t, 20*time.Second, func() bool { return tt.count(clientCounters(t, client)) > before }, tt.what, " is counted")
				fake.Hear(e.user.Addr(), tt.message)
			}
			n, m := clientCounters(t, client), fake.judged()
			n.Offered, n.Agreed, n.Sent, n.Received = 0, 0, 0, 0
			// Of one that is longer than a packet the fragments behind the first come to nothing, and so it is counted once.
			if n != m {
				t.Errorf("the programs count %+v, the fake %+v", n, m)
			}
			for range 2 {
				got := <-client.Changes()
				if got.Flow != c.flow() || !bytes.Equal(got.Message[:wire.ChangeOffSignature], good[:wire.ChangeOffSignature]) {
					t.Errorf("passed %+v", got)
				}
			}
			// What comes by another port is others'; nothing has come to this one.
			other := p.udp(e.s2.Addr(), e.user.Addr(), wire.Port+1)
			elsewhere := p.bound(e.user.Addr(), wire.Port+1)
			if _, err := other.Write([]byte("others'")); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			elsewhere.SetReadDeadline(time.Now().Add(20 * time.Second))
			if n, err := elsewhere.Read(b); err != nil || string(b[:n]) != "others'" {
				t.Errorf("%q, %v", b[:n], err)
			}
			listener.SetReadDeadline(time.Now())
			if n, err := listener.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the port's socket has read %d bytes, %v", n, err)
			}
			p.echo(c)
			if answers := tap.notTCP(e.user.Addr()); len(answers) != 0 {
				t.Errorf("the user's host has answered: %v", answers)
			}
		})
	}
}

// Extension headers hide no message: behind more than are followed nothing gets in.
func TestNetExtensionsHideNoChange(t *testing.T) {
	p := newPath(t)
	e := families["IPv6"]
	client, evil := p.client(), p.forger()
	p.server(p.s1)
	c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
	listener := p.bound(e.user.Addr())
	message := change(t, connectionOf(t, client, c.flow()), e.s2, 1)
	passed := func(n ClientCounters) uint64 { return n.ChangePassed }
	for _, tt := range []struct {
		extensions int
		count      func(ClientCounters) uint64
	}{{0, passed}, {1, passed}, {5, passed}, {6, passed}, {7, malformed}, {8, malformed}, {60, malformed}} {
		before := tt.count(clientCounters(t, client))
		evil.sendBehind(tt.extensions, e.s2, netip.AddrPortFrom(e.user.Addr(), wire.Port), message)
		testnet.Eventually(t, 20*time.Second, func() bool { return tt.count(clientCounters(t, client)) > before }, tt.extensions, " headers")
	}
	b := make([]byte, 2*wire.ChangeSize)
	listener.SetReadDeadline(time.Now())
	if n, err := listener.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the port's socket has read %d bytes, %v", n, err)
	}
	elsewhere := p.bound(e.user.Addr(), wire.Port+1)
	evil.sendBehind(6, e.s2, netip.AddrPortFrom(e.user.Addr(), wire.Port+1), []byte("others'"))
	elsewhere.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := elsewhere.Read(b); err != nil || string(b[:n]) != "others'" {
		t.Errorf("%q, %v", b[:n], err)
	}
}

func malformed(n ClientCounters) uint64 { return n.ChangeMalformed }
func unknown(n ClientCounters) uint64   { return n.ChangeUnknown }
func old(n ClientCounters) uint64       { return n.ChangeOld }

// judged are the counters of changes.
func (f *FakeClient) judged() ClientCounters {
	n, _ := f.Counters()
	n.Agreed = 0
	return n
}

// bound is a socket of the user's at the port of changes, or another.
func (p *path) bound(user netip.Addr, port ...uint16) *net.UDPConn {
	p.t.Helper()
	number := uint16(wire.Port)
	if len(port) > 0 {
		number = port[0]
	}
	var c *net.UDPConn
	err := p.user.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(user, number)))
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

// udp is a socket at s2 that sends there.
func (p *path) udp(from, user netip.Addr, port ...uint16) *net.UDPConn {
	p.t.Helper()
	number := uint16(wire.Port)
	if len(port) > 0 {
		number = port[0]
	}
	var c *net.UDPConn
	err := p.s2.Do(func() (err error) {
		c, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(user, number)))
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

// flood sends a message from s2 until it is stopped.
func (p *path) flood(message []byte, e ends) (stop func() (sent uint64)) {
	p.t.Helper()
	attacker := p.udp(e.s2.Addr(), e.user.Addr())
	var sent uint64
	over, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-over:
				done <- nil
				return
			default:
			}
			if _, err := attacker.Write(message); err != nil {
				done <- err
				return
			}
			sent++
		}
	}()
	return func() uint64 {
		close(over)
		if err := <-done; err != nil {
			p.t.Error(err)
		}
		return sent
	}
}

// A flood of what is true of a connection, as who is on its path can send it, comes to user space at a bounded rate, and takes nothing from other
// connections.
func TestNetChangesAreBounded(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	client := p.client()
	p.server(p.s1)
	l := p.listen(p.s1, e.vip.String())
	c, other := p.connect(e.vip, l), p.connect(e.vip, l)
	p.echo(c)
	began := time.Now()
	stop := p.flood(change(t, connectionOf(t, client, c.flow()), e.s2, 1), e)
	passed := map[Flow]int{}
	read := func() {
		for len(client.Changes()) > 0 {
			passed[(<-client.Changes()).Flow]++
		}
	}
	testnet.Eventually(t, 20*time.Second, func() bool {
		read()
		return clientCounters(t, client).ChangeLost > 5000
	}, "the flood is beyond what is let through")
	server := p.udp(e.s2.Addr(), e.user.Addr())
	const moves = 15
	for i := range moves {
		if _, err := server.Write(change(t, connectionOf(t, client, other.flow()), e.s2, uint64(i+1))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	testnet.Eventually(t, 20*time.Second, func() bool {
		read()
		return passed[other.flow()] == moves
	}, "all messages of the other connection have passed")
	sent := stop() + moves
	testnet.Eventually(t, 20*time.Second, func() bool {
		n := clientCounters(t, client)
		return n.ChangePassed+n.ChangeLost == sent
	}, "all are counted")
	took := time.Since(began)
	n := clientCounters(t, client)
	if most := uint64(took.Seconds()*50+21) + moves; n.ChangePassed > most {
		t.Errorf("%d of %d passed in %v, want at most %d", n.ChangePassed, sent, took, most)
	}
	p.echo(c)
}

// Floods of many connections come to user space at a bounded rate, too.
func TestNetChangesOfAllAreBounded(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	client := p.client()
	p.server(p.s1)
	l := p.listen(p.s1, e.vip.String())
	const connections, each = 100, 40
	var messages [][]byte
	for range connections {
		messages = append(messages, change(t, connectionOf(t, client, p.connect(e.vip, l).flow()), e.s2, 1))
	}
	attacker := p.udp(e.s2.Addr(), e.user.Addr())
	began := time.Now()
	for range each {
		for _, m := range messages {
			if _, err := attacker.Write(m); err != nil {
				t.Fatal(err)
			}
		}
	}
	testnet.Eventually(t, 20*time.Second, func() bool {
		n := clientCounters(t, client)
		return n.ChangePassed+n.ChangeLost == connections*each
	}, "all are counted")
	took := time.Since(began)
	n := clientCounters(t, client)
	cpus := 2.0 // those that the two ends of a veth pair run on, at most
	if most := uint64((took.Seconds()*1000 + 65) * cpus); n.ChangePassed > most || n.ChangePassed == 0 {
		t.Errorf("%d passed in %v, want at most %d", n.ChangePassed, took, most)
	}
}
