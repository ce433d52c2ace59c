package dataplane

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/testnet"
)

// site is a router between users and servers, each server on a subnet of its own; rp_filter is strict. The router brings packets
// to the VIP, as by tags, to the one server that owns all users: move changes it. Epochs count from 1.
//
//	users (10.9.0.11, 2001:db8:9::11) --- router --- a (10.0.1.1), b (10.0.2.1), c, d, e
type site struct {
	t       testing.TB
	net     *testnet.Net
	users   *testnet.Node
	router  *testnet.Node
	servers map[string]*testnet.Node
	planes  map[string]AgentPlane
	bpffs   string
	owners  []string // of each epoch so far
	ask     bool     // of the chains
	idle    time.Duration
}

const (
	siteUser  = "10.9.0.11"
	siteUser6 = "2001:db8:9::11"
	testVIP6  = "2001:db8::80"
	sitePort  = 8464
	sinkPort  = 9 // whose socket nobody reads
)

var everybody = portion.Union{{Permit: []portion.Portion{portion.MustParse("0.0.0.0/0.0.0.0")}}}

func newSite(t testing.TB, names ...string) *site {
	t.Helper()
	n := testnet.New(t)
	s := &site{t: t, net: n, users: n.Node("users"), router: n.Node("router"), bpffs: n.BPFFS(),
		servers: make(map[string]*testnet.Node), planes: make(map[string]AgentPlane)}
	n.Link(s.users, "eth0", siteUser+"/24", s.router, "users", "10.9.0.254/24")
	s.users.Address("eth0", siteUser6+"/64")
	s.router.Address("users", "2001:db8:9::fe/64")
	s.users.Route("default", "10.9.0.254")
	s.users.Route("2000::/3", "2001:db8:9::fe")
	s.router.Sysctl("net.ipv4.ip_forward", "1")
	s.router.Sysctl("net.ipv6.conf.all.forwarding", "1")
	for i, name := range names {
		node := n.Node(name)
		n.Link(node, "eth0", s.address(name).String()+"/24", s.router, name, fmt.Sprintf("10.0.%d.254/24", i+1))
		node.Address("eth0", fmt.Sprintf("2001:db8:%d::1/64", i+1))
		s.router.Address(name, fmt.Sprintf("2001:db8:%d::fe/64", i+1))
		node.Route("default", fmt.Sprintf("10.0.%d.254", i+1))
		node.Route("2000::/3", fmt.Sprintf("2001:db8:%d::fe", i+1))
		for _, scope := range []string{"all", "eth0"} {
			node.Sysctl("net.ipv4.conf."+scope+".rp_filter", "1")
		}
		s.servers[name] = node
	}
	return s
}

func siteIndex(name string) int { return int(name[0]-'a') + 1 }

func (s *site) address(name string) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, byte(siteIndex(name)), 1})
}

func (s *site) in(name string, f func() error) {
	s.t.Helper()
	if err := s.servers[name].Do(f); err != nil {
		s.t.Fatalf("%s: %+v", name, err)
	}
}

func (s *site) open(name string) {
	s.t.Helper()
	s.in(name, func() (err error) {
		s.planes[name], err = asUnit(OpenAgent, AgentConfig{
			Interface: "eth0", Bpffs: filepath.Join(s.bpffs, name),
			Forward: Forward{Port: sitePort, Address: s.address(name), Idle: s.idle},
		})
		return err
	})
}

// start opens all servers, each the others' peer, and makes the first the owner.
func (s *site) start(owner string) {
	s.t.Helper()
	for name := range s.servers {
		s.open(name)
	}
	s.peer()
	s.move(owner)
	for name := range s.servers {
		s.serve(name)
	}
	s.t.Cleanup(s.stop)
}

func (s *site) stop() {
	if s.t.Failed() {
		for name := range s.planes {
			s.t.Logf("%s: %+v", name, s.counters(name))
		}
	}
	for name, plane := range s.planes {
		s.in(name, func() error { return plane.Close(false) })
	}
}

func (s *site) peer() {
	s.t.Helper()
	for name, plane := range s.planes {
		var others []netip.Addr
		for other := range s.servers {
			if other != name {
				others = append(others, s.address(other))
			}
		}
		if err := plane.SetPeers(others); err != nil {
			s.t.Fatal(err)
		}
	}
}

