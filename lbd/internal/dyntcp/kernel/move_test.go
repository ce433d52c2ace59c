package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
	"github.com/manycast/manycast/lbd/internal/repair"
)

func heard(t testing.TB, s Server, want Heard) {
	t.Helper()
	select {
	case got := <-s.Heard():
		if got != want {
			t.Errorf("heard %+v, want %+v", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("%s was not heard", want.Flow)
	}
}

// numbers sends numbered words and reads those of the other end, until it is stopped.
type numbers struct {
	sent, received atomic.Uint64
	stop           atomic.Bool
	failed         chan error
	done           chan struct{} // the sender has stopped
}

func count(c net.Conn) *numbers {
	n := &numbers{failed: make(chan error, 2), done: make(chan struct{})}
	go func() {
		defer close(n.done)
		b := make([]byte, 8*200)
		for !n.stop.Load() {
			first := n.sent.Load()
			for i := range uint64(200) {
				binary.BigEndian.PutUint64(b[8*i:], first+i)
			}
			if _, err := c.Write(b); err != nil {
				n.failed <- err
				return
			}
			n.sent.Add(200)
			time.Sleep(time.Millisecond)
		}
	}()
	go n.read(c)
	return n
}

func (n *numbers) read(c net.Conn) {
	b := make([]byte, 8)
	for {
		if _, err := io.ReadFull(c, b); err != nil {
			if !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
				n.failed <- err
			}
			return
		}
		if got, want := binary.BigEndian.Uint64(b), n.received.Load(); got != want {
			n.failed <- fmt.Errorf("read number %d, want %d", got, want)
			return
		}
		n.received.Add(1)
	}
}

// goesOn waits until more has come in both directions.
func goesOn(t testing.TB, user, server *numbers) {
	t.Helper()
	u, s := user.received.Load(), server.received.Load()
	testnet.Eventually(t, 20*time.Second, func() bool {
		select {
		case err := <-user.failed:
			t.Fatalf("user: %v", err)
		case err := <-server.failed:
			t.Fatalf("server: %v", err)
		default:
		}
		return user.received.Load() > u+1000 && server.received.Load() > s+1000
	}, "the streams go on: ", u, s)
}

// whole waits for what was sent to have come.
func whole(t testing.TB, user, server *numbers) {
	t.Helper()
	for _, n := range []*numbers{user, server} {
		n.stop.Store(true)
		<-n.done
	}
	testnet.Eventually(t, 20*time.Second, func() bool {
		return user.received.Load() == server.sent.Load() && server.received.Load() == user.sent.Load()
	}, "all of both streams")
}

// A connection's segments go to one address of its server and to another, back and forth, while numbers are sent both ways.
func TestNetDestinationSwitches(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			client, server := p.client(), p.server(p.s1)
			c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
			user, other := count(c.user), count(c.server)
			goesOn(t, user, other)
			is := connectionOf(t, client, c.flow())
			wire := p.tap(p.router, "users")
			before := is.Destination
			for i, to := range []netip.AddrPort{e.also, e.s1, e.also, e.s1, e.also} {
				sequence := uint64(i + 1)
				p.withSocket(c.server, func(fd int) error {
					return server.Adopt(fd, Held{Tag: is.Tag, Cookie: is.Cookie, Sequence: sequence, Destination: to})
				})
				if err := client.SetDestination(c.flow(), is.Cookie, to, sequence); err != nil {
					t.Fatal(err)
				}
				heard(t, server, Heard{Flow: c.flow(), Tag: is.Tag, Cookie: is.Cookie, Sequence: sequence})
				goesOn(t, user, other)
				now := connectionOf(t, client, c.flow())
				if now.Destination != to || now.Before != before || now.Sequence != sequence || now.Moves != uint32(i+1) {
					t.Errorf("after move %d: %+v", i+1, now)
				}
				before = to
			}
			whole(t, user, other)
			last := segment{}
			for _, s := range wire.segments() {
				if s.payload > 0 && s.dst.Addr() == e.user.Addr() {
					last = s
				}
				if s.flags&flagRST != 0 {
					t.Errorf("a reset from %s to %s", s.src, s.dst)
				}
			}
			if last.src != e.also {
				t.Errorf("the last answer comes from %s, want %s", last.src, e.also)
			}
			if n, m := clientCounters(t, client), serverCounters(t, server); n.Failed+m.Failed != 0 {
				t.Errorf("counted %+v, %+v", n, m)
			}
			if c.user.RemoteAddr().String() != e.vip.String() || c.server.LocalAddr().String() != e.vip.String() {
				t.Errorf("the applications see %s and %s", c.user.RemoteAddr(), c.server.LocalAddr())
			}
		})
	}
}

