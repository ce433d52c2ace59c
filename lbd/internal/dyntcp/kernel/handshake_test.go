package kernel

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// golden is an option of package wire, with another tag, cookie and destination.
func golden(t testing.TB, name string, tag uint16, cookie wire.Cookie, destination netip.AddrPort) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../wire/testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	_, digits, _ := strings.Cut(string(text), "\n")
	b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
	if err != nil {
		t.Fatal(err)
	}
	b[wire.OptionOffTag], b[wire.OptionOffTag+1] = byte(tag>>8), byte(tag)
	copy(b[wire.OptionOffCookie:], cookie[:])
	if len(b) == wire.OptionDestinationSize {
		copy(b[wire.OptionOffAddress:], destination.Addr().AsSlice())
		b[wire.OptionOffPort], b[wire.OptionOffPort+1] = byte(destination.Port()>>8), byte(destination.Port())
	}
	return b
}

// wants checks that exactly this option of dynamic TCP is in the segment.
func wants(t testing.TB, what string, s segment, option []byte) {
	t.Helper()
	if !bytes.Contains(s.options, option) || bytes.Count(s.options, option[:4]) != 1 {
		t.Errorf("%s has options % x, want % x among them once", what, s.options, option)
	}
}

func TestNetHandshakeOnTheWire(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			client, server := p.client(), p.server(p.s1)
			wire := p.tap(p.router, "users")
			l := p.listen(p.s1, e.vip.String())
			c := p.connect(e.vip, l)
			p.echo(c)
			is := connectionOf(t, client, c.flow())
			destination := e.s1
			synack := "option_destination"
			if name == "IPv6" {
				destination, synack = e.vip, "option"
			}
			if is.Destination != destination || is.Before.IsValid() || is.Sequence != 0 || is.Moves != 0 {
				t.Errorf("the user's host has %+v, want the connection at %s", is, destination)
			}
			plain := golden(t, "option", is.Tag, is.Cookie, e.s1)
			syn := wire.find(flagSYN, nil)
			wants(t, "SYN", syn, plain)
			answer := wire.find(flagSYN|flagACK, nil)
			wants(t, "SYN-ACK", answer, golden(t, synack, is.Tag, is.Cookie, e.s1))
			ack := wire.find(flagACK, func(s segment) bool { return s.src == syn.src })
			wants(t, "what ends the handshake", ack, plain)
			if syn.dst != e.vip || answer.src != e.vip || ack.dst != destination {
				t.Errorf("SYN to %s, SYN-ACK from %s, then to %s; want %s, %s, %s", syn.dst, answer.src, ack.dst, e.vip, e.vip, destination)
			}
			reply := wire.find(flagACK, func(s segment) bool { return s.dst == syn.src && s.payload > 0 })
			if reply.src != destination || bytes.Contains(reply.options, plain[:4]) {
				t.Errorf("an answer comes from %s with options % x, want %s and none of ours", reply.src, reply.options, destination)
			}
			h := p.held(server, c)
			if h.Tag != is.Tag || h.Cookie != is.Cookie || h.Destination != e.s1 || h.Heard != (name == "IPv4") {
				t.Errorf("the server has %+v of %+v", h, is)
			}
		})
	}
}

// isPlain checks that a connection works as if there were no dynamic TCP.
func isPlain(t *testing.T, p *path, client Client, c pair, to netip.AddrPort, wire *tap) {
	t.Helper()
	p.echo(c)
	if client != nil {
		if is, err := client.Connection(c.flow()); !errors.Is(err, ErrGone) {
			t.Errorf("the user's host has %+v, %v", is, err)
		}
	}
	syns := 0
	for _, s := range wire.segments() {
		if s.flags == flagSYN {
			syns++
		}
		if s.src != to && s.dst != to {
			t.Errorf("a segment from %s to %s", s.src, s.dst)
		}
	}
	if syns != 1 {
		t.Errorf("%d SYNs", syns)
	}
}

func TestNetPlainServer(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			client, wire := p.client(), p.tap(p.router, "users")
			isPlain(t, p, client, p.connect(e.vip, p.listen(p.s1, e.vip.String())), e.vip, wire)
			if n := clientCounters(t, client); n.Offered != 1 || n.Plain != 1 || n.Agreed != 0 {
				t.Errorf("counted %+v", n)
			}
		})
	}
}

func TestNetPlainClient(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			server, wire := p.server(p.s1), p.tap(p.router, "users")
			c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
			isPlain(t, p, nil, c, e.vip, wire)
			p.withSocket(c.server, func(fd int) error {
				if h, err := server.Held(fd); !errors.Is(err, ErrGone) {
					t.Errorf("the server has %+v, %v", h, err)
				}
				return nil
			})
			if n := serverCounters(t, server); n != (ServerCounters{}) {
				t.Errorf("counted %+v", n)
			}
		})
	}
}

