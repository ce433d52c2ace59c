package kernel

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

// agent is the data plane of a server: what comes to the VIP is its.
func (p *path) agent(node *testnet.Node, own, peer netip.Addr, keeps bool) dataplane.AgentPlane {
	p.t.Helper()
	everybody := portion.Union{{Permit: []portion.Portion{portion.MustParse("0.0.0.0/0.0.0.0")}}}
	var a dataplane.AgentPlane
	err := node.Do(func() (err error) {
		a, err = dataplane.OpenAgent(dataplane.AgentConfig{
			Interface: "eth0", Bpffs: filepath.Join(p.bpffs, node.Name()+"-agent"), Forward: dataplane.Forward{Port: 8464, Address: own},
		})
		if err != nil {
			return err
		}
		return errors.Join(a.SetPeers([]netip.Addr{peer}), a.Set([]dataplane.AgentService{{
			VIP: families["IPv4"].vip.Addr(), Tagged: true, Ports: []dataplane.Port{{Proto: "tcp", Number: 80}}, Accept: everybody, Keeps: keeps,
		}}))
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if err := node.Do(func() error { return a.Close(false) }); err != nil {
			p.t.Error(err)
		}
	})
	return a
}

// A server with too much to do sends first segments on to another, beside its agent; that one answers the user itself, with its own destination. Plain
// users, and those who are not among the share, stay.
func TestNetRedirect(t *testing.T) {
	for name, keeps := range map[string]bool{"connections are kept": true, "and not": false} {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			e := families["IPv4"]
			busy, idle := p.agent(p.s1, e.s1.Addr(), e.s2.Addr(), keeps), p.agent(p.s2, e.s2.Addr(), e.s1.Addr(), keeps)
			p.server(p.s1)
			p.server(p.s2)
			at1, at2 := p.listen(p.s1, e.vip.String()), p.listen(p.s2, e.vip.String())
			group := e.vip.Addr()
			redirect := func(share int) {
				if err := busy.Redirect(group, share, e.s2.Addr()); err != nil {
					t.Fatal(err)
				}
			}
			redirect(dataplane.ShedAll)
			p.echo(p.connect(e.vip, at1)) // a plain user
			client := p.client()
			is := func(l *net.TCPListener, destination netip.AddrPort) {
				t.Helper()
				c := p.connect(e.vip, l)
				p.echo(c)
				if is := connectionOf(t, client, c.flow()); is.Destination != destination {
					t.Errorf("the user's host has %+v, want it at %s", is, destination)
				}
			}
			is(at2, e.s2)
			redirect(0)
			is(at1, e.s1)
			redirect(1) // of 1024 users, and not this one
			is(at1, e.s1)
			if share, to, err := busy.Redirecting(group); share != 1 || to != e.s2.Addr() || err != nil {
				t.Errorf("redirects %d to %s, %v", share, to, err)
			}
			n, err := busy.Counters()
			m, err2 := idle.Counters()
			if err = errors.Join(err, err2); err != nil || n.Redirected != 1 || n.ForwardFailed+m.NotPeer+m.NotMine != 0 {
				t.Errorf("counted %+v, %+v, %v", n, m, err)
			}
		})
	}
}

