package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/clientstatus"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/channel"
	"github.com/manycast/manycast/internal/control/controltest"
	"github.com/manycast/manycast/internal/control/transport"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/migrate"
)

const dynamicTagged = "name: web\nvip: 192.0.2.80\nvip6: 2001:db8::80\nmode: tags\nports: [tcp/80]\nslots: suffix/1\nhandover: [transfer, forward]\ndynamic: true\n"

// movingAgents are dynamicAgents with a test as their leader and applications whose connections move, and a user's host with lbd client.
type movingAgents struct {
	*dynamicAgents
	vip    netip.AddrPort
	held   alloc.Allocation
	leader announce.Announcer
	heard  chan announce.Message
	argv   []string // of lbd client
	client *testnet.Process
	socket string
}

func newMovingAgents(t *testing.T, vip netip.AddrPort) *movingAgents {
	m := &movingAgents{dynamicAgents: newDynamicAgents(t), vip: vip, held: takeoverAllocation(), heard: make(chan announce.Message, 64)}
	m.start(dynamicTagged, asIs)
	m.lead()
	for _, name := range m.held.Servers {
		m.serve(name)
	}
	published := netip.MustParsePrefix("10.9.0.0/24")
	if vip.Addr().Is6() {
		published = netip.MustParsePrefix("2001:db8:9::/64")
	}
	dir := t.TempDir()
	m.socket = filepath.Join(dir, "status.sock")
	m.argv = clientCommand(t, configureClient(t, dir, clientBegin(m.net.BPFFS(), m.socket, dir), vip, dynamicKey, published))
	m.begin()
	return m
}

// lead makes this test the leader, by the control channel alone.
func (m *movingAgents) lead() {
	m.t.Helper()
	address, cfg, log := netip.MustParseAddr("10.9.0.9"), control.DefaultConfig(), slog.New(slog.DiscardHandler)
	var c *channel.Channel
	must(m.t, m.nodes["leader"].Do(func() error {
		link, err := transport.OpenLink(transport.LinkConfig{
			Group: controltest.Group, Port: cfg.Port, Address: address, Interfaces: []string{"eth0"}, TTL: cfg.TTL, Log: log,
		})
		if err != nil {
			return err
		}
		c, err = channel.New(channel.Config{
			Identity: controltest.Identity("d1", control.Director, true, address, time.Now()), Authority: controltest.Authority().Public(), Group: controltest.Group,
			Heartbeat: cfg.Heartbeat, DeadAfter: cfg.DeadAfter, FrameMax: cfg.FrameMax, Transport: runsIn{link, m.nodes["leader"]}, Random: rand.Reader, Log: log,
		})
		return err
	}))
	c.SetKeys([]keyfile.Group{controltest.GroupKey(1)})
	m.leader = announce.NewControl(c, log)
	stop, err := m.leader.Listen(func(said announce.Message) {
		select {
		case m.heard <- said:
		default:
		}
	})
	must(m.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	m.t.Cleanup(func() {
		stop()
		cancel()
		if err := <-ended; err != nil {
			m.t.Error(err)
		}
	})
}

// runsIn is a transport that looks interfaces up in a node.
type runsIn struct {
	transport.Transport
	node *testnet.Node
}

// Run implements transport.Transport.
func (r runsIn) Run(ctx context.Context, packets chan<- transport.Packet) error {
	return r.node.Do(func() error { return r.Transport.Run(ctx, packets) })
}

// serve answers users of a server with what they say, and goes on with those of others.
func (m *movingAgents) serve(name string) {
	m.t.Helper()
	anywhere := netip.IPv4Unspecified()
	if m.vip.Addr().Is6() {
		anywhere = netip.IPv6Unspecified()
	}
	var l net.Listener
	must(m.t, m.nodes[name].Do(func() (err error) {
		l, err = migrate.Listen("tcp", netip.AddrPortFrom(anywhere, m.vip.Port()).String(), migrate.Options{Agent: m.apps[name], Name: "echo"})
		return err
	}))
	m.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go echoAndMove(c.(*migrate.Conn))
		}
	}()
}