func TestNetSetDestinationRefuses(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	client := p.client()
	p.server(p.s1)
	c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
	is := connectionOf(t, client, c.flow())
	if err := client.SetDestination(c.flow(), is.Cookie, e.also, 5); err != nil {
		t.Fatal(err)
	}
	other := c.flow()
	other.User = netip.AddrPortFrom(other.User.Addr(), 1)
	for what, tt := range map[string]struct {
		flow     Flow
		cookie   wire.Cookie
		to       netip.AddrPort
		sequence uint64
		want     error
	}{
		"the same again":     {c.flow(), is.Cookie, e.also, 5, ErrOld},
		"an earlier one":     {c.flow(), is.Cookie, e.s1, 4, ErrOld},
		"another connection": {other, is.Cookie, e.s1, 6, ErrGone},
		"another cookie":     {c.flow(), wire.Cookie{1}, e.s1, 6, ErrGone},
	} {
		if err := client.SetDestination(tt.flow, tt.cookie, tt.to, tt.sequence); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", what, err, tt.want)
		}
	}
	for _, to := range []string{"239.0.0.1:80", "10.2.0.3:0", "[2001:db8::1]:80"} {
		if err := client.SetDestination(c.flow(), is.Cookie, at(to), 6); err == nil {
			t.Errorf("moved to %s", to)
		}
	}
	if now := connectionOf(t, client, c.flow()); now.Destination != e.also || now.Sequence != 5 {
		t.Errorf("the user's host has %+v", now)
	}
	p.echo(c)
}

// A live connection goes from one server to another and back, under the addresses of each.
func TestNetConnectionMovesBetweenServers(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			client := p.client()
			servers := []Server{p.server(p.s1), p.server(p.s2)}
			nodes, places := []*testnet.Node{p.s1, p.s2}, []netip.AddrPort{e.s1, e.s2}
			wire := p.tap(p.router, "users")
			c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
			p.echo(c)
			if name == "IPv6" { // a server's address is not in the SYN-ACK
				if err := client.SetDestination(c.flow(), connectionOf(t, client, c.flow()).Cookie, e.s1, 1); err != nil {
					t.Fatal(err)
				}
			}
			at := 0
			for sequence := uint64(2); sequence < 8; sequence++ {
				next := 1 - at
				h := p.held(servers[at], c)
				if err := servers[next].Forget([]Flow{c.flow()}); err != nil {
					t.Fatal(err)
				}
				if err := servers[at].Follow([]Flow{c.flow()}); err != nil {
					t.Fatal(err)
				}
				h.Sequence, h.Heard, h.Destination = sequence, false, places[next]
				p.nft(nodes[at], silent) // as a gate of the data plane is: what comes late is not answered
				c.server = p.carry(c.server, nodes[next], func(fd int) error { return servers[next].Adopt(fd, h) })
				if sequence > 2 {
					p.nft(nodes[next], "delete table inet gate")
				}
				// What is sent before the user knows comes to where the connection was, and there to the VIP.
				before := serverCounters(t, servers[at]).Followed
				if _, err := io.WriteString(c.user, "early"); err != nil {
					t.Fatal(err)
				}
				testnet.Eventually(t, 20*time.Second, func() bool { return serverCounters(t, servers[at]).Followed > before }, "a segment is followed")
				if err := client.SetDestination(c.flow(), h.Cookie, places[next], sequence); err != nil {
					t.Fatal(err)
				}
				c.server.SetDeadline(time.Now().Add(20 * time.Second))
				if b := make([]byte, 5); true {
					if _, err := io.ReadFull(c.server, b); err != nil || string(b) != "early" {
						t.Fatalf("%q, %v", b, err)
					}
				}
				p.echo(c)
				heard(t, servers[next], Heard{Flow: c.flow(), Tag: h.Tag, Cookie: h.Cookie, Sequence: sequence})
				at = next
			}
			for _, s := range wire.segments() {
				if s.flags&flagRST != 0 {
					t.Errorf("a reset from %s to %s", s.src, s.dst)
				}
			}
			if c.user.RemoteAddr().String() != e.vip.String() {
				t.Errorf("the application sees %s", c.user.RemoteAddr())
			}
		})
	}
}

