package kernel

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

// another is a client of its own pins beside others.
func (p *path) another(name string, g cgroup) Client {
	p.t.Helper()
	var c Client
	config := p.config(name)
	config.Cgroup = g.dir
	p.in(p.user, func() (err error) {
		if c, err = OpenClient(config); err != nil {
			return err
		}
		return c.Set([]ClientService{{VIP: families["IPv4"].vip, Published: published}, {VIP: families["IPv6"].vip, Published: published6}})
	})
	p.t.Cleanup(func() { c.Close(false) })
	return c
}

// Clients of control groups side by side, and one of the whole host: a connection is the innermost's alone, its messages come to that one whatever the
// order of the programs, and what is nobody's comes to no socket.
func TestNetSeveralClients(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			one, two := newCgroup(t, "one"), newCgroup(t, "two")
			clients := []Client{p.another("client-one", one), p.client(), p.another("client-two", two)}
			groups := []cgroup{one, {t: t, dir: dirAbove(one)}, two}
			p.server(p.s1)
			l := p.listen(p.s1, e.vip.String())
			wire := p.tap(p.router, "users")
			listener, attacker := p.bound(e.user.Addr()), p.udp(e.s2.Addr(), e.user.Addr())
			for i, g := range groups {
				g.join()
				c := p.connect(e.vip, l)
				groups[1].join()
				p.echo(c)
				for j, client := range clients {
					_, err := client.Connection(c.flow())
					if i == j && err != nil || i != j && !errors.Is(err, ErrGone) {
						t.Fatalf("client %d knows of the connection of group %d: %v", j, i, err)
					}
				}
				syn := wire.find(flagSYN, func(s segment) bool { return s.src == c.flow().User })
				if n := bytes.Count(syn.options, []byte{254, 14, 0x4d, 0x44}); n != 1 {
					t.Errorf("SYN with options %x", syn.options)
				}
				is := connectionOf(t, clients[i], c.flow())
				message := change(t, is, e.s2, 1)
				if _, err := attacker.Write(message); err != nil {
					t.Fatal(err)
				}
				select {
				case got := <-clients[i].Changes():
					if got.Flow != c.flow() || !bytes.Equal(got.Message, message) {
						t.Errorf("client %d is given %+v", i, got)
					}
				case <-time.After(20 * time.Second):
					t.Fatalf("client %d is given nothing", i)
				}
				if err := clients[i].SetDestination(c.flow(), is.Cookie, e.also, 2); err != nil {
					t.Fatal(err)
				}
				p.echo(c)
			}
			unknown := clientCounters(t, clients[0]).ChangeUnknown + clientCounters(t, clients[1]).ChangeUnknown + clientCounters(t, clients[2]).ChangeUnknown
			for _, b := range [][]byte{change(t, Connection{Flow: Flow{User: e.s2, VIP: e.vip}, Destination: e.s1}, e.s2, 1), []byte("nothing")} {
				if _, err := attacker.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			for i, c := range clients {
				testnet.Eventually(t, 20*time.Second, func() bool {
					n := clientCounters(t, c)
					return n.ChangeUnknown > 0 && n.ChangeMalformed == 1
				}, "client ", string(rune('0'+i)), " has judged both")
				if n := clientCounters(t, c); n.Mismatched+n.Plain+n.NoRoom+n.ChangeLost+n.Failed != 0 || n.Agreed != 1 || n.ChangePassed != 1 {
					t.Errorf("client %d counts %+v", i, n)
				}
				if len(c.Changes()) != 0 {
					t.Errorf("client %d is given another's message", i)
				}
			}
			if unknown == 0 {
				t.Error("no message came by another client's programs")
			}
			listener.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if n, err := listener.Read(make([]byte, 300)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the port's socket has read %d bytes, %v", n, err)
			}
		})
	}
}

// A host that is a user of a service, and a server of it or of others, says of its connections what any user does: again in the second SYN, and in what
// ends the handshake.
func TestNetClientBesideServer(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			client := p.client()
			p.server(p.user)
			p.server(p.s1)
			users, servers := p.tap(p.router, "users"), p.tap(p.router, "s1")
			p.nft(p.router, `add table inet m; add chain inet m f { type filter hook forward priority 0; }; `+
				`add rule inet m f oifname "s1" tcp flags & (syn | ack) == syn limit rate over 1/day burst 1 packets accept; add rule inet m f oifname "s1" tcp flags & (syn | ack) == syn drop`)
			c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
			p.echo(c)
			is := connectionOf(t, client, c.flow())
			option := golden(t, "option", is.Tag, is.Cookie, e.s1)
			first := users.find(flagSYN, nil)
			wants(t, "the first SYN", first, option)
			wants(t, "the second SYN", servers.find(flagSYN, nil), option)
			wants(t, "what ends the handshake", users.find(flagACK, func(s segment) bool { return s.src == first.src }), option)
			if n := clientCounters(t, client); n.Agreed != 1 || n.NoRoom != 0 {
				t.Errorf("counted %+v", n)
			}
		})
	}
}

// One who goes leaves the others as they are, and none takes what another has.
func TestNetClientsComeAndGo(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	one := newCgroup(t, "one")
	whole := p.client()
	p.server(p.s1)
	l := p.listen(p.s1, e.vip.String())
	before := p.connect(e.vip, l)
	inner := p.another("client-one", one)
	p.in(p.user, func() error {
		_, err := OpenClient(p.config("client"))
		says(t, err, "in use by another process")
		return nil
	})
	one.join()
	c := p.connect(e.vip, l)
	one.leave()
	p.echo(c)
	p.echo(before)
	if err := p.user.Do(func() error { return inner.Close(false) }); err != nil {
		t.Fatal(err)
	}
	one.join()
	after := p.connect(e.vip, l)
	one.leave()
	p.echo(before)
	p.echo(after)
	for what, c := range map[string]pair{"before": before, "after": after} {
		if is := connectionOf(t, whole, c.flow()); is.Destination != e.s1 {
			t.Errorf("%s: %+v", what, is)
		}
	}
}

// What was refused would come to a bridge's own host all the same.
func TestNetBridgePortsAreRefused(t *testing.T) {
	p := newPath(t)
	for _, argv := range [][]string{{"ip", "link", "add", "br0", "type", "bridge"}, {"ip", "link", "set", "eth0", "master", "br0"}} {
		if out, err := p.user.Run(argv...); err != nil {
			t.Fatal(out, err)
		}
	}
	err := p.user.Do(func() error {
		_, err := OpenClient(p.config("client"))
		return err
	})
	says(t, err, "bridge br0")
}

// dirAbove is the control group that leave goes to.
func dirAbove(g cgroup) string { return filepath.Dir(g.dir) }