// echoAndMove takes along what it has read and not yet written.
func echoAndMove(c *migrate.Conn) {
	defer c.Close()
	rest, _ := c.Imported()
	buf := make([]byte, 64<<10)
	c.SetMovable(migrate.Now)
	for {
		var err error
		var n int
		if len(rest) == 0 {
			n, err = c.Read(buf)
			rest = buf[:n]
		}
		if err == nil {
			n, err = c.Write(rest)
			rest = rest[n:]
		}
		if errors.Is(err, migrate.ErrMoving) {
			err = c.Move(rest)
			if errors.Is(err, migrate.ErrStays) {
				err = nil
			} else if err == nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// begin starts lbd client.
func (m *movingAgents) begin() {
	m.t.Helper()
	m.client = m.user.Start(m.argv...)
	testnet.Eventually(m.t, 20*time.Second, func() bool { return contains(m.client, "msg=ready") }, "lbd client is ready")
}

// move gives all users of one server to the other; between is done when both are prepared.
func (m *movingAgents) move(between func()) {
	m.t.Helper()
	next := m.held
	next.Epoch.Number++
	next.Owner, next.Standby = next.Standby, next.Owner
	next.Trail = alloc.Follow(m.held, next, alloc.Holders{"s1": {}, "s2": {}}, nil)
	prepared := map[string]bool{}
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for limit := time.After(20 * time.Second); len(prepared) < 2; {
		must(m.t, m.leader.Send(announce.Announce{Service: "web", Allocation: next, Previous: m.held})) // who has just begun, or was silent, takes no part
		for waits := true; waits && len(prepared) < 2; {
			select {
			case said := <-m.heard:
				if p, ok := said.(announce.Prepared); ok && p.Epoch == next.Epoch {
					prepared[p.Server] = true
				}
			case <-again.C:
				waits = false
			case <-limit:
				m.t.Fatalf("prepared for %v are %v", next.Epoch, prepared)
			}
		}
	}
	between()
	must(m.t, m.leader.Send(announce.Commit{Service: "web", Allocation: next}))
	m.held = next
}

// live says whether users' connections can move and live at a place, after so many moves.
func (m *movingAgents) live(place netip.AddrPort, moves uint32, users ...netip.AddrPort) bool {
	m.t.Helper()
	s, err := clientstatus.Ask(m.t.Context(), m.socket)
	must(m.t, err)
	return !slices.ContainsFunc(users, func(user netip.AddrPort) bool {
		return !slices.ContainsFunc(s.Connections, func(c clientstatus.Connection) bool {
			return c.User == user && c.Destination == place && c.Moves == moves
		})
	})
}

func (m *movingAgents) place(server string) netip.AddrPort {
	a := map[string]string{"s1": "10.9.0.1", "s2": "10.9.0.2"}
	if m.vip.Addr().Is6() {
		a = map[string]string{"s1": "2001:db8:9::1", "s2": "2001:db8:9::2"}
	}
	return netip.AddrPortFrom(netip.MustParseAddr(a[server]), m.vip.Port())
}

// counting is a connection whose user sends numbers all the time, and gets them back.
type counting struct {
	conn *net.TCPConn
	came atomic.Uint64
	err  chan error
}

// count makes such a connection, as soon as one can be had that can move and lives there.
func (m *movingAgents) count(place netip.AddrPort) *counting {
	m.t.Helper()
	n := &counting{err: make(chan error, 1)}
	testnet.Eventually(m.t, 20*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(m.t.Context(), time.Second)
		defer cancel()
		c, err := m.user.DialContext(ctx, "tcp", m.vip.String())
		if err != nil {
			return false
		}
		n.conn = c.(*net.TCPConn)
		if !m.live(place, 0, n.user()) {
			c.Close()
			return false
		}
		return true
	}, "a connection that lives at ", place)
	m.t.Cleanup(func() { n.conn.Close() })
	go n.send()
	go func() { n.err <- n.receive() }()
	return n
}

func (n *counting) user() netip.AddrPort { return n.conn.LocalAddr().(*net.TCPAddr).AddrPort() }

func (n *counting) send() {
	const each = 2048 // 16 KiB, 500 times a second
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for next := uint64(0); ; next += each {
		var p []byte
		for i := range uint64(each) {
			p = binary.BigEndian.AppendUint64(p, next+i)
		}
		if _, err := n.conn.Write(p); err != nil {
			return // the receiver says so
		}
		<-tick.C
	}
}

func (n *counting) receive() error {
	p := make([]byte, 8)
	for r := bufio.NewReader(n.conn); ; n.came.Add(1) {
		if _, err := io.ReadFull(r, p); err != nil {
			return fmt.Errorf("after %d numbers: %w", n.came.Load(), err)
		}
		if got := binary.BigEndian.Uint64(p); got != n.came.Load() {
			return fmt.Errorf("%d came in the place of %d", got, n.came.Load())
		}
	}
}

// goesOn waits until it has got many more of its numbers.
func (n *counting) goesOn(t *testing.T, when string) {
	t.Helper()
	until := n.came.Load() + 20_000
	testnet.Eventually(t, 20*time.Second, func() bool {
		select {
		case err := <-n.err:
			t.Fatalf("%s: %v", when, err)
		default:
		}
		return n.came.Load() >= until
	}, when, ": it goes on")
}

// peer is whom the kernel tells the application that it is connected to.
func (n *counting) peer(t *testing.T) (peer netip.AddrPort) {
	t.Helper()
	raw, err := n.conn.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		switch a, err := unix.Getpeername(int(fd)); a := a.(type) {
		case *unix.SockaddrInet4:
			peer = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
		case *unix.SockaddrInet6:
			peer = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
		default:
			t.Error(err)
		}
	}))
	return peer
}