// A user of a connection that was redirected may stay at the VIP. What it sends comes to the server that answered for as long as the connection lasts, also
// when nothing is redirected any more.
func TestNetUserStaysAtTheVIP(t *testing.T) {
	for why, stays := range map[string]func(p *path, client Client, vip netip.AddrPort) error{
		"nothing is published": func(_ *path, client Client, vip netip.AddrPort) error {
			return client.Set([]ClientService{{VIP: vip}})
		},
		"the other server is not published": func(_ *path, client Client, vip netip.AddrPort) error {
			return client.Set([]ClientService{{VIP: vip, Published: published[:1]}})
		},
		"SYN-ACKs lose the option": func(p *path, _ Client, _ netip.AddrPort) error {
			p.nft(p.router, "add table ip m; add chain ip m f { type filter hook forward priority 0; }; "+
				"add rule ip m f tcp flags & (syn | ack) == (syn | ack) reset tcp option 254")
			return nil
		},
		"a cookie of fast open takes the destination's room": nil,
	} {
		for name, keeps := range map[string]bool{"kept": true, "not kept": false} {
			t.Run(why+", "+name, func(t *testing.T) {
				p := newPath(t)
				e := families["IPv4"]
				busy, idle := p.agent(p.s1, e.s1.Addr(), e.s2.Addr(), keeps), p.agent(p.s2, e.s2.Addr(), e.s1.Addr(), keeps)
				client := p.client()
				p.server(p.s1)
				p.server(p.s2)
				connect := p.connect
				if stays == nil {
					p.user.Sysctl("net.ipv4.tcp_timestamps", "0")
					p.user.Sysctl("net.ipv4.tcp_fastopen", "1")
					p.s2.Sysctl("net.ipv4.tcp_fastopen", "0x402") // every listener's
					connect = func(to netip.AddrPort, l *net.TCPListener) pair { return p.fastopen(to.String(), l) }
				} else if err := stays(p, client, e.vip); err != nil {
					t.Fatal(err)
				}
				at1, at2 := p.listen(p.s1, e.vip.String()), p.listen(p.s2, e.vip.String())
				if err := busy.Redirect(e.vip.Addr(), dataplane.ShedAll, e.s2.Addr()); err != nil {
					t.Fatal(err)
				}
				wire := p.tap(p.router, "users")
				c := connect(e.vip, at2)
				p.echo(c)
				is, err := client.Connection(c.flow())
				if plain := errors.Is(err, ErrGone); !plain && (err != nil || is.Destination != e.vip) {
					t.Errorf("the user's host has %+v, %v", is, err)
				}
				if err := busy.Redirect(e.vip.Addr(), 0, netip.Addr{}); err != nil {
					t.Fatal(err)
				}
				p.echo(c)
				for _, way := range [][2]*net.TCPConn{{c.server, c.user}, {c.user, c.server}} { // TIME-WAIT is the server's
					if err := way[0].CloseWrite(); err != nil {
						t.Fatal(err)
					}
					if n, err := way[1].Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
						t.Errorf("%d bytes, %v, where the other has ended", n, err)
					}
				}

				// The port's next connection is whoever's its first segment comes to.
				p.echo(p.connectFrom(c.flow().User, e.vip, at1))
				for _, s := range wire.segments() {
					if s.flags&flagRST != 0 {
						t.Errorf("a reset from %s to %s", s.src, s.dst)
					}
				}
				n, err := busy.Counters()
				m, err2 := idle.Counters()
				if err = errors.Join(err, err2); err != nil || n.Redirected != 1 || n.ForwardedOut == 0 || m.ForwardedIn != n.ForwardedOut+n.Redirected ||
					n.ForwardFailed+n.ForwardEnded+m.ForwardEnded+m.NotPeer+m.NotMine+m.ForwardedOn != 0 {
					t.Errorf("counted %+v, %+v, %v", n, m, err)
				}
			})
		}
	}
}

// A user who does not know of a move sends to where its connection was, which sends it on: the server that has it hears that. Who was heard there is elsewhere
// then, too, as one is who was led back: it is answered from the VIP, which it takes from anywhere.
func TestNetUserIsElsewhere(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	first, second := p.agent(p.s1, e.s1.Addr(), e.s2.Addr(), true), p.agent(p.s2, e.s2.Addr(), e.s1.Addr(), true)
	client, one, two := p.client(), p.server(p.s1), p.server(p.s2)
	wire := p.tap(p.router, "users")
	c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
	p.echo(c)
	flows := []dataplane.Flow{{User: c.flow().User, VIP: c.flow().VIP}}
	h := p.held(one, c)
	h.Sequence, h.Heard, h.Destination = 1, false, e.s2
	if err := errors.Join(second.Arm(flows), first.Hold(flows), one.Follow([]Flow{c.flow()})); err != nil {
		t.Fatal(err)
	}
	c.server = p.carry(c.server, p.s2, func(fd int) error { return two.Adopt(fd, h) })
	if err := errors.Join(second.Release(flows), first.Pass(flows, e.s2.Addr()), first.SetFlows(map[dataplane.Flow]netip.Addr{flows[0]: e.s2.Addr()})); err != nil {
		t.Fatal(err)
	}
	elsewhere := Heard{Flow: c.flow(), Tag: h.Tag, Cookie: h.Cookie, Sequence: 1, Elsewhere: true}
	here := elsewhere
	here.Elsewhere = false
	p.echo(c)
	heard(t, two, elsewhere)
	if err := client.SetDestination(c.flow(), h.Cookie, e.s2, 1); err != nil {
		t.Fatal(err)
	}
	p.echo(c)
	heard(t, two, here)
	time.Sleep(time.Second) // it is told no more often
	forged, before := p.next(wire, c), forwardedIn(t, second)
	forged.dst, forged.seq = e.s1, forged.seq+1<<31
	p.forger().send(forged, "")
	testnet.Eventually(t, 20*time.Second, func() bool { return forwardedIn(t, second) > before }, "what was forged is sent on")
	if h := p.held(two, c); !h.Heard {
		t.Errorf("the server has %+v", h)
	}
	if err := client.SetDestination(c.flow(), h.Cookie, e.s1, 2); err != nil {
		t.Fatal(err)
	}
	p.echo(c)
	heard(t, two, elsewhere)
	if h := p.held(two, c); h.Heard {
		t.Errorf("the server has %+v", h)
	}
	p.echo(c)
	if n := serverCounters(t, two); n.Heard != 1 || n.Elsewhere != 2 || n.HeardLost != 0 {
		t.Errorf("counted %+v", n)
	}
}

func forwardedIn(t testing.TB, a dataplane.AgentPlane) uint64 {
	t.Helper()
	n, err := a.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return n.ForwardedIn
}