// silent drops what is for the VIP.
const silent = "add table inet gate; add chain inet gate i { type filter hook input priority 0; }; " +
	"add rule inet gate i ip daddr 192.0.2.80 drop; add rule inet gate i ip6 daddr 2001:db8::80 drop"

// carry takes a connection that is silent to another node.
func (p *path) carry(c *net.TCPConn, to *testnet.Node, adopt func(fd int) error) *net.TCPConn {
	p.t.Helper()
	file, err := c.File()
	if err != nil {
		p.t.Fatal(err)
	}
	c.Close()
	frozen, err := repair.Freeze(dupOf(p.t, file))
	if err != nil {
		p.t.Fatal(err)
	}
	file.Close()
	state := frozen.State
	if err := frozen.Close(); err != nil {
		p.t.Fatal(err)
	}
	var restored *repair.Restored
	err = to.Do(func() (err error) {
		restored, err = repair.Restore(state)
		return err
	})
	if err == nil {
		err = errors.Join(adopt(restored.FD()), restored.Thaw())
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return connOf(p.t, restored.FD())
}

// Errors that routers send about segments for a destination come to the connection: its path's MTU is found, in both directions.
func TestNetTooBig(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			client, server := p.client(), p.server(p.s1)
			c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
			p.echo(c)
			if name == "IPv6" {
				if err := client.SetDestination(c.flow(), connectionOf(t, client, c.flow()).Cookie, e.s1, 1); err != nil {
					t.Fatal(err)
				}
				p.echo(c)
			}
			p.narrow(c)
			if n, m := clientCounters(t, client), serverCounters(t, server); n.Errors == 0 || m.Errors == 0 {
				t.Errorf("counted %+v, %+v", n, m)
			}
		})
	}
}

// Segments that routers may cut into fragments come whole, in both directions.
func TestNetFragments(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	for _, node := range []*testnet.Node{p.user, p.s1} {
		node.Sysctl("net.ipv4.ip_no_pmtu_disc", "1")
	}
	client, server := p.client(), p.server(p.s1)
	c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
	p.echo(c)
	p.narrow(c)
	if n, m := clientCounters(t, client), serverCounters(t, server); n.Errors+m.Errors != 0 || n.Failed+m.Failed != 0 {
		t.Errorf("counted %+v, %+v", n, m)
	}
	out, err := p.router.Run("nstat", "-asz", "IpFragOKs")
	if fields := strings.Fields(out); err != nil || len(fields) < 3 || fields[len(fields)-2] == "0" {
		t.Errorf("nothing was cut: %s, %v", out, err)
	}
}

// narrow sends a megabyte each way where the path behind the router is narrow.
func (p *path) narrow(c pair) {
	p.t.Helper()
	for _, way := range []struct {
		from, to *net.TCPConn
		port     string // of the router
	}{{c.user, c.server, "s1"}, {c.server, c.user, "users"}} {
		deadline := time.Now().Add(20 * time.Second)
		err := errors.Join(p.router.MTU(way.port, 1300), way.from.SetDeadline(deadline), way.to.SetDeadline(deadline))
		if err != nil {
			p.t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() {
			_, err := way.from.Write(make([]byte, 1<<20))
			sent <- err
		}()
		n, err := io.ReadFull(way.to, make([]byte, 1<<20))
		if err = errors.Join(err, <-sent, p.router.MTU(way.port, 1500)); err != nil {
			p.t.Fatalf("after %d bytes from %s: %v", n, way.from.LocalAddr(), err)
		}
	}
}

// Whoever ends a connection first, the last segments find their way, and the table is empty then.
func TestNetEnds(t *testing.T) {
	for name, first := range map[string]func(pair) (before, after *net.TCPConn){
		"user":   func(c pair) (before, after *net.TCPConn) { return c.user, c.server },
		"server": func(c pair) (before, after *net.TCPConn) { return c.server, c.user },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			e := families["IPv4"]
			client := p.client()
			p.server(p.s1)
			wire := p.tap(p.router, "users")
			c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
			p.echo(c)
			before, after := first(c)
			before.Close()
			if n, err := after.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Fatalf("%d, %v", n, err)
			}
			after.Close()
			late := after.LocalAddr().(*net.TCPAddr).AddrPort()
			if late == e.vip {
				late = e.s1
			}
			fin := wire.find(flagFIN|flagACK, func(s segment) bool { return s.src == late })
			wire.find(flagACK, func(s segment) bool { return s.src == fin.dst && s.dst == fin.src })
			testnet.Eventually(t, 20*time.Second, func() bool {
				all, err := client.Connections()
				return err == nil && len(all) == 0
			}, "no connection is left")
			for _, s := range wire.segments() {
				if s.flags&flagRST != 0 {
					t.Errorf("a reset from %s to %s", s.src, s.dst)
				}
			}
		})
	}
}