// service is what a server is told in the present epoch: former owners but itself, each until the last epoch in which it had the users. The
// owner may be one of them: who has the users yet finds its old connections so.
func (s *site) service(name string) AgentService {
	now := s.owners[len(s.owners)-1]
	chain := Chain{Users: everybody, Ask: s.ask}
	if name != now {
		chain.Owner = s.address(now)
	}
	had := map[string]bool{name: true}
	for i := len(s.owners) - 2; i >= 0; i-- {
		if o := s.owners[i]; !had[o] {
			had[o] = true
			chain.Hops = append(chain.Hops, Hop{s.address(o), uint32(i + 1)})
		}
	}
	service := AgentService{
		VIP: addr(testVIP), VIP6: addr(testVIP6), Tagged: true, Ports: []Port{tcp(80), udp(53), udp(sinkPort)}, Keeps: true, Chains: []Chain{chain},
	}
	if name == now {
		service.Accept = everybody
	}
	return service
}

// move begins an epoch: chains come first, then the router leads packets to the new owner, and all know it.
func (s *site) move(to string) {
	s.t.Helper()
	s.owners = append(s.owners, to)
	for name, plane := range s.planes {
		s.in(name, func() error { return plane.Prepare([]AgentService{s.service(name)}) })
	}
	s.set(to)
	s.lead(to)
	for name := range s.planes {
		s.set(name)
	}
}

func (s *site) set(name string) {
	s.t.Helper()
	s.in(name, func() error { return s.planes[name].Set([]AgentService{s.service(name)}) })
}

// lead has the router bring packets for the VIPs to a server.
func (s *site) lead(to string) {
	i := siteIndex(to)
	s.router.Route(testVIP+"/32", fmt.Sprintf("10.0.%d.1", i))
	s.router.Route(testVIP6+"/128", fmt.Sprintf("2001:db8:%d::1", i))
}

// serve starts a server's applications on both VIPs: on port 80 one that says the server's name and then echoes, on 53 of UDP one that
// echoes with the name in front.
func (s *site) serve(name string) {
	s.t.Helper()
	vips := []string{testVIP, testVIP6}
	if s.router == nil { // a LAN
		vips = vips[:1]
	}
	for _, vip := range vips {
		l, err := s.servers[name].Listen("tcp", net.JoinHostPort(vip, "80"))
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go echoStream(c, name)
			}
		}()
		var udp net.PacketConn
		s.in(name, func() (err error) {
			udp, err = net.ListenPacket("udp", net.JoinHostPort(vip, "53"))
			return err
		})
		s.t.Cleanup(func() { udp.Close() })
		go echo(udp, name)
	}
}

// quit has the server close first.
const quit = "quit"

// untilQuit fails where the user says so.
type untilQuit struct{ net.Conn }

func (c untilQuit) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if string(b[:n]) == quit {
		return 0, errors.New(quit)
	}
	return n, err
}

// echoStream says the name; once the user has no more to say, "bye" 100 times.
func echoStream(c net.Conn, name string) {
	defer c.Close()
	fmt.Fprintln(c, name)
	if _, err := io.Copy(c, untilQuit{c}); err != nil {
		return
	}
	for range 100 {
		if _, err := io.WriteString(c, "bye\n"); err != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// link is a user's connection.
type link struct {
	t      testing.TB
	conn   *net.TCPConn
	reader *bufio.Reader
	server string
}

func (s *site) dial(vip string) *link {
	s.t.Helper()
	var conn net.Conn
	err := s.users.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", net.JoinHostPort(vip, "80"), 5*time.Second)
		return err
	})
	if err != nil {
		s.t.Fatalf("connect: %v", err)
	}
	l := &link{t: s.t, conn: conn.(*net.TCPConn), reader: bufio.NewReader(conn)}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * time.Minute)) // emulated machines are slow
	name, err := l.reader.ReadString('\n')
	if err != nil {
		s.t.Fatalf("connect: %v", err)
	}
	l.server = name[:len(name)-1]
	return l
}

