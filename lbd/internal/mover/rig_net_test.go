package mover

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/apps"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/handover/peer"
	"github.com/manycast/manycast/lbd/migrate"
)

// rig is a user, a router, and two servers with everything that a connection needs to go from one to the other: kernels' sockets, programs, links
// and applications. The control channel alone is in memory. The router leads all users to one server, as by tags.
//
//	user (10.9.0.11) --- router --- s1 (10.0.1.1), s2 (10.0.2.1)
type rig struct {
	t       testing.TB
	user    *testnet.Node
	router  *testnet.Node
	servers map[string]*rigServer
	last    alloc.Allocation
	service service.Service
	front   netip.AddrPort
	beside  func(name string, s *rigServer) Sockets // what stands before the kernel's sockets; nil: nothing
}

type rigServer struct {
	*Mover
	node  *testnet.Node
	plane dataplane.AgentPlane
	apps  *apps.Server
	path  string      // of the applications' socket
	idle  atomic.Bool // the application says nothing
	busy  atomic.Bool // connections that begin now are not given

	mu      sync.Mutex
	refused []error // of links that others wanted
}

func rigAddress(name string) string { return fmt.Sprintf("10.0.%d.1", number(name)) }

func rigAddress6(name string) string { return fmt.Sprintf("2001:db8:0:%d::1", number(name)) }

// front6 is the service's other address: packets of IPv6 take the same ways.
var front6 = netip.MustParseAddrPort("[2001:db8::80]:80")

// newRig has servers whose links are as peers says, which may be nil.
func newRig(t testing.TB, peers func(name string, c *peer.Config)) *rig {
	t.Helper()
	r := newRigBeside(t, testnet.New(t), front, peers, nil)
	r.serve()
	return r
}

// newRigBeside has users go to an address of the service's, and something stand before the kernel's sockets. There are no applications.
func newRigBeside(t testing.TB, n *testnet.Net, at netip.AddrPort, peers func(name string, c *peer.Config), beside func(name string, s *rigServer) Sockets) *rig {
	t.Helper()
	r := &rig{t: t, user: n.Node("user"), router: n.Node("router"), servers: map[string]*rigServer{}, service: web, front: at, beside: beside}
	if at == front6 {
		r.service.VIP6 = front6.Addr()
	}
	n.Link(r.user, "eth0", "10.9.0.11/24", r.router, "users", "10.9.0.254/24")
	r.user.Route("default", "10.9.0.254")
	r.user.Address("eth0", "2001:db8:9::11/64")
	r.router.Address("users", "2001:db8:9::fe/64")
	r.user.Route("::/0", "2001:db8:9::fe")
	r.router.Sysctl("net.ipv4.ip_forward", "1")
	r.router.Sysctl("net.ipv6.conf.all.forwarding", "1")
	hub := control.NewHub(50*time.Millisecond, 5*time.Second) // a busy machine is no dead server
	authority, err := identity.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"s1", "s2"} {
		s := &rigServer{node: n.Node(name)}
		n.Link(s.node, "eth0", rigAddress(name)+"/24", r.router, name, fmt.Sprintf("10.0.%d.254/24", number(name)))
		s.node.Route("default", fmt.Sprintf("10.0.%d.254", number(name)))
		s.node.Address("eth0", rigAddress6(name)+"/64")
		r.router.Address(name, fmt.Sprintf("2001:db8:0:%d::fe/64", number(name)))
		s.node.Route("::/0", fmt.Sprintf("2001:db8:0:%d::fe", number(name)))
		r.servers[name] = s
		r.start(name, hub, authority, filepath.Join(n.BPFFS(), name), peers)
	}
	r.commit("s1")
	return r
}

