package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/cgroup2"
	"github.com/manycast/manycast/internal/testnet"
)

var at = netip.MustParseAddrPort

// ends are the addresses of a family.
type ends struct{ user, vip, s1, also, s2 netip.AddrPort }

var families = map[string]ends{
	"IPv4": {at("10.1.0.7:0"), at("192.0.2.80:80"), at("10.2.0.3:80"), at("10.2.0.4:8080"), at("10.3.0.4:80")},
	"IPv6": {at("[2001:db8:1::7]:0"), at("[2001:db8::80]:80"), at("[2001:db8:2::3]:80"), at("[2001:db8:2::4]:8080"), at("[2001:db8:3::4]:80")},
}

var published = []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24"), netip.MustParsePrefix("10.3.0.0/24")}
var published6 = []netip.Prefix{netip.MustParsePrefix("2001:db8:2::/64"), netip.MustParsePrefix("2001:db8:3::/64")}

// path is a user and two servers of a service, each on a link of its own; the router leads the VIP to s1.
type path struct {
	t                    testing.TB
	net                  *testnet.Net
	user, router, s1, s2 *testnet.Node
	bpffs                string
}

func newPath(t testing.TB) *path {
	t.Helper()
	p := newNodes(t)
	p.router.Sysctl("net.ipv4.ip_forward", "1")
	p.router.Sysctl("net.ipv6.conf.all.forwarding", "1")
	for i, leaf := range []struct {
		node      *testnet.Node
		port      string
		addresses []string
	}{
		{p.user, "users", []string{"10.1.0.7/24", "2001:db8:1::7/64"}},
		{p.s1, "s1", []string{"10.2.0.3/24", "2001:db8:2::3/64", "10.2.0.4/24", "2001:db8:2::4/64"}},
		{p.s2, "s2", []string{"10.3.0.4/24", "2001:db8:3::4/64"}},
	} {
		p.net.Link(leaf.node, "eth0", "", p.router, leaf.port, fmt.Sprintf("10.%d.0.1/24", i+1))
		p.router.Address(leaf.port, fmt.Sprintf("2001:db8:%d::1/64", i+1))
		for _, a := range leaf.addresses {
			leaf.node.Address("eth0", a)
		}
		leaf.node.Route("default", fmt.Sprintf("10.%d.0.1", i+1))
		leaf.node.Route("::/0", fmt.Sprintf("2001:db8:%d::1", i+1))
	}
	p.router.Route("192.0.2.80/32", "10.2.0.3")
	p.router.Route("2001:db8::80/128", "2001:db8:2::3")
	return p
}

// newNodes has nothing that joins them yet.
func newNodes(t testing.TB) *path {
	t.Helper()
	n := testnet.New(t)
	p := &path{t: t, net: n, user: n.Node("user"), router: n.Node("router"), s1: n.Node("s1"), s2: n.Node("s2"), bpffs: n.BPFFS()}
	for _, s := range []*testnet.Node{p.s1, p.s2} {
		s.Address("lo", "192.0.2.80/32")
		s.Address("lo", "2001:db8::80/128")
	}
	return p
}

// in runs f in the node with what a unit gives, and more.
func (p *path) in(node *testnet.Node, f func() error, more ...int) {
	p.t.Helper()
	capabilities := append([]int{unix.CAP_BPF, unix.CAP_NET_ADMIN}, more...)
	err := node.Do(func() error { return testnet.WithCapabilities(f, capabilities...) })
	if err != nil {
		p.t.Fatalf("%s: %+v", node.Name(), err)
	}
}

func (p *path) config(name string) Config {
	return Config{Interfaces: []string{"eth0"}, Bpffs: filepath.Join(p.bpffs, name)}
}

// client is the user's side, of both families.
func (p *path) client() Client { return p.clientOf(cgroup{}) }

// clientOf is that of the sockets of a control group.
func (p *path) clientOf(g cgroup) Client {
	p.t.Helper()
	var c Client
	config := p.config("client")
	config.Cgroup = g.dir
	p.in(p.user, func() (err error) {
		if c, err = OpenClient(config); err != nil {
			return err
		}
		return c.Set([]ClientService{
			{VIP: families["IPv4"].vip, Published: published}, {VIP: families["IPv6"].vip, Published: published6},
		})
	})
	p.t.Cleanup(func() { c.Close(false) })
	return c
}