// What is no service's is left alone: no option, and a connection to the server's own address.
func TestNetOtherConnections(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	client, server := p.client(), p.server(p.s1)
	wire := p.tap(p.router, "users")
	l := p.listen(p.s1, "0.0.0.0:80")
	isPlain(t, p, client, p.connect(e.s1, l), e.s1, wire)
	for _, s := range wire.segments() {
		if bytes.Contains(s.options, []byte{wire0, wire1}) {
			t.Errorf("options % x", s.options)
		}
	}
	if n, m := clientCounters(t, client), serverCounters(t, server); n != (ClientCounters{}) || m != (ServerCounters{}) {
		t.Errorf("counted %+v, %+v", n, m)
	}
	p.echo(p.connect(e.vip, l)) // a listener of all addresses is the service's, too
	if n := serverCounters(t, server); n.Established != 1 {
		t.Errorf("counted %+v", n)
	}
}

// Sockets that are made outside the control group are left alone.
func TestNetScopeOfControlGroup(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	g := newCgroup(t, "one")
	client := p.clientOf(g)
	p.server(p.s1)
	l := p.listen(p.s1, e.vip.String())
	wire := p.tap(p.router, "users")
	isPlain(t, p, client, p.connect(e.vip, l), e.vip, wire)
	g.join()
	c := p.connect(e.vip, l)
	g.leave()
	p.echo(c)
	if is := connectionOf(t, client, c.flow()); is.Destination != e.s1 {
		t.Errorf("the user's host has %+v", is)
	}
	if n := clientCounters(t, client); n.Offered != 1 {
		t.Errorf("counted %+v", n)
	}
}

const wire0, wire1 = wire.ExID >> 8, wire.ExID & 0xff

// A server that gives SYN cookies away has forgotten the SYN: the option comes again.
func TestNetSYNCookies(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			p.s1.Sysctl("net.ipv4.tcp_syncookies", "2")
			client, server := p.client(), p.server(p.s1)
			c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
			p.echo(c)
			is, h := connectionOf(t, client, c.flow()), p.held(server, c)
			if h.Tag != is.Tag || h.Cookie != is.Cookie || h.Heard != (name == "IPv4") {
				t.Errorf("the server has %+v of %+v", h, is)
			}
			if name == "IPv4" && is.Destination != e.s1 {
				t.Errorf("the user's host has %+v", is)
			}
		})
	}
}

func TestNetWithoutTimestamps(t *testing.T) {
	p := newPath(t)
	p.user.Sysctl("net.ipv4.tcp_timestamps", "0")
	for _, cookies := range []string{"1", "2"} {
		p.s1.Sysctl("net.ipv4.tcp_syncookies", cookies)
		e := families["IPv4"]
		client, server := p.client(), p.server(p.s1)
		l := p.listen(p.s1, e.vip.String())
		c := p.connect(e.vip, l)
		p.echo(c)
		if is, h := connectionOf(t, client, c.flow()), p.held(server, c); is.Destination != e.s1 || h.Cookie != is.Cookie || !h.Heard {
			t.Errorf("tcp_syncookies=%s: the user's host has %+v, the server %+v", cookies, is, h)
		}
		l.Close()
		client.Close(false)
		server.Close(false)
	}
}

// Who listened before is asked for its SYNs, too; so is who listens at all addresses of IPv6, whose users of IPv4 have mapped ones.
func TestNetListenersThatWereThere(t *testing.T) {
	for _, address := range []string{"192.0.2.80:80", "0.0.0.0:80", "[::]:80"} {
		t.Run(address, func(t *testing.T) {
			p := newPath(t)
			e := families["IPv4"]
			l := p.listen(p.s1, address)
			client, server := p.client(), p.server(p.s1)
			plain := p.connect(e.vip, l)
			p.echo(plain)
			if is, err := client.Connection(plain.flow()); !errors.Is(err, ErrGone) {
				t.Errorf("without CAP_PERFMON the user's host has %+v, %v", is, err)
			}
			p.in(p.s1, func() error { return server.Set(p.services(p.s1)) }, unix.CAP_PERFMON)
			c := p.connect(e.vip, l)
			p.echo(c)
			if is, h := connectionOf(t, client, c.flow()), p.held(server, c); is.Destination != e.s1 || h.Cookie != is.Cookie {
				t.Errorf("the user's host has %+v, the server %+v", is, h)
			}
		})
	}
}

