package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/clientstatus"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/record"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
	"github.com/manycast/manycast/lbd/internal/dyntcp/servicekey"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
	"github.com/manycast/manycast/lbd/internal/repair"
)

var clientVIP = netip.MustParseAddrPort("192.0.2.80:80")

// clientNet is a user with lbd client and two servers, which end in this test, each on a link of its own.
type clientNet struct {
	t            *testing.T
	net          *testnet.Net
	user, router *testnet.Node
	nodes        []*testnet.Node
	places       []netip.AddrPort
	servers      []kernel.Server
	dir, socket  string
	bpffs        string
	key          ed25519.PrivateKey
}

func newClientNet(t *testing.T) *clientNet {
	n := testnet.New(t)
	p := &clientNet{
		t: t, net: n, user: n.Node("user"), router: n.Node("router"), nodes: []*testnet.Node{n.Node("s1"), n.Node("s2")},
		places: []netip.AddrPort{netip.MustParseAddrPort("10.2.0.3:80"), netip.MustParseAddrPort("10.3.0.3:80")},
		dir:    t.TempDir(), bpffs: n.BPFFS(), key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)),
	}
	p.socket = filepath.Join(p.dir, "status.sock")
	p.router.Sysctl("net.ipv4.ip_forward", "1")
	for i, node := range append([]*testnet.Node{p.user}, p.nodes...) {
		n.Link(node, "eth0", fmt.Sprintf("10.%d.0.3/24", i+1), p.router, fmt.Sprintf("to%d", i), fmt.Sprintf("10.%d.0.1/24", i+1))
		node.Route("default", fmt.Sprintf("10.%d.0.1", i+1))
	}
	p.router.Route("192.0.2.80/32", "10.2.0.3")
	for i, node := range p.nodes {
		node.Address("lo", "192.0.2.80/32")
		var s kernel.Server
		err := node.Do(func() (err error) {
			s, err = kernel.OpenServer(kernel.Config{Interfaces: []string{"eth0"}, Bpffs: filepath.Join(p.bpffs, node.Name())})
			if err != nil {
				return err
			}
			return s.Set([]kernel.ServerService{{VIP: clientVIP, Destination: p.places[i]}})
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close(false) })
		p.servers = append(p.servers, s)
	}
	return p
}

// configureClient writes a configuration of lbd client, which begins as said, and the record of the service that it names into a directory.
func configureClient(t *testing.T, dir, begin string, vip netip.AddrPort, key ed25519.PrivateKey, published ...netip.Prefix) (file string) {
	t.Helper()
	pinned, err := record.Marshal(record.Record{
		Name: "shop.cast.example.", Address: vip.Addr(), Owner: "ops@example.com",
		Keys: []record.Key{record.NewKey(key.Public().(ed25519.PublicKey))}, Destinations: published,
	})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "shop.yaml"), pinned, 0o600))
	text := begin + fmt.Sprintf("[log]\nlevel = \"debug\"\n[[service]]\nname = \"shop\"\naddresses = [%q]\n", vip)
	file = filepath.Join(dir, "client.toml")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

func (p *clientNet) configure(begin, dir string) (file string) {
	p.t.Helper()
	return configureClient(p.t, dir, begin, clientVIP, p.key, netip.MustParsePrefix("10.2.0.0/24"), netip.MustParsePrefix("10.3.0.0/24"))
}

// argv is lbd client with a pinned key.
func (p *clientNet) argv() []string {
	p.t.Helper()
	return clientCommand(p.t, p.configure(clientBegin(p.bpffs, p.socket, p.dir), p.dir))
}

// clientBegin is of a client without systemd.
func clientBegin(bpffs, socket, dir string) string {
	return fmt.Sprintf("interfaces = [\"eth0\"]\nbpffs = %q\nsocket = %q\nkeys.pinned = [%q]\n", filepath.Join(bpffs, "client"), socket, filepath.Join(dir, "shop.yaml"))
}

func clientCommand(t *testing.T, file string) []string {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	return []string{"env", asLBD + "=1", self, "client", "--config", file}
}

// client starts it and waits until connections can move.
func (p *clientNet) client(argv []string) *testnet.Process {
	p.t.Helper()
	client := p.user.Start(argv...)
	testnet.Eventually(p.t, 20*time.Second, func() bool { return strings.Contains(client.Output(), "msg=ready") }, "lbd client is ready")
	return client
}