// A port that is used again, in TIME-WAIT or after a reset, is another connection's; what is over goes in time.
func TestNetPortIsUsedAgain(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	p.user.Sysctl("net.ipv4.tcp_tw_reuse", "1")
	client := p.client()
	server := p.server(p.s1)
	l := p.listen(p.s1, e.vip.String())
	cookies := make(map[wire.Cookie]bool)
	attacker := p.udp(e.s2.Addr(), e.user.Addr())
	var last []byte // signed for the connection before
	for i, reset := range []bool{true, false, true} {
		c := p.connectFrom(netip.AddrPortFrom(e.user.Addr(), 40001), e.vip, l)
		p.echo(c)
		is := connectionOf(t, client, c.flow())
		if h := p.held(server, c); is.Destination != e.s1 || h.Cookie != is.Cookie || cookies[is.Cookie] {
			t.Errorf("connection %d: the user's host has %+v, the server %+v", i, is, h)
		}
		cookies[is.Cookie] = true
		if last != nil {
			before := clientCounters(t, client)
			if _, err := attacker.Write(last); err != nil {
				t.Fatal(err)
			}
			testnet.Eventually(t, 20*time.Second, func() bool {
				n := clientCounters(t, client)
				return n.ChangeTag+n.ChangeCookie > before.ChangeTag+before.ChangeCookie
			}, "a message of the connection before is counted")
			if now := clientCounters(t, client); now.ChangePassed != before.ChangePassed {
				t.Errorf("counted %+v", now)
			}
		}
		last = change(t, is, e.also, 9)
		if err := client.SetDestination(c.flow(), is.Cookie, e.also, 1); err != nil {
			t.Fatal(err)
		}
		if reset {
			c.user.SetLinger(0)
		}
		c.user.Close()
		c.server.Read(make([]byte, 1))
		c.server.Close()
		testnet.Eventually(t, 20*time.Second, func() bool {
			_, err := client.Connection(c.flow())
			return errors.Is(err, ErrGone)
		}, "the connection is over")
		if i == 1 {
			continue // in TIME-WAIT the next one takes its place
		}
		if n := entries(t, client); n != 0 {
			t.Errorf("connection %d leaves %d entries", i, n)
		}
	}
}

// entries counts what the tables of connections have.
func entries(t *testing.T, c Client) (n int) {
	t.Helper()
	return entriesOf(t, c.(*client).objects.Connections) + entriesOf(t, c.(*client).objects.Origins)
}

// One segment at the destination is told, and another one when it is asked for.
func TestNetListen(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			client, server := p.client(), p.server(p.s1)
			c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
			is := connectionOf(t, client, c.flow())
			p.withSocket(c.server, func(fd int) error {
				return server.Adopt(fd, Held{Tag: is.Tag, Cookie: is.Cookie, Sequence: 7, Destination: e.s1})
			})
			if err := client.SetDestination(c.flow(), is.Cookie, e.s1, 7); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				p.echo(c)
				p.echo(c)
				select {
				case h := <-server.Heard():
					if h.Flow != c.flow() || h.Sequence != 7 {
						t.Errorf("heard %+v", h)
					}
				case <-time.After(20 * time.Second):
					t.Fatalf("nothing was told after Listen %d", i)
				}
				if n := len(server.Heard()); n != 0 {
					t.Errorf("%d segments more were told", n)
				}
				if err := p.s1.Do(func() error { return server.Listen(c.flow()) }); err != nil {
					t.Fatal(err)
				}
			}
			gone := c.flow()
			gone.User = netip.AddrPortFrom(gone.User.Addr(), 9)
			if err := p.s1.Do(func() error { return server.Listen(gone) }); !errors.Is(err, ErrGone) {
				t.Errorf("of a connection that there is not: %v", err)
			}
		})
	}
}