// start runs what an agent has of it.
func (r *rig) start(name string, hub *control.Hub, authority identity.Authority, bpffs string, peers func(string, *peer.Config)) {
	s := r.servers[name]
	address := netip.MustParseAddr(rigAddress(name))
	member := hub.Join(control.Member{Name: name, Role: control.Server, Address: address}, nil)
	member.SetStatus(control.Status{OK: true})
	id, err := identity.New(authority, identity.Certificate{
		Name: name, Role: control.Server, Address: address, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	network := TLS{Config: peer.Config{Identity: id, Authority: authority.Public(), Boot: bootOf(name)}, Refused: func(_ netip.AddrPort, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.refused = append(s.refused, err)
	}}
	if peers != nil {
		peers(name, &network.Config)
	}
	log := slog.New(slog.DiscardHandler)
	s.do(r.t, func() (err error) {
		s.plane, err = dataplane.OpenAgent(dataplane.AgentConfig{Interface: "eth0", Bpffs: bpffs, Forward: dataplane.Forward{Port: 8464, Address: address}})
		if err == nil {
			network.Listener, err = peer.Listen(rigAddress(name)+":8465", network.Config)
		}
		return err
	})
	sockets := Sockets(socketsIn{s})
	if r.beside != nil {
		sockets = r.beside(name, s)
	}
	s.path = filepath.Join(r.t.TempDir(), "sock")
	s.apps = apps.NewServer(s.path, apps.DefaultLimits(), log)
	s.Mover = New(Config{
		Name: name, Boot: bootOf(name), Address: rigAddress(name) + ":8465", Channel: member, Network: inNode{network, s}, Apps: s.apps,
		Sockets: sockets, Gates: gatesIn{s.plane, s}, Connected: s.connected, Log: log,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = s.apps.Run(ctx) })
	work.Go(func() { _ = s.Run(ctx) })
	<-s.apps.Ready()
	r.t.Cleanup(func() {
		if c, err := s.plane.Counters(); r.t.Failed() {
			r.t.Logf("%s counts %+v, its programs %+v, %v", name, s.Counters(), c, err)
		}
		cancel()
		work.Wait()
		member.Leave()
		s.do(r.t, func() error { return s.plane.Close(false) })
	})
}

func (s *rigServer) do(t testing.TB, f func() error) {
	t.Helper()
	if err := s.node.Do(f); err != nil {
		t.Fatal(err)
	}
}

// What touches sockets and programs does it inside of the server's namespace.

func (s *rigServer) connected(ctx context.Context, vips []netip.Addr, ports []dataplane.Port) (users []netip.AddrPort, err error) {
	doErr := s.node.Do(func() error {
		users, err = dataplane.ConnectedUsers(ctx, vips, ports)
		return err
	})
	return users, doErr
}

type inNode struct {
	TLS
	s *rigServer
}

func (n inNode) Dial(ctx context.Context, address, name string) (l Link, boot uint64, err error) {
	err = n.s.node.Do(func() error {
		l, boot, err = n.TLS.Dial(ctx, address, name)
		return err
	})
	return l, boot, err
}

type socketsIn struct{ s *rigServer }

func (k socketsIn) Freeze(fd int) (socket Socket, state []byte, err error) {
	err = k.s.node.Do(func() error {
		socket, state, err = Kernel{}.Freeze(fd)
		return err
	})
	return socket, state, err
}

func (k socketsIn) Drop(fd int) error { return Kernel{}.Drop(fd) }

func (k socketsIn) Restore(local, remote netip.AddrPort, state []byte) (socket Socket, err error) {
	err = k.s.node.Do(func() error {
		socket, err = Kernel{}.Restore(local, remote, state)
		return err
	})
	return socket, err
}

type gatesIn struct {
	Gates
	s *rigServer
}

func (g gatesIn) Knows(flow dataplane.Flow) (known bool, err error) {
	err = g.s.node.Do(func() error {
		known, err = g.Gates.Knows(flow)
		return err
	})
	return known, err
}

var everybody = portion.Union{{Permit: []portion.Portion{portion.MustParse("0.0.0.0/0.0.0.0")}}}

// commit gives all users to a server.
func (r *rig) commit(owner string) {
	r.t.Helper()
	names := []string{"s1", "s2"}
	o := uint16(number(owner) - 1)
	next := alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: r.last.Epoch.Number + 1}, Slots: web.Slots, Servers: names, Owner: []uint16{o, o}, Standby: []uint16{alloc.None, alloc.None},
		Addresses: []netip.Addr{netip.MustParseAddr(rigAddress("s1")), netip.MustParseAddr(rigAddress("s2"))},
	}
	next.Trail = alloc.Follow(r.last, next, alloc.Holders{"s1": {}, "s2": {}}, nil)
	r.last = next
	for _, name := range []string{owner, names[1-o]} {
		s := r.servers[name]
		of := dataplane.AgentService{
			VIP: front.Addr(), VIP6: r.service.VIP6, Tagged: true, Ports: []dataplane.Port{{Proto: "tcp", Number: front.Port()}}, Keeps: true,
			Chains: []dataplane.Chain{{Users: everybody}},
		}
		if name == owner {
			of.Accept = everybody
			for _, h := range next.ChainOf(0).Hops {
				if h.Server != name {
					of.Chains[0].Hops = append(of.Chains[0].Hops, dataplane.Hop{Address: h.Address, Until: uint32(h.Until.Number)})
				}
			}
		} else {
			of.Chains[0].Owner = next.Address(owner)
		}
		s.do(r.t, func() error {
			return errors.Join(s.plane.SetPeers(next.Addresses), s.plane.Set([]dataplane.AgentService{of}))
		})
		if name == owner {
			r.router.Route(front.Addr().String()+"/32", rigAddress(owner))
			r.router.Route(front6.Addr().String()+"/128", rigAddress6(owner))
		}
	}
	for _, s := range r.servers {
		s.Set([]View{{r.service, next}})
	}
}