func (p *clientNet) status() clientstatus.Status {
	p.t.Helper()
	s, err := clientstatus.Ask(p.t.Context(), p.socket)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// connect makes a connection from the user to the first server.
func (p *clientNet) connect() (user, server *net.TCPConn) {
	p.t.Helper()
	l, err := p.nodes[0].Listen("tcp", clientVIP.String())
	if err != nil {
		p.t.Fatal(err)
	}
	defer l.Close()
	var c net.Conn
	err = p.user.Do(func() (err error) {
		d := net.Dialer{Timeout: 20 * time.Second}
		c, err = d.DialContext(context.Background(), "tcp", clientVIP.String())
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// echo sends a word both ways.
func (p *clientNet) echo(a, b *net.TCPConn) {
	p.t.Helper()
	for _, way := range [][2]*net.TCPConn{{a, b}, {b, a}} {
		if err := way[1].SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			p.t.Fatal(err)
		}
		_, err := io.WriteString(way[0], "hello")
		word := make([]byte, 5)
		if err == nil {
			_, err = io.ReadFull(way[1], word)
		}
		if err != nil || string(word) != "hello" {
			p.t.Fatalf("%q, %v", word, err)
		}
	}
}

func clientFlow(c *net.TCPConn) kernel.Flow {
	user := c.LocalAddr().(*net.TCPAddr).AddrPort()
	return kernel.Flow{User: netip.AddrPortFrom(user.Addr().Unmap(), user.Port()), VIP: clientVIP}
}

func (p *clientNet) held(server int, c *net.TCPConn) (h kernel.Held) {
	p.t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		e := raw.Control(func(fd uintptr) { h, err = p.servers[server].Held(int(fd)) })
		err = errors.Join(err, e)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return h
}

// carry takes a connection from one server to the other, silently.
func (p *clientNet) carry(flow kernel.Flow, c *net.TCPConn, from, to int, h kernel.Held) *net.TCPConn {
	p.t.Helper()
	silent := "table inet gate { chain i { type filter hook input priority 0; ip daddr 192.0.2.80 drop; }; }"
	if out, err := p.nodes[from].Run("nft", silent); err != nil {
		p.t.Fatal(out, err)
	}
	if _, err := p.nodes[to].Run("nft", "delete table inet gate"); err != nil && h.Sequence > 1 {
		p.t.Fatal(err)
	}
	file, err := c.File()
	if err != nil {
		p.t.Fatal(err)
	}
	c.Close()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	frozen, err := repair.Freeze(fd)
	if err != nil {
		p.t.Fatal(err)
	}
	file.Close()
	state := frozen.State
	err = errors.Join(frozen.Close(), p.servers[from].Follow([]kernel.Flow{flow}), p.servers[to].Forget([]kernel.Flow{flow}))
	if err != nil {
		p.t.Fatal(err)
	}
	var restored *repair.Restored
	err = p.nodes[to].Do(func() (err error) {
		restored, err = repair.Restore(state)
		return err
	})
	if err == nil {
		err = errors.Join(p.servers[to].Adopt(restored.FD(), h), restored.Thaw())
	}
	if err != nil {
		p.t.Fatal(err)
	}
	f := os.NewFile(uintptr(restored.FD()), "connection")
	defer f.Close()
	moved, err := net.FileConn(f)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { moved.Close() })
	return moved.(*net.TCPConn)
}

// send sends a message from a node to the user's port for them.
func (p *clientNet) send(from *testnet.Node, raw []byte) {
	p.t.Helper()
	err := from.Do(func() error {
		c, err := net.Dial("udp", fmt.Sprintf("10.1.0.3:%d", wire.Port))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(raw)
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// announce is what the second server's agent does: it tells the user, again and again, until it hears it.
func (p *clientNet) announce(at int, c wire.Change, places []netip.AddrPort) movement.Report {
	p.t.Helper()
	ring := &servicekey.Ring{}
	ring.Set([]keyfile.Group{{Name: "shop.cast.example.", Address: clientVIP.Addr(), NotBefore: time.Now().Add(-time.Hour), Private: p.key}})
	a := movement.NewAnnouncer(movement.AnnouncerLimits{}, ring.Sign)
	actions := a.Took(time.Now(), c, places)
	for limit := time.After(20 * time.Second); ; {
		for _, action := range actions {
			switch action := action.(type) {
			case movement.Send:
				p.send(p.nodes[at], action.Raw)
			case movement.Report:
				return action
			}
		}
		select {
		case h := <-p.servers[at].Heard():
			actions = a.Heard(time.Now(), movement.Flow(h.Flow), p.places[at])
		case <-time.After(5 * time.Millisecond):
			actions = a.Tick(time.Now())
		case <-limit:
			p.t.Fatal("no report of the move")
		}
	}
}

// A connection moves between servers with lbd client as it is, and its application sees its peer all the time. Who forges a move is
// refused for the reason why, and counted.
func TestNetClientFollows(t *testing.T) {
	p := newClientNet(t)
	argv := p.argv()
	unit := append([]string{"setpriv", "--bounding-set=-all,+net_admin,+bpf", "--inh-caps=-all,+net_admin,+bpf"}, argv...) // has these capabilities alone
	client := p.client(unit)
	if out, err := p.user.Run(argv...); err == nil || !strings.Contains(out, "in use by another process") {
		t.Errorf("a second one: %v, %s", err, out)
	}
	user, server := p.connect()
	p.echo(user, server)
	flow := clientFlow(user)
	s := p.status()
	if len(s.Connections) != 1 || s.Connections[0].User != flow.User || s.Connections[0].Destination != p.places[0] || s.Connections[0].Service != "shop" ||
		len(s.Connections[0].Cookie) != 8 || len(s.Services) != 1 || s.Services[0].Keys != 1 || len(s.Services[0].Published) != 2 {
		t.Fatalf("status %+v", s)
	}
	p.forge(flow, p.held(0, server))

	places := []netip.AddrPort{clientVIP, p.places[0]}
	for sequence := uint64(1); sequence <= 4; sequence++ {
		from, to := int(1-sequence%2), int(sequence%2)
		h := p.held(from, server)
		h.Sequence, h.Heard, h.Destination = sequence, false, p.places[to]
		server = p.carry(flow, server, from, to, h)
		change := wire.Change{
			Tag: h.Tag, Cookie: h.Cookie, User: flow.User, VIP: flow.VIP, Old: p.places[from], New: p.places[to], Sequence: sequence,
		}
		if _, err := io.WriteString(user, "early"); err != nil { // to where it was
			t.Fatal(err)
		}
		if r := p.announce(to, change, places); r.Outcome != movement.Arrived || r.Sequence != sequence {
			t.Errorf("move %d: %+v", sequence, r)
		}
		if got := p.status().Connections[0].Destination; got != p.places[to] {
			t.Errorf("after move %d the user's host sends to %s", sequence, got)
		}
		early := make([]byte, 5)
		if err := server.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(server, early); err != nil || string(early) != "early" {
			t.Fatalf("%q, %v", early, err)
		}
		p.echo(user, server)
		places = []netip.AddrPort{p.places[to]}
		if sequence == 2 { // the next process goes on with what there is
			client.Signal(syscall.SIGUSR2)
			if err := client.Wait(); err != nil {
				t.Fatal(err)
			}
			p.echo(user, server)
			client = p.client(unit)
		}
	}
	if s := p.status(); s.Connections[0].Moves != 4 || s.Followed != 2 {
		t.Errorf("after four moves, two of them since the restart: %+v", s)
	}
	if got := user.RemoteAddr().String(); got != clientVIP.String() {
		t.Errorf("the application sees %s", got)
	}

	client.Signal(syscall.SIGTERM)
	if err := client.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(p.bpffs, "client")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins are left: %v", err)
	}
	if out, err := p.user.Run("tc", "filter", "show", "dev", "eth0", "ingress"); err != nil || out != "" {
		t.Errorf("filters are left: %s, %v", out, err)
	}
}

// forge sends what others than the service would, and wants each counted by its reason.
func (p *clientNet) forge(flow kernel.Flow, h kernel.Held) {
	p.t.Helper()
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	id := func(k ed25519.PrivateKey) uint32 { return record.NewKey(k.Public().(ed25519.PublicKey)).ID }
	for _, tt := range []struct {
		want movement.Reason
		key  ed25519.PrivateKey
		as   func(*wire.Change)
	}{
		{movement.WrongCookie, p.key, func(c *wire.Change) { c.Cookie[7] ^= 1 }},
		{movement.WrongTag, p.key, func(c *wire.Change) { c.Tag ^= 1 }},
		{movement.UnknownConnection, p.key, func(c *wire.Change) { c.VIP = netip.AddrPortFrom(c.VIP.Addr(), 81) }},
		{movement.UnknownKey, other, func(c *wire.Change) { c.KeyID = id(other) }},
		{movement.BadSignature, other, func(*wire.Change) {}},
		{movement.OutsideSet, p.key, func(c *wire.Change) { c.New = netip.MustParseAddrPort("10.9.0.1:80") }},
		{movement.Expired, p.key, func(c *wire.Change) { c.Time = c.Time.Add(-time.Hour) }},
		{movement.Future, p.key, func(c *wire.Change) { c.Time = c.Time.Add(time.Hour) }},
	} {
		c := wire.Change{
			Tag: h.Tag, Cookie: h.Cookie, User: flow.User, VIP: flow.VIP, Old: p.places[0], New: p.places[1], Sequence: 1, Time: time.Now(), KeyID: id(p.key),
		}
		tt.as(&c)
		signed, err := wire.Sign(c, tt.key)
		if err != nil {
			p.t.Fatal(err)
		}
		before := p.status().Refused[tt.want.String()]
		p.send(p.router, signed.Raw)
		testnet.Eventually(p.t, 20*time.Second, func() bool { return p.status().Refused[tt.want.String()] == before+1 }, tt.want.String(), " is counted")
	}
	if s := p.status(); s.Followed != 0 || slices.ContainsFunc(s.Connections, func(c clientstatus.Connection) bool { return c.Moves != 0 }) {
		p.t.Errorf("a forged move was followed: %+v", s)
	}
}
