package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// Floods of what is of no connection, as anybody can send them, end in the program: nothing comes to user space, and connections go on.
func TestNetFloodOfForgeries(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	client := p.client()
	p.server(p.s1)
	c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
	p.echo(c)
	is := connectionOf(t, client, c.flow())
	if err := client.SetDestination(c.flow(), is.Cookie, e.s1, 7); err != nil {
		t.Fatal(err)
	}
	good := change(t, is, e.s2, 8)
	flip := func(offset int) []byte {
		b := bytes.Clone(good)
		b[offset] ^= 1
		return b
	}
	messages := [][]byte{flip(wire.ChangeOffMagic), flip(wire.ChangeOffUserPort), flip(wire.ChangeOffTag), flip(wire.ChangeOffCookie), change(t, is, e.s2, 7)}
	attacker := p.udp(e.s2.Addr(), e.user.Addr())
	const each = 5000
	for range each {
		for _, m := range messages {
			if _, err := attacker.Write(m); err != nil {
				t.Fatal(err)
			}
		}
	}
	testnet.Eventually(t, 20*time.Second, func() bool {
		n := clientCounters(t, client)
		return n.ChangeMalformed == each && n.ChangeUnknown == each && n.ChangeTag == each && n.ChangeCookie == each && n.ChangeOld == each
	}, "all are counted, each by what is wrong with it")
	if n := clientCounters(t, client); n.ChangePassed+n.ChangeLost != 0 || len(client.Changes()) != 0 {
		t.Errorf("counted %+v", n)
	}
	if now := connectionOf(t, client, c.flow()); now.Destination != e.s1 || now.Sequence != 7 {
		t.Errorf("the user's host has %+v", now)
	}
	p.echo(c)
}

// Who answers in the server's place has TCP's numbers to guess. With those, and without the cookie, it has a plain connection.
func TestNetForgedSYNACK(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			client, evil, wire := p.client(), p.forger(), p.tap(p.router, "users")
			p.nft(p.router, `add table inet m; add chain inet m f { type filter hook forward priority 0; }; add rule inet m f oifname "s1" drop`)
			dialed := make(chan net.Conn, 1)
			go func() {
				_ = p.user.Do(func() error {
					c, err := net.DialTimeout("tcp", e.vip.String(), 20*time.Second)
					if err != nil {
						t.Error(err)
					}
					dialed <- c
					return err
				})
			}()
			syn := wire.find(flagSYN, nil)
			option := append(golden(t, "option", 0, [8]byte{}, e.s1), 1, 1)
			at := bytes.Index(syn.options, option[:4])
			if at < 0 {
				t.Fatalf("SYN with options % x", syn.options)
			}
			copy(option, syn.options[at:at+14])
			forged := segment{src: syn.dst, dst: syn.src, flags: flagSYN | flagACK, seq: 1, ack: syn.seq + 1<<31, options: option}
			evil.send(forged, "")
			reset := wire.find(flagRST, nil) // RFC 9293 section 3.10.7.3: of what acknowledges what was not sent
			if reset.src != syn.src || reset.dst != syn.dst {
				t.Errorf("a reset from %s to %s", reset.src, reset.dst)
			}
			if n := clientCounters(t, client); n.Agreed+n.Plain+n.Mismatched != 0 || len(dialed) != 0 {
				t.Errorf("counted %+v", n)
			}
			forged.ack = syn.seq + 1
			forged.options = bytes.Clone(option)
			forged.options[6] ^= 1 // the cookie's first byte
			evil.send(forged, "")
			c := <-dialed
			if c == nil {
				return
			}
			defer c.Close()
			if n := clientCounters(t, client); n.Agreed != 0 || n.Mismatched != 1 {
				t.Errorf("counted %+v", n)
			}
			if all, err := client.Connections(); err != nil || len(all) != 0 {
				t.Errorf("the user's host has %+v, %v", all, err)
			}
		})
	}
}