// serve has applications: they write a number each millisecond, and read numbers, all 8 bytes. Their state travels.
func (r *rig) serve() {
	r.t.Helper()
	for name, s := range r.servers {
		var l *migrate.Listener
		s.do(r.t, func() (err error) {
			l, err = listenNumbers(r.front, name, s.path)
			return err
		})
		r.t.Cleanup(func() { _ = l.Close() })
		go acceptNumbers(l, name, manner{&s.idle, &s.busy, false})
	}
	r.awaitServed()
}

// awaitServed waits until the applications have found their agents.
func (r *rig) awaitServed() {
	r.t.Helper()
	for name, s := range r.servers {
		testnet.Eventually(r.t, 5*time.Second, func() bool { return s.apps.Serves(r.front) }, name+"'s application has found its agent")
	}
}

func listenNumbers(at netip.AddrPort, name, agent string) (*migrate.Listener, error) {
	return migrate.Listen("tcp", at.String(), migrate.Options{Agent: agent, Name: name, Movable: migrate.Later, Backlog: 16384})
}

// manner is how an application works.
type manner struct {
	idle *atomic.Bool // it says nothing
	busy *atomic.Bool // connections that begin now are not given
	bulk bool         // it writes as much as the kernel takes
}

func acceptNumbers(l *migrate.Listener, name string, m manner) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go serveNumbers(c.(*migrate.Conn), number(name), m)
	}
}

// numbersState is how far both directions are, in bytes.
type numbersState struct{ Out, In uint64 }

func serveNumbers(c *migrate.Conn, writer int, m manner) {
	defer c.Close()
	var s numbersState
	if state, ok := c.Imported(); ok && json.Unmarshal(state, &s) != nil {
		return
	}
	if !m.busy.Load() {
		c.SetMovable(migrate.Now)
	}
	for {
		read := make(chan error, 1)
		go func() { read <- s.read(c) }()
		writeErr := s.write(c, writer, m)
		if !errors.Is(writeErr, migrate.ErrMoving) {
			c.Close() // ends the reader
		}
		if err := <-read; !errors.Is(err, migrate.ErrMoving) || !errors.Is(writeErr, migrate.ErrMoving) {
			return
		}
		state, err := json.Marshal(s)
		if err != nil || !errors.Is(c.Move(state), migrate.ErrStays) {
			return
		}
	}
}