// A destination that the service does not publish is none; the connection stays, at the VIP.
func TestNetDestinationIsPublished(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	client, server := p.client(), p.server(p.s1)
	services := []ClientService{{VIP: e.vip, Published: []netip.Prefix{netip.MustParsePrefix("10.3.0.0/24"), netip.MustParsePrefix("10.2.0.4/32")}}}
	if err := client.Set(services); err != nil {
		t.Fatal(err)
	}
	c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
	p.echo(c)
	if is := connectionOf(t, client, c.flow()); is.Destination != e.vip {
		t.Errorf("the user's host has %+v", is)
	}
	if n := clientCounters(t, client); n.NotPublished != 1 || n.Agreed != 1 || n.Sent != 0 {
		t.Errorf("counted %+v", n)
	}
	if h := p.held(server, c); h.Heard {
		t.Errorf("the server has %+v", h)
	}
}

// A middlebox takes options away, from the user, from the server, or both.
func TestNetStrippedOptions(t *testing.T) {
	for what, rule := range map[string]string{
		"all":                     "",
		"from the user":           "ip saddr 10.1.0.7",
		"from the server":         "ip daddr 10.1.0.7",
		"of SYNs":                 "tcp flags & (syn | ack) == syn",
		"of SYN-ACKs":             "tcp flags & (syn | ack) == (syn | ack)",
		"of what ends handshakes": "tcp flags & syn == 0",
	} {
		t.Run(what, func(t *testing.T) {
			p := newPath(t)
			e := families["IPv4"]
			p.nft(p.router, "add table ip m; add chain ip m f { type filter hook forward priority 0; }; add rule ip m f "+rule+" reset tcp option 254")
			client, server := p.client(), p.server(p.s1)
			wire := p.tap(p.router, "users")
			c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
			if what != "of what ends handshakes" {
				isPlain(t, p, client, c, e.vip, wire)
				if n := clientCounters(t, client); n.Plain != 1 {
					t.Errorf("counted %+v", n)
				}
				return
			}
			p.echo(c)
			if is, h := connectionOf(t, client, c.flow()), p.held(server, c); is.Destination != e.s1 || h.Cookie != is.Cookie {
				t.Errorf("the user's host has %+v, the server %+v", is, h)
			}
		})
	}
}

func (p *path) nft(node *testnet.Node, rules string) {
	p.t.Helper()
	if out, err := node.Run("nft", rules); err != nil {
		p.t.Fatalf("nft: %v: %s", err, out)
	}
}

// A middlebox that drops what it does not know costs a connection two SYNs, not more.
func TestNetDroppedOptions(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	p.nft(p.router, "add table ip m; add chain ip m f { type filter hook forward priority 0; }; add rule ip m f tcp flags syn tcp option 254 exists drop")
	client, wire := p.client(), p.tap(p.router, "users")
	c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
	p.echo(c)
	syns := 0
	for _, s := range wire.segments() {
		if s.flags == flagSYN {
			syns++
		}
	}
	if n := clientCounters(t, client); n.Plain != 1 || syns != 3 {
		t.Errorf("%d SYNs, counted %+v", syns, n)
	}
}

// A handshake whose place others have taken meanwhile, as who makes connections very fast does, ends at the VIP, plain.
func TestNetHandshakeIsDisplaced(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	user, w := p.client(), p.tap(p.router, "users")
	p.server(p.s1)
	l := p.listen(p.s1, e.vip.String())
	p.nft(p.router, `add table ip m; add chain ip m f { type filter hook forward priority 0; }; add rule ip m f oifname "users" drop`)
	displaced := make(chan error, 1)
	go func() {
		w.find(flagSYN, nil)
		displaced <- displace(user)
		p.nft(p.router, "delete table ip m")
	}()
	c := p.connect(e.vip, l)
	if err := <-displaced; err != nil {
		t.Fatal(err)
	}
	p.echo(c)
	if _, err := user.Connection(c.flow()); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
	if n := clientCounters(t, user); n.Offered != 1 || n.Agreed != 0 || n.Sent != 0 {
		t.Errorf("counted %+v", n)
	}
}

func displace(c Client) error {
	places := c.(*client).objects.Handshakes
	for i := range places.MaxEntries() {
		if err := places.Put(i, make([]byte, places.ValueSize())); err != nil {
			return err
		}
	}
	return nil
}

// Cookies are each another, and so are tags, mostly.
func TestNetCookiesDiffer(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	client := p.client()
	p.server(p.s1)
	l := p.listen(p.s1, e.vip.String())
	tags, cookies := map[uint16]bool{}, map[wire.Cookie]bool{}
	const connections = 64
	for range connections {
		p.connect(e.vip, l)
	}
	all, err := client.Connections()
	if err != nil || len(all) != connections {
		t.Fatalf("%d connections, %v", len(all), err)
	}
	for _, c := range all {
		tags[c.Tag], cookies[c.Cookie] = true, true
	}
	if len(cookies) != connections || len(tags) < connections*3/4 {
		t.Errorf("%d cookies, %d tags of %d connections", len(cookies), len(tags), connections)
	}
}