// Segments from the VIP, from where a connection is, and from where it was, are TCP's to judge, as ever; from anywhere else they are not the connection's.
func TestNetForgedSegmentsOfTheStream(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			client, server, evil := p.client(), p.server(p.s1), p.forger()
			tap := p.tap(p.router, "users")
			c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
			p.echo(c)
			h := p.held(server, c)
			for i, to := range []netip.AddrPort{e.s1, e.also} {
				h.Destination, h.Heard, h.Sequence = to, false, uint64(i+1)
				p.withSocket(c.server, func(fd int) error { return server.Adopt(fd, h) })
				if err := client.SetDestination(c.flow(), h.Cookie, to, h.Sequence); err != nil {
					t.Fatal(err)
				}
				p.echo(c)
			}
			for _, from := range []netip.AddrPort{e.vip, e.also, e.s1, e.s2} {
				for what, s := range map[string]segment{
					"data out of the window":                     {flags: flagACK, seq: 1 << 31},
					"an end out of it":                           {flags: flagFIN | flagACK, seq: 1 << 31},
					"a reset out of it":                          {flags: flagRST, seq: 1 << 31},
					"a reset inside (5961.3)":                    {flags: flagRST, seq: 1},
					"an opening (5961.4)":                        {flags: flagSYN, seq: 1},
					"data with a wrong acknowledgement (5961.5)": {flags: flagACK, ack: 1 << 31},
				} {
					next, before := p.next(tap, c), clientCounters(t, client).Received
					s.src, s.dst, s.seq, s.ack = from, c.flow().User, s.seq+next.ack, s.ack+next.seq
					evil.send(s, "evil")
					if from == e.also || from == e.s1 {
						testnet.Eventually(t, 20*time.Second, func() bool { return clientCounters(t, client).Received > before }, what, " from ", from)
					}
					p.echo(c)
				}
			}
			next := p.next(tap, c)
			evil.send(segment{src: e.s2, dst: c.flow().User, flags: flagACK, seq: next.ack, ack: next.seq}, "evil")
			tap.find(flagRST, func(s segment) bool { return s.dst == e.s2 }) // nobody's connection
			p.echo(c)
			for _, s := range tap.segments() {
				if s.flags&flagRST != 0 && s.src == c.flow().User && s.dst != e.s2 {
					t.Errorf("a reset to %s", s.dst)
				}
			}
		})
	}
}

// A firewall on the user's host that drops what connection tracking finds invalid, as many do, drops none of the server's segments because somebody has sent
// resets from ahead of what has come: tracking takes one just beyond the window for how far the server has sent.
func TestNetResetsAhead(t *testing.T) {
	for name, e := range families {
		for from, source := range map[string]netip.AddrPort{"the VIP": e.vip, "the server": e.s1} {
			for what, flags := range map[string]byte{"alone": flagRST, "of acknowledgement 0": flagRST | flagACK} {
				t.Run(name+" from "+from+" "+what, func(t *testing.T) {
					p := newPath(t)
					p.nft(p.user, "add table inet f; add chain inet f i { type filter hook input priority 0; }; "+
						"add rule inet f i ct state invalid tcp flags & rst == 0 counter drop; add rule inet f i ct state invalid drop")
					client, server, evil := p.client(), p.server(p.s1), p.forger()
					tap := p.tap(p.router, "users")
					c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
					if at := connectionOf(t, client, c.flow()).Destination; at != e.s1 {
						h := p.held(server, c)
						if err := client.SetDestination(c.flow(), h.Cookie, e.s1, 1); err != nil {
							t.Fatal(err)
						}
					}
					p.echo(c)
					next, resets := p.next(tap, c), uint64(0)
					for ahead := uint32(1); ahead < 1<<18; ahead += 1 << 12 {
						evil.send(segment{src: source, dst: c.flow().User, flags: flags, seq: next.ack + ahead}, "")
						resets++
					}
					testnet.Eventually(t, 20*time.Second, func() bool { return clientCounters(t, client).ResetsAhead == resets }, "resets are dropped")
					p.echo(c)
					if out, err := p.user.Run("nft", "list chain inet f i"); err != nil || !strings.Contains(out, "counter packets 0") {
						t.Errorf("the firewall: %v: %s", err, out)
					}
				})
			}
		}
	}
}

// A flood of segments with the option for no connection leaves true handshakes as they are.
func TestNetFloodOfOptions(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	client, server, evil := p.client(), p.server(p.s1), p.forger()
	l := p.listen(p.s1, e.vip.String())
	option := append(golden(t, "option", 1, [8]byte{2}, e.s1), 1, 1)
	const flood = 5000 // more than are remembered
	send := func() {
		for port := range flood {
			evil.send(segment{src: netip.AddrPortFrom(netip.MustParseAddr("10.1.0.8"), uint16(1+port)), dst: e.s1, flags: flagACK, seq: 1, ack: 2, options: option}, "")
		}
	}
	send()
	testnet.Eventually(t, 20*time.Second, func() bool { return serverCounters(t, server).Received >= flood }, "all are taken")
	done := make(chan struct{})
	go func() {
		defer close(done)
		send()
	}()
	for range 20 {
		c := p.connect(e.vip, l)
		p.echo(c)
		if is, h := connectionOf(t, client, c.flow()), p.held(server, c); is.Destination != e.s1 || !h.Heard {
			t.Errorf("the user's host has %+v, the server %+v", is, h)
		}
	}
	<-done
	if n := serverCounters(t, server); n.Established != 20 {
		t.Errorf("counted %+v", n)
	}
}

// Who connects to a server's own address, from the port that a connection to the VIP has there already, is not answered; that one goes on.
func TestNetLocalUserOfTheSamePort(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	p.client()
	p.server(p.s1)
	c := p.connectFrom(netip.AddrPortFrom(e.user.Addr(), 40001), e.vip, p.listen(p.s1, e.vip.String()))
	p.echo(c)
	p.listen(p.s1, e.s1.String())
	err := p.user.Do(func() error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: e.user.Addr().AsSlice(), Port: 40001}, Control: reuse, Timeout: 2 * time.Second}
		other, err := d.Dial("tcp", e.s1.String())
		if err == nil {
			other.Close()
		}
		return err
	})
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%v", err)
	}
	p.echo(c)
}