// word are the bytes of the stream of numbers from a place on, up to the number's end. The first byte of each says who writes it.
func word(at uint64, writer int) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(writer)<<56|at/8)[at%8:]
}

// isRight reports whether a byte is the one that has a place in the stream.
func isRight(b byte, at uint64) bool { return at%8 == 0 || b == word(at, 0)[0] }

func (s *numbersState) write(c *migrate.Conn, writer int, m manner) error {
	switch {
	case m.idle.Load():
		<-c.Moving()
		return migrate.ErrMoving
	case m.bulk:
		return s.writeBulk(c, writer)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		n, err := c.Write(word(s.Out, writer))
		s.Out += uint64(n)
		if err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-c.Moving():
		}
	}
}

// bulkRate is how fast the kernel sends bulk, in bytes a second. What the application writes before that waits in its queue.
const bulkRate = 1 << 20

func (s *numbersState) writeBulk(c *migrate.Conn, writer int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	if err := raw.Control(func(fd uintptr) {
		setErr = errors.Join(unix.SetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, bulkRate),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, bulkRate/8))
	}); errors.Join(err, setErr) != nil {
		return errors.Join(err, setErr)
	}
	for {
		var block []byte
		for at := s.Out; len(block) < 4096; at = s.Out + uint64(len(block)) {
			block = append(block, word(at, writer)...)
		}
		n, err := c.Write(block)
		s.Out += uint64(n)
		if err != nil {
			return err
		}
	}
}

// read closes the connection where a byte is not the one that it has to be.
func (s *numbersState) read(c *migrate.Conn) error {
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		for _, b := range buf[:n] {
			if !isRight(b, s.In) {
				c.Close()
				return fmt.Errorf("byte %d is wrong", s.In)
			}
			s.In++
		}
		if err != nil {
			if !errors.Is(err, migrate.ErrMoving) {
				c.Close() // ends the writer
			}
			return err
		}
	}
}

// numbers is a user of it: it writes numbers as fast, and notes how long it waited for one.
type numbers struct {
	net.Conn
	got      atomic.Uint64 // bytes
	longest  atomic.Int64  // ns, from a number to the next one, since it was last taken
	switched atomic.Uint64 // how often another server has gone on
	over     atomic.Int64  // ns, from the last number before that to the next one
	failed   atomic.Pointer[error]
}

func (r *rig) dial() net.Conn {
	r.t.Helper()
	var c net.Conn
	err := r.user.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", r.front.String(), 5*time.Second)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (r *rig) numbers() *numbers {
	return startNumbers(r.dial())
}

func startNumbers(c net.Conn) *numbers {
	n := &numbers{Conn: c}
	go n.write()
	go n.read()
	return n
}

func (n *numbers) fail(err error) { n.failed.CompareAndSwap(nil, &err) }

func (n *numbers) write() {
	for at := uint64(0); ; at += 8 {
		if _, err := n.Write(word(at, 0)); err != nil {
			n.fail(fmt.Errorf("write number %d: %w", at/8, err))
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (n *numbers) read() {
	buf, last, writer := make([]byte, 4096), time.Now(), byte(0)
	for at := uint64(0); ; {
		k, err := n.Read(buf)
		now, was := time.Now(), writer
		for _, b := range buf[:k] {
			if at%8 == 0 {
				writer = b
			} else if !isRight(b, at) {
				n.fail(fmt.Errorf("byte %d is wrong", at))
				return
			}
			at++
		}
		n.longest.Store(max(n.longest.Load(), int64(now.Sub(last))))
		if was != writer {
			n.over.Store(int64(now.Sub(last)))
			n.switched.Add(1)
		}
		last = now
		n.got.Store(at)
		if err != nil {
			n.fail(fmt.Errorf("read number %d: %w", at/8, err))
			return
		}
	}
}

// check fails where the stream is broken.
func (n *numbers) check(t testing.TB) {
	t.Helper()
	if err := n.failed.Load(); err != nil && !strings.Contains((*err).Error(), "use of closed") {
		t.Fatal(*err)
	}
}
