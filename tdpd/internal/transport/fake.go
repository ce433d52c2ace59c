package transport

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/manycast/manycast/tdpd/internal/discovery"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// Fabric is a network of Fakes: links between interfaces of two, and a way from each transport address to each other one.
type Fabric struct {
	mu    sync.Mutex
	fakes []*Fake
	links []*Link
}

// Link joins interfaces of two Fakes.
type Link struct {
	fabric *Fabric
	ends   [2]end
	cut    bool
}

type end struct {
	fake  *Fake
	iface string
	addr  netip.Addr
}

// NewFabric returns a network without anything.
func NewFabric() *Fabric { return &Fabric{} }

// Fake is a Network within a Fabric. Connections are pipes: what they carry is LDP all the same.
type Fake struct {
	fabric     *Fabric
	id         wire.Identifier
	transports []netip.Addr
	events     chan Event
	quit       chan struct{}
	working    sync.WaitGroup

	// Of the fabric's lock.
	runs    map[string]bool // interfaces
	secrets map[netip.Addr]string
	pipes   map[net.Conn]netip.Addr // ends of connections, by whom they lead to
	closed  bool
}

// Router adds a router. One whose address was there already takes its place, as after a restart.
func (f *Fabric) Router(id wire.Identifier, transports ...netip.Addr) *Fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := &Fake{
		fabric: f, id: id, transports: transports, events: make(chan Event), quit: make(chan struct{}),
		runs: map[string]bool{}, secrets: map[netip.Addr]string{}, pipes: map[net.Conn]netip.Addr{},
	}
	for i, other := range f.fakes {
		if other.id != id {
			continue
		}
		for _, l := range f.links {
			for e := range l.ends {
				if l.ends[e].fake == other {
					l.ends[e].fake = n
				}
			}
		}
		f.fakes[i] = n
		return n
	}
	f.fakes = append(f.fakes, n)
	return n
}

// Link joins two interfaces, of which hellos come from these addresses.
func (f *Fabric) Link(a *Fake, ifa string, addrA netip.Addr, b *Fake, ifb string, addrB netip.Addr) *Link {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &Link{fabric: f, ends: [2]end{{a, ifa, addrA}, {b, ifb, addrB}}}
	f.links = append(f.links, l)
	return l
}

// Cut lets no hellos through, or again.
func (l *Link) Cut(cut bool) {
	l.fabric.mu.Lock()
	defer l.fabric.mu.Unlock()
	l.cut = cut
}

// Events implements Network.
func (n *Fake) Events() <-chan Event { return n.events }

// SetInterfaces implements Network.
func (n *Fake) SetInterfaces(all []discovery.Interface) error {
	n.fabric.mu.Lock()
	defer n.fabric.mu.Unlock()
	n.runs = map[string]bool{}
	for _, i := range all {
		n.runs[i.Name] = true
	}
	return nil
}

// SetSecret implements Network.
func (n *Fake) SetSecret(peer netip.Addr, secret string) error {
	n.fabric.mu.Lock()
	defer n.fabric.mu.Unlock()
	n.secrets[peer] = secret
	return nil
}

// Hello implements Network; the hello goes through its encoding.
func (n *Fake) Hello(s discovery.Send) error {
	datagram, err := wire.AppendPDU(nil, n.id, wire.DefaultMaxPDULength, s.Hello)
	if err != nil {
		return err
	}
	sender, hello, err := wire.ParseHello(datagram)
	if err != nil {
		return err
	}
	n.fabric.mu.Lock()
	defer n.fabric.mu.Unlock()
	if s.Interface == "" {
		if to := n.fabric.at(s.To); to != nil {
			to.hear(Hello{Received: discovery.Received{Source: n.transport(s.To), Sender: sender, Hello: hello}})
		}
		return nil
	}
	for _, l := range n.fabric.links {
		for i, from := range l.ends {
			if to := l.ends[1-i]; !l.cut && from.fake == n && from.iface == s.Interface && from.addr.Is4() == s.To.Is4() && to.fake.runs[to.iface] {
				to.fake.hear(Hello{Received: discovery.Received{Interface: to.iface, Source: from.addr, Sender: sender, Hello: hello}})
			}
		}
	}
	return nil
}

// hear brings an event that nobody waits for to be taken.
func (n *Fake) hear(e Event) {
	if n.closed {
		return
	}
	n.working.Go(func() {
		select {
		case n.events <- e:
		case <-n.quit:
		}
	})
}

func (f *Fabric) at(a netip.Addr) *Fake {
	for _, n := range f.fakes {
		if n.transport(a) == a && !n.closed {
			return n
		}
	}
	return nil
}

// transport is the router's address of the family of a.
func (n *Fake) transport(a netip.Addr) netip.Addr {
	for _, t := range n.transports {
		if t.Is4() == a.Is4() {
			return t
		}
	}
	return netip.Addr{}
}

// Connect implements Network.
func (n *Fake) Connect(o Options) Conn {
	c := newConn(n.id, o.Peer, n.events, n.quit)
	n.fabric.mu.Lock()
	defer n.fabric.mu.Unlock()
	peer := n.fabric.at(o.Peer)
	if peer == nil || peer.secrets[o.Local] != o.Secret {
		n.working.Go(func() {
			c.fail()
			c.tell(Failed{c, errors.New("connection refused")})
		})
		return c
	}
	near, far := net.Pipe()
	n.run(c, near, Connected{c})
	accepted := newConn(peer.id, o.Local, peer.events, peer.quit)
	peer.run(accepted, far, Accepted{accepted})
	return c
}

func (n *Fake) run(c *conn, pipe net.Conn, first Event) {
	n.pipes[pipe] = c.remote
	n.working.Go(func() {
		defer func() {
			n.fabric.mu.Lock()
			defer n.fabric.mu.Unlock()
			delete(n.pipes, pipe)
		}()
		if !c.tell(first) {
			pipe.Close()
			return
		}
		c.run(pipe)
	})
}

// Break ends all connections, as a cable's end or a process's would.
func (n *Fake) Break() {
	n.fabric.mu.Lock()
	defer n.fabric.mu.Unlock()
	for pipe := range n.pipes {
		pipe.Close()
	}
}

// Close implements Network.
func (n *Fake) Close() {
	n.fabric.mu.Lock()
	n.closed = true
	n.fabric.mu.Unlock()
	close(n.quit)
	n.working.Wait()
}
