package repair

import (
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/packetsock"
	"github.com/manycast/manycast/internal/testnet"
)

// Addresses of the service, which both servers have.
const (
	vip4 = "10.9.0.10"
	vip6 = "fd09::10"
	port = "8080"
)

// network is a user and two servers of one address behind a router, which sends the user to one of them.
type network struct {
	t             testing.TB
	user, router  *testnet.Node
	servers       [2]*testnet.Node
	listeners     [2]*net.TCPListener
	vip           string
	listenAddress string
}

// newNetwork has listeners at both servers for address, a VIP or "::".
func newNetwork(t testing.TB, vip, listen string) *network {
	t.Helper()
	n := testnet.New(t)
	w := &network{t: t, user: n.Node("u"), router: n.Node("r"), vip: vip, listenAddress: net.JoinHostPort(listen, port)}
	w.servers = [2]*testnet.Node{n.Node("a"), n.Node("b")}
	n.Link(w.user, "eth0", "10.1.0.2/24", w.router, "u", "10.1.0.1/24")
	n.Link(w.servers[0], "eth0", "10.2.0.2/24", w.router, "a", "10.2.0.1/24")
	n.Link(w.servers[1], "eth0", "10.3.0.2/24", w.router, "b", "10.3.0.1/24")
	for i, end := range []*testnet.Node{w.user, w.servers[0], w.servers[1]} {
		net6 := "fd0" + string(rune('1'+i)) + "::"
		w.router.Address([]string{"u", "a", "b"}[i], net6+"1/64")
		end.Address("eth0", net6+"2/64")
		end.Route("default", "10."+string(rune('1'+i))+".0.1")
		end.Route("::/0", net6+"1")
	}
	w.router.Sysctl("net.ipv4.ip_forward", "1")
	w.router.Sysctl("net.ipv6.conf.all.forwarding", "1")
	for i, s := range w.servers {
		s.Address("lo", vip4+"/32")
		s.Address("lo", vip6+"/128")
		l := w.listen(s)
		t.Cleanup(func() { l.Close() })
		w.listeners[i] = l
	}
	w.lead(0)
	return w
}

func (w *network) listen(s *testnet.Node) *net.TCPListener {
	w.t.Helper()
	l, err := s.Listen("tcp", w.listenAddress)
	if err != nil {
		w.t.Fatal(err)
	}
	return l.(*net.TCPListener)
}

// lead sends the user's packets to a server.
func (w *network) lead(server int) {
	w.t.Helper()
	if netip.MustParseAddr(w.vip).Is4() {
		w.router.Route(w.vip+"/32", []string{"10.2.0.2", "10.3.0.2"}[server])
	} else {
		w.router.Route(w.vip+"/128", []string{"fd02::2", "fd03::2"}[server])
	}
}

// connect opens a connection to the first server.
func (w *network) connect() (user, server *net.TCPConn) {
	w.t.Helper()
	return w.connectWith(nil)
}

func (w *network) connectWith(control func(fd int) error) (user, server *net.TCPConn) {
	w.t.Helper()
	var c net.Conn
	err := w.user.Do(func() (err error) {
		d := net.Dialer{Timeout: 5 * time.Second}
		d.SetMultipathTCP(false)
		if control != nil {
			d.Control = func(_, _ string, raw syscall.RawConn) error {
				var err error
				if e := raw.Control(func(fd uintptr) { err = control(int(fd)) }); e != nil {
					return e
				}
				return err
			}
		}
		c, err = d.Dial("tcp", net.JoinHostPort(w.vip, port))
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	s, err := w.listeners[0].Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// descriptor duplicates a connection's, as an application that hands it over does.
func descriptor(t testing.TB, c *net.TCPConn) int {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if e := raw.Control(func(p uintptr) { fd, err = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return fd
}

// connection is one of a descriptor, which is closed.
func connection(t testing.TB, fd int) *net.TCPConn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "restored")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// shut is the gate: nothing reaches the socket, and the user, who hears no answer, sends it again.
func shut(t testing.TB, fd int) {
	t.Helper()
	if err := packetsock.AttachFilter(fd, packetsock.Nothing); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, fd int) {
	t.Helper()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil {
		t.Fatal(err)
	}
}

// move moves connections of one server to the other one, as bytes.
func (w *network) move(from []*net.TCPConn, to int) []*net.TCPConn {
	w.t.Helper()
	var frozen []*Frozen
	for _, c := range from {
		fd := descriptor(w.t, c)
		shut(w.t, fd)
		z, err := Freeze(fd)
		if err != nil {
			w.t.Fatal(err)
		}
		frozen = append(frozen, z)
	}
	var restored []*Restored
	for _, z := range frozen {
		restored = append(restored, w.restore(z.State.Append(nil), to))
	}
	w.lead(to)
	var moved []*net.TCPConn
	for i, r := range restored {
		if err := r.Thaw(); err != nil {
			w.t.Fatal(err)
		}
		open(w.t, r.FD())
		if err := frozen[i].Close(); err != nil {
			w.t.Fatal(err)
		}
		from[i].Close()
		moved = append(moved, connection(w.t, r.FD()))
	}
	return moved
}

func (w *network) moveOne(c *net.TCPConn, to int) *net.TCPConn {
	w.t.Helper()
	return w.move([]*net.TCPConn{c}, to)[0]
}

// restore leaves the gate shut.
func (w *network) restore(encoded []byte, to int) *Restored {
	w.t.Helper()
	s, err := Decode(encoded)
	if err != nil {
		w.t.Fatal(err)
	}
	var r *Restored
	if err := w.servers[to].Do(func() (err error) { r, err = Restore(s); return err }); err != nil {
		w.t.Fatal(err)
	}
	shut(w.t, r.FD())
	return r
}
