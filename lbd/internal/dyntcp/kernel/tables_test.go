package kernel

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/manycast/manycast/internal/testnet"
)

// entriesOf counts what a map has.
func entriesOf(t testing.TB, m *ebpf.Map) (n int) {
	t.Helper()
	key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	all := m.Iterate()
	for all.Next(&key, &value) {
		n++
	}
	if err := all.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// What a server knows of a connection goes with it, whoever closes first, or resets it.
func TestNetServerForgets(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			p.client()
			made := p.server(p.s1).(*server).objects.Made
			l := p.listen(p.s1, e.vip.String())
			for how, end := range map[string]func(c pair){
				"user first": func(c pair) {
					c.user.Close()
					c.server.Read(make([]byte, 1))
					c.server.Close()
				},
				"server first": func(c pair) {
					c.server.Close()
					c.user.Read(make([]byte, 1))
					c.user.Close()
				},
				"reset": func(c pair) {
					c.user.SetLinger(0)
					c.user.Close()
				},
			} {
				c := p.connect(e.vip, l)
				p.echo(c)
				if n := entriesOf(t, made); n != 1 {
					t.Errorf("%s: %d entries of a connection", how, n)
				}
				end(c)
				testnet.Eventually(t, 20*time.Second, func() bool { return entriesOf(t, made) == 0 }, how+": the entry goes")
			}
		})
	}
}

// A server whose table is full keeps what it knows of a connection with the socket. What came by Adopt is there, too.
func TestNetServerTableIsFull(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	client, s := p.client(), p.server(p.s1).(*server)
	l := p.listen(p.s1, e.vip.String())
	before := p.connect(e.vip, l)
	p.echo(before)
	fill(t, s.objects.Made)
	c := p.connect(e.vip, l)
	p.echo(c)
	is := connectionOf(t, client, c.flow())
	if h := p.held(s, c); h.Cookie != is.Cookie || h.Tag != is.Tag || !h.Heard || h.Destination != e.s1 {
		t.Errorf("the user's host has %+v, the server %+v", is, h)
	}
	if n := serverCounters(t, s); n.Established != 2 || n.NoMemory != 0 {
		t.Errorf("counted %+v", n)
	}
	adopted := Held{Tag: 1, Cookie: is.Cookie, Sequence: 9, Destination: e.also}
	p.withSocket(before.server, func(fd int) error { return s.Adopt(fd, adopted) })
	if h := p.held(s, before); h != adopted {
		t.Errorf("%+v, adopted %+v", h, adopted)
	}
	var found Held
	p.in(p.s1, func() (err error) {
		found, err = s.Find(before.flow())
		return err
	})
	if found != adopted {
		t.Errorf("found %+v, adopted %+v", found, adopted)
	}
}

// fill gives a map of connections others until it has no room.
func fill(t testing.TB, m *ebpf.Map) {
	t.Helper()
	key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	for i := range m.MaxEntries() {
		binary.NativeEndian.PutUint32(key, i)
		if m.Put(key, value) != nil {
			return
		}
	}
	t.Fatal("there is room still")
}

// A place that another VIP's connections were led to first is told apart by the connection.
func TestNetPlaceOfTwoVIPs(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	user := p.client()
	p.server(p.s1)
	u := user.(*client)
	if err := u.objects.Leads.Put(newPlace(e.s1), leadMapValue{VIP: newPlace(netip.AddrPortFrom(e.vip.Addr(), 443))}); err != nil {
		t.Fatal(err)
	}
	c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
	p.echo(c)
	if is := connectionOf(t, user, c.flow()); is.Destination != e.s1 {
		t.Errorf("the user's host has %+v", is)
	}
	if n := entriesOf(t, u.objects.Origins); n != 1 {
		t.Errorf("%d origins", n)
	}
	c.user.SetLinger(0)
	c.user.Close()
	testnet.Eventually(t, 20*time.Second, func() bool { return entriesOf(t, u.objects.Connections)+entriesOf(t, u.objects.Origins) == 0 }, "both entries go")
}

// leadMapValue is struct lead of bpf/client.bpf.c.
type leadMapValue struct {
	VIP placeMapValue
	_   uint64 // when frames were for the VIP's next hop
}

// Connections of a service that a server no more has go on as they are; new ones are plain. Those of IPv6 are at the VIP until they move.
func TestNetConnectionsOutliveTheirService(t *testing.T) {
	p, e := newPath(t), families["IPv4"]
	p.client()
	s := p.server(p.s1)
	l := p.listen(p.s1, e.vip.String())
	c := p.connect(e.vip, l)
	p.echo(c)
	before := serverCounters(t, s)
	p.in(p.s1, func() error { return s.Set(nil) })
	p.echo(c)
	p.echo(p.connect(e.vip, l))
	if n := serverCounters(t, s); n.Received == before.Received || n.Sent == before.Sent || n.Established != before.Established {
		t.Errorf("counted %+v, before %+v", n, before)
	}
}