// server is that of s1 or s2.
func (p *path) server(node *testnet.Node) Server { return p.serverOf(node, cgroup{}) }

// serverOf is that of the sockets of a control group, with more capabilities.
func (p *path) serverOf(node *testnet.Node, g cgroup, more ...int) Server {
	p.t.Helper()
	var s Server
	config := p.config(node.Name())
	config.Cgroup = g.dir
	p.in(node, func() (err error) {
		if s, err = OpenServer(config); err != nil {
			return err
		}
		return s.Set(p.services(node))
	}, more...)
	p.t.Cleanup(func() { s.Close(false) })
	return s
}

func (p *path) services(node *testnet.Node) (services []ServerService) {
	for _, e := range families {
		if node == p.s1 {
			services = append(services, ServerService{VIP: e.vip, Destination: e.s1, Also: []netip.AddrPort{e.also}})
		} else {
			services = append(services, ServerService{VIP: e.vip, Destination: e.s2})
		}
	}
	return services
}

// listen accepts connections of a node.
func (p *path) listen(node *testnet.Node, address string) *net.TCPListener {
	p.t.Helper()
	l, err := node.Listen("tcp", address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// pair is a connection by its two ends.
type pair struct{ user, server *net.TCPConn }

// flow is the connection by its addresses.
func (c pair) flow() Flow {
	plain := func(a net.Addr) netip.AddrPort {
		at := a.(*net.TCPAddr).AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return Flow{User: plain(c.user.LocalAddr()), VIP: plain(c.user.RemoteAddr())}
}

// connect makes a connection from the user to whoever answers at l.
func (p *path) connect(to netip.AddrPort, l *net.TCPListener) pair {
	p.t.Helper()
	return p.connectFrom(netip.AddrPort{}, to, l)
}

// connectFrom does so from an address and port of the user's.
func (p *path) connectFrom(from, to netip.AddrPort, l *net.TCPListener) pair {
	p.t.Helper()
	accepted := make(chan *net.TCPConn, 1)
	go func() {
		c, _ := l.AcceptTCP()
		accepted <- c
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var c net.Conn
	err := p.user.Do(func() (err error) {
		var d net.Dialer
		if from.IsValid() {
			d.LocalAddr, d.Control = net.TCPAddrFromAddrPort(from), reuse
		}
		for {
			c, err = d.DialContext(ctx, "tcp", to.String())
			if !errors.Is(err, unix.EADDRNOTAVAIL) { // a second of TIME-WAIT is left to wait for
				return err
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	if err != nil {
		p.t.Fatal(err)
	}
	l.SetDeadline(time.Now().Add(20 * time.Second))
	server := <-accepted
	if server == nil {
		p.t.Fatalf("nobody answered at %s", to)
	}
	pair := pair{c.(*net.TCPConn), server}
	p.t.Cleanup(func() {
		pair.user.Close()
		pair.server.Close()
	})
	return pair
}

func reuse(_, _ string, raw syscall.RawConn) (err error) {
	e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	return errors.Join(err, e)
}

// echo sends something both ways.
func (p *path) echo(c pair) {
	p.t.Helper()
	for _, way := range []struct {
		from, to *net.TCPConn
	}{{c.user, c.server}, {c.server, c.user}} {
		deadline := time.Now().Add(20 * time.Second)
		if err := errors.Join(way.from.SetDeadline(deadline), way.to.SetDeadline(deadline)); err != nil {
			p.t.Fatal(err)
		}
		if _, err := io.WriteString(way.from, "hello"); err != nil {
			p.t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(way.to, b); err != nil || string(b) != "hello" {
			p.t.Fatalf("%q, %v", b, err)
		}
	}
}

// withSocket gives f the descriptor of a socket.
func (p *path) withSocket(c syscall.Conn, f func(fd int) error) {
	p.t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		e := raw.Control(func(fd uintptr) { err = f(int(fd)) })
		err = errors.Join(err, e)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *path) held(s Server, c pair) (h Held) {
	p.t.Helper()
	p.withSocket(c.server, func(fd int) (err error) {
		h, err = s.Held(fd)
		return err
	})
	return h
}

func connectionOf(t testing.TB, c Client, flow Flow) Connection {
	t.Helper()
	connection, err := c.Connection(flow)
	if err != nil {
		t.Fatal(err)
	}
	return connection
}

func clientCounters(t testing.TB, c Client) ClientCounters {
	t.Helper()
	n, err := c.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func serverCounters(t testing.TB, s Server) ServerCounters {
	t.Helper()
	n, err := s.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// tap records the frames of an interface.
type tap struct {
	t  testing.TB
	fd int

	mu     sync.Mutex
	frames [][]byte
}

func (p *path) tap(node *testnet.Node, ifname string) *tap {
	p.t.Helper()
	w := &tap{t: p.t}
	err := node.Do(func() error {
		i, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
			return err
		}
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: i.Index}) // ETH_P_ALL
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { unix.Close(w.fd) })
	return w
}

// segment is a TCP segment as it was on the wire.
type segment struct {
	src, dst netip.AddrPort
	flags    byte
	seq, ack uint32
	options  []byte
	payload  int
}

const (
	flagFIN, flagSYN, flagRST, flagACK = 1, 2, 4, 16
)

// segments reads those that have come so far.
func (w *tap) segments() (all []segment) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	buf := make([]byte, 1<<17)
	for {
		n, _, err := unix.Recvfrom(w.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			w.t.Fatal(err)
		}
		w.frames = append(w.frames, append([]byte(nil), buf[:n]...))
	}
	for _, f := range w.frames {
		if s, ok := parseSegment(f); ok {
			all = append(all, s)
		}
	}
	return all
}

// find returns the first segment with exactly these of SYN, ACK, FIN and RST, waiting for it.
func (w *tap) find(flags byte, of func(segment) bool) (found segment) {
	w.t.Helper()
	testnet.Eventually(w.t, 20*time.Second, func() bool {
		for _, s := range w.segments() {
			if s.flags&(flagFIN|flagSYN|flagRST|flagACK) == flags && (of == nil || of(s)) {
				found = s
				return true
			}
		}
		return false
	}, fmt.Sprintf("segment with flags %#x", flags))
	return found
}

func parseSegment(f []byte) (s segment, ok bool) {
	if len(f) < 14+20 {
		return s, false
	}
	ip := f[14:]
	var l4 []byte
	var src, dst netip.Addr
	switch ip[0] >> 4 {
	case 4:
		if ip[9] != unix.IPPROTO_TCP {
			return s, false
		}
		src, dst = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
		l4 = ip[int(ip[0]&15)*4 : int(ip[2])<<8|int(ip[3])]
	case 6:
		if len(ip) < 40 || ip[6] != unix.IPPROTO_TCP {
			return s, false
		}
		src, dst = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
		l4 = ip[40:]
	default:
		return s, false
	}
	header := int(l4[12]>>4) * 4
	return segment{
		src: netip.AddrPortFrom(src, uint16(l4[0])<<8|uint16(l4[1])), dst: netip.AddrPortFrom(dst, uint16(l4[2])<<8|uint16(l4[3])),
		flags: l4[13], seq: binary.BigEndian.Uint32(l4[4:]), ack: binary.BigEndian.Uint32(l4[8:]), options: l4[20:header], payload: len(l4) - header,
	}, true
}

// dupOf is a descriptor of its own for what file has.
func dupOf(t testing.TB, file *os.File) int {
	t.Helper()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// connOf is the connection of a descriptor, which it takes.
func connOf(t testing.TB, fd int) *net.TCPConn {
	t.Helper()
	file := os.NewFile(uintptr(fd), "connection")
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// cgroup is a control group for this process to be in.
type cgroup struct {
	t   testing.TB
	dir string
}

func newCgroup(t testing.TB, name string) cgroup {
	t.Helper()
	root, err := cgroup2.Root()
	if err != nil {
		t.Fatal(err)
	}
	g := cgroup{t, filepath.Join(root, fmt.Sprintf("manycast-test-%d-%s", os.Getpid(), name))}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.leave()
		if err := os.Remove(g.dir); err != nil {
			t.Error(err)
		}
	})
	return g
}

// join has sockets that are made from now on be the control group's.
func (g cgroup) join() { g.move(g.dir) }

// leave has them be the parent's.
func (g cgroup) leave() { g.move(filepath.Dir(g.dir)) }

func (g cgroup) move(dir string) {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644); err != nil {
		g.t.Fatal(err)
	}
}