// TestNetConnectionsMoveBetweenAgents: connections under load go from one agent's server to another's and back, and lbd client follows, also where it is restarted
// or killed while they move. No byte is lost, and the application sees the VIP.
func TestNetConnectionsMoveBetweenAgents(t *testing.T) {
	for name, vip := range map[string]netip.AddrPort{"IPv4": dynamicVIP, "IPv6": dynamicVIP6} {
		t.Run(name, func(t *testing.T) { moveBetweenAgents(t, newMovingAgents(t, vip)) })
	}
}

func moveBetweenAgents(t *testing.T, m *movingAgents) {
	first := m.place("s1")
	if m.vip.Addr().Is6() {
		first = m.vip // no SYN-ACK has said more
	}
	var all []*counting
	var users []netip.AddrPort
	for range 3 {
		n := m.count(first)
		all, users = append(all, n), append(users, n.user())
	}
	goOn := func(when string) {
		t.Helper()
		for _, n := range all {
			n.goesOn(t, when)
		}
	}
	goOn("at first")
	for i, end := range []syscall.Signal{0, 0, syscall.SIGUSR2, syscall.SIGKILL, syscall.SIGUSR2, syscall.SIGKILL, 0, 0} {
		to := []string{"s2", "s1"}[i%2]
		when := fmt.Sprintf("move %d, to %s, with signal %d", i+1, to, end)
		m.move(func() {
			if end != 0 {
				m.client.Signal(end)
				if err := m.client.Wait(); (err != nil) != (end == syscall.SIGKILL) {
					t.Errorf("lbd client has ended with %v", err)
				}
			}
		})
		if end != 0 {
			goOn(when + ", nobody follows")
			m.begin()
		}
		testnet.Eventually(t, 20*time.Second, func() bool { return m.live(m.place(to), uint32(i+1), users...) }, when, ": the user's host follows")
		goOn(when)
	}
	for _, n := range all {
		if got := n.peer(t); got != m.vip {
			t.Errorf("the application sees %v", got)
		}
		n.conn.Close()
	}
	m.client.Signal(syscall.SIGTERM)
	must(t, m.client.Wait())
	m.stop()
}