// Users whose connection has left are sent on until that is forgotten, over a restart as well. Then they are reset.
func TestNetForgottenFlowsAreReset(t *testing.T) {
	for what, restart := range map[string]bool{"by the process": false, "by the next process": true} {
		t.Run(what, func(t *testing.T) {
			p := newPath(t)
			e := families["IPv4"]
			p.client()
			one, two := p.server(p.s1), p.server(p.s2)
			c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
			p.echo(c)
			h := p.held(one, c)
			h.Sequence, h.Heard, h.Destination = 1, false, e.s2
			if err := one.Follow([]Flow{c.flow()}); err != nil {
				t.Fatal(err)
			}
			p.nft(p.s1, silent)
			p.carry(c.server, p.s2, func(fd int) error { return two.Adopt(fd, h) })
			if _, err := io.WriteString(c.user, "early"); err != nil {
				t.Fatal(err)
			}
			testnet.Eventually(t, 20*time.Second, func() bool { return serverCounters(t, one).Followed > 0 }, "a segment is followed")
			if restart {
				if err := one.Close(true); err != nil {
					t.Fatal(err)
				}
				one = p.server(p.s1)
				if flows, err := one.Followed(); err != nil || len(flows) != 1 || flows[0] != c.flow() {
					t.Errorf("follows %v, %v", flows, err)
				}
				was := serverCounters(t, one).Followed
				testnet.Eventually(t, 20*time.Second, func() bool { return serverCounters(t, one).Followed > was }, "a segment is followed by the next process")
			}
			if err := one.Forget([]Flow{c.flow()}); err != nil {
				t.Fatal(err)
			}
			c.user.SetReadDeadline(time.Now().Add(20 * time.Second))
			if n, err := c.user.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%d, %v", n, err)
			}
		})
	}
}

// What programs know is for root, and for who runs them: pins are in a directory of nobody else's, and other ways to a map are closed to who has no more
// than the programs' loader.
func TestNetMapsAreNotForOthers(t *testing.T) {
	p := newPath(t)
	c, s := p.client().(*client), p.server(p.s1).(*server)
	for what, tt := range map[string]struct {
		dir  string
		node *testnet.Node
		is   *ebpf.Map
	}{"client": {c.dir, p.user, c.objects.Connections}, "server": {s.dir, p.s1, s.objects.Connections}} {
		if at, err := os.Stat(tt.dir); err != nil || at.Mode() != os.ModeDir|0o700 {
			t.Errorf("%s: %v, %v", what, at.Mode(), err)
		}
		info, err := tt.is.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, ok := info.ID()
		if !ok {
			t.Fatal("no identifier")
		}
		open := func() error {
			m, err := ebpf.NewMapFromID(id)
			if err == nil {
				m.Close()
			}
			return err
		}
		p.in(tt.node, func() error {
			if err := open(); !errors.Is(err, unix.EPERM) {
				t.Errorf("%s: %v", what, err)
			}
			return nil
		})
		p.in(tt.node, open, unix.CAP_SYS_ADMIN)
	}
}

// By an interface without programs the port is as any other: the kernel refuses what comes, or whoever has bound it reads that. No connection moves.
func TestNetOtherInterfaces(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	client := p.client()
	p.server(p.s1)
	c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
	p.echo(c)
	p.net.Link(p.user, "eth1", "10.4.0.1/24", p.router, "users1", "10.4.0.2/24")
	message := change(t, connectionOf(t, client, c.flow()), e.s2, 1)
	var attacker *net.UDPConn
	err := p.router.Do(func() (err error) {
		attacker, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(10, 4, 0, 1), Port: wire.Port})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer attacker.Close()
	attacker.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := attacker.Write(message); err != nil {
		t.Fatal(err)
	}
	if _, err := attacker.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
	reader := p.bound(netip.MustParseAddr("10.4.0.1"))
	if _, err := attacker.Write(message); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2*wire.ChangeSize)
	reader.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := reader.Read(b); err != nil || !bytes.Equal(b[:n], message) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n := clientCounters(t, client); n.ChangePassed+n.ChangeLost+n.ChangeMalformed+n.ChangeUnknown != 0 {
		t.Errorf("counted %+v", n)
	}
	p.echo(c)
}

// notTCP are packets of an address that are neither TCP nor between neighbors.
func (w *tap) notTCP(from netip.Addr) (all []string) {
	w.segments()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.frames {
		if len(f) < 14+40 {
			continue
		}
		ip := f[14:]
		switch {
		case ip[0]>>4 == 4 && netip.AddrFrom4([4]byte(ip[12:16])) == from && ip[9] != unix.IPPROTO_TCP,
			ip[0]>>4 == 6 && netip.AddrFrom16([16]byte(ip[8:24])) == from && ip[6] != unix.IPPROTO_TCP && (ip[6] != unix.IPPROTO_ICMPV6 || ip[40] < 128):
			all = append(all, fmt.Sprintf("% x", ip))
		}
	}
	return all
}