func (l *link) flow() Flow {
	at := func(a net.Addr) netip.AddrPort {
		p := a.(*net.TCPAddr).AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return Flow{User: at(l.conn.LocalAddr()), VIP: at(l.conn.RemoteAddr())}
}

// ask fails the test unless what it says comes back.
func (l *link) ask(when string) {
	l.t.Helper()
	question := fmt.Sprintf("%s %d\n", when, time.Now().UnixNano())
	if _, err := io.WriteString(l.conn, question); err != nil {
		l.t.Fatalf("%s: %v", when, err)
	}
	if answer, err := l.reader.ReadString('\n'); err != nil || answer != question {
		l.t.Fatalf("%s: answer %q, error %v", when, answer, err)
	}
}

// finish ends the user's side and reads what the server has yet to say.
func (l *link) finish(when string) {
	l.t.Helper()
	if err := l.conn.CloseWrite(); err != nil {
		l.t.Fatalf("%s: %v", when, err)
	}
	rest, err := io.ReadAll(l.reader)
	if err != nil || len(rest) != 400 {
		l.t.Errorf("%s: %d bytes at the end, want 400; error %v", when, len(rest), err)
	}
}

// numbers is a connection on which numbers go out and come back, 8 bytes each, in batches of a size at an interval.
type numbers struct {
	link *link
	stop context.CancelFunc
	end  sync.WaitGroup
	mu   sync.Mutex
	back uint64
	errs []error
}

func (s *site) numbers(vip string, size int, every time.Duration) *numbers {
	s.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	n := &numbers{link: s.dial(vip), stop: stop}
	s.t.Cleanup(stop)
	n.end.Go(func() { n.fail(n.send(ctx, size, every)) })
	n.end.Go(func() { n.fail(n.receive()) })
	return n
}

func (n *numbers) fail(err error) {
	if err == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.errs = append(n.errs, err)
}

func (n *numbers) send(ctx context.Context, size int, every time.Duration) error {
	var b []byte
	for next := uint64(0); ctx.Err() == nil; {
		b = b[:0]
		for range size {
			b = binary.BigEndian.AppendUint64(b, next)
			next++
		}
		if _, err := n.link.conn.Write(b); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if every > 0 {
			time.Sleep(every)
		}
	}
	return n.link.conn.CloseWrite()
}

func (n *numbers) receive() error {
	var b [8]byte
	for want := uint64(0); ; want++ {
		if _, err := io.ReadFull(n.link.reader, b[:4]); err != nil {
			return fmt.Errorf("receive number %d: %w", want, err)
		}
		if string(b[:4]) == "bye\n" {
			_, err := io.Copy(io.Discard, n.link.reader)
			return err
		}
		if _, err := io.ReadFull(n.link.reader, b[4:]); err != nil {
			return fmt.Errorf("receive number %d: %w", want, err)
		}
		if got := binary.BigEndian.Uint64(b[:]); got != want {
			return fmt.Errorf("number %d came where %d is next", got, want)
		}
		n.mu.Lock()
		n.back = want
		n.mu.Unlock()
	}
}

// more waits for so many more numbers.
func (n *numbers) more(t testing.TB, count uint64) {
	t.Helper()
	read := func() uint64 {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.back
	}
	want := read() + count
	testnet.Eventually(t, 10*time.Second, func() bool { return read() >= want || n.failed() != nil }, "numbers come back")
	if err := n.failed(); err != nil {
		t.Fatalf("connection to %s: %v", n.link.server, err)
	}
}

func (n *numbers) failed() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return errors.Join(n.errs...)
}

// finish ends it and fails the test if a byte was lost, doubled or out of order.
func (n *numbers) finish(t testing.TB) {
	t.Helper()
	n.stop()
	n.end.Wait()
	if err := n.failed(); err != nil {
		t.Errorf("connection to %s: %v", n.link.server, err)
	}
}

// question sends a datagram to port 53 and returns who answered.
func (s *site) question(conn net.Conn) string {
	s.t.Helper()
	conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := io.WriteString(conn, "?"); err != nil {
		s.t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := conn.Read(b)
	if err != nil || n != 3 {
		s.t.Fatalf("answer %q, error %v", b[:n], err)
	}
	return string(b[:1])
}

func (s *site) dialUDP(vip string) net.Conn {
	s.t.Helper()
	var conn net.Conn
	err := s.users.Do(func() (err error) {
		conn, err = net.Dial("udp", net.JoinHostPort(vip, "53"))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

func (s *site) counters(name string) AgentCounters {
	s.t.Helper()
	c, err := s.planes[name].Counters()
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// widen lets super-packets through, as cards do.
func (s *site) widen() {
	s.t.Helper()
	nodes := map[*testnet.Node][]string{s.users: {"eth0"}}
	for name, server := range s.servers {
		nodes[server] = []string{"eth0"}
		nodes[s.router] = append(nodes[s.router], name)
	}
	nodes[s.router] = append(nodes[s.router], "users")
	for node, names := range nodes {
		for _, name := range names {
			l, err := node.Netlink().LinkByName(name)
			if err == nil {
				err = node.Netlink().LinkSetGSOMaxSegs(l, 65535)
			}
			if err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// narrow has the router say that packets for users may not be longer than mtu bytes.
func (s *site) narrow(mtu int) {
	s.t.Helper()
	for _, user := range []string{siteUser + "/32", siteUser6 + "/128"} {
		if out, err := s.router.Run("ip", "route", "replace", user, "dev", "users", "mtu", "lock", fmt.Sprint(mtu)); err != nil {
			s.t.Fatalf("%v: %s", err, out)
		}
	}
}
