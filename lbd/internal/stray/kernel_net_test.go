package stray

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

const netServers = 3

var everybody = portion.Union{{Permit: []portion.Portion{portion.MustParse("0.0.0.0/0.0.0.0")}}}

// kernels are servers behind a router, which brings what is for the VIP to one of them, as by tags. No server is told who had the users before.
type kernels struct {
	t       *testing.T
	users   *testnet.Node
	router  *testnet.Node
	servers [netServers]*testnet.Node
	planes  [netServers]dataplane.AgentPlane
	loops   [netServers]*Loop
	taken   [netServers]chan net.Conn // by the applications
}

// inside looks into the kernel of a node, as an agent there does.
type inside struct {
	dataplane.AgentPlane
	node *testnet.Node
}

func (p inside) Inject(frame []byte) error {
	return p.node.Do(func() error { return p.AgentPlane.Inject(frame) })
}

func (p inside) Knows(flow dataplane.Flow) (known bool, err error) {
	err = p.node.Do(func() (err error) {
		known, err = p.AgentPlane.Knows(flow)
		return err
	})
	return known, err
}

func startKernels(t *testing.T) *kernels {
	n := testnet.New(t)
	k := &kernels{t: t, users: n.Node("users"), router: n.Node("router")}
	n.Link(k.users, "eth0", "10.9.0.11/24", k.router, "users", "10.9.0.254/24")
	k.users.Route("default", "10.9.0.254")
	k.must(k.users.WholeChecksums("eth0")) // which a frame that is injected needs
	k.router.Sysctl("net.ipv4.ip_forward", "1")
	hub := control.NewHub(50*time.Millisecond, 2*time.Second)
	bpffs := n.BPFFS()
	for i := range netServers {
		node := n.Node(nameOf(i))
		gateway := fmt.Sprintf("10.0.%d.254", i+1)
		n.Link(node, "eth0", k.address(i).String()+"/24", k.router, nameOf(i), gateway+"/24")
		node.Route("default", gateway)
		k.servers[i] = node
		k.must(node.Do(func() (err error) {
			k.planes[i], err = dataplane.OpenAgent(dataplane.AgentConfig{
				Interface: "eth0", Bpffs: filepath.Join(bpffs, nameOf(i)), Log: slog.New(slog.DiscardHandler),
				Forward: dataplane.Forward{Port: 8464, Address: k.address(i)},
			})
			return err
		}))
		t.Cleanup(func() { k.must(node.Do(func() error { return k.planes[i].Close(false) })) })
	}
	for i := range netServers {
		k.start(hub, i)
	}
	return k
}

func (k *kernels) address(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i + 1), 1}) }

func (k *kernels) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// start runs a server's loop, and its application, which says the server's name and then echoes.
func (k *kernels) start(hub *control.Hub, i int) {
	var peers []netip.Addr
	for other := range netServers {
		if other != i {
			peers = append(peers, k.address(other))
		}
	}
	k.must(k.planes[i].SetPeers(peers))
	k.set(i, false)
	k.taken[i] = make(chan net.Conn, 16)
	l, err := k.servers[i].Listen("tcp", front.String())
	k.must(err)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			k.taken[i] <- c
			go func() {
				defer c.Close()
				if _, err := io.WriteString(c, nameOf(i)); err == nil {
					_, _ = io.Copy(c, c) // until the user has enough
				}
			}()
		}
	}()
	m := hub.Join(control.Member{Name: nameOf(i), Role: control.Server, Address: k.address(i)}, nil)
	m.SetStatus(control.Status{OK: true})
	k.loops[i] = New(Config{Name: nameOf(i), Channel: m, Plane: inside{k.planes[i], k.servers[i]}, Log: slog.New(slog.DiscardHandler)})
	k.loops[i].Set(views(netServers))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.loops[i].Run(ctx) }()
	k.t.Cleanup(func() {
		cancel()
		k.must(<-ended)
		m.Leave()
		l.Close()
	})
}

func (k *kernels) set(i int, owner bool) {
	s := dataplane.AgentService{
		VIP: front.Addr(), Tagged: true, Ports: []dataplane.Port{{Proto: "tcp", Number: front.Port()}}, Keeps: true,
		Chains: []dataplane.Chain{{Users: everybody, Ask: true}},
	}
	if owner {
		s.Accept = everybody
	}
	k.must(k.servers[i].Do(func() error { return k.planes[i].Set([]dataplane.AgentService{s}) }))
}

// lead makes all users a server's.
func (k *kernels) lead(to int) {
	for i := range netServers {
		k.set(i, i == to)
	}
	k.router.Route(front.Addr().String()+"/32", k.address(to).String())
}

// dial makes a connection, and says who has it.
func (k *kernels) dial() (c net.Conn, server string) {
	k.t.Helper()
	c, err := k.users.DialContext(k.t.Context(), "tcp", front.String())
	k.must(err)
	k.t.Cleanup(func() { c.Close() })
	k.must(c.SetDeadline(time.Now().Add(20 * time.Second)))
	name := make([]byte, 2)
	_, err = io.ReadFull(c, name)
	k.must(err)
	return c, string(name)
}

func (k *kernels) echo(c net.Conn, text string) {
	k.t.Helper()
	_, err := io.WriteString(c, text)
	k.must(err)
	back := make([]byte, len(text))
	if _, err = io.ReadFull(c, back); err != nil || string(back) != text {
		k.t.Fatalf("%q came back as %q, %v", text, back, err)
	}
}

// TestNetServersFindAConnection: nobody has told the owner who had its users before. The first packet of each connection is served by who has
// it, the next ones go there by the kernel's path, and the entry goes with the connection.
func TestNetServersFindAConnection(t *testing.T) {
	k := startKernels(t)
	k.lead(0)
	first, at := k.dial()
	if at != "s1" {
		t.Fatalf("the first is at %s", at)
	}
	k.echo(first, "at home")
	k.lead(1)
	second, at := k.dial()
	if at != "s2" {
		t.Fatalf("the second is at %s", at)
	}
	k.lead(2)
	for i := range 50 {
		k.echo(first, fmt.Sprintf("the first, %d", i))
		k.echo(second, fmt.Sprintf("the second, %d", i))
	}
	testnet.Eventually(t, 5*time.Second, func() bool { return k.loops[2].Counters().Led == 2 }, "entries for both")
	c := k.loops[2].Counters()
	if c.Found != 2 || c.GivenUp != 0 || c.Led != 2 || k.loops[0].Counters().Holder.Served == 0 || k.loops[1].Counters().Holder.Served == 0 {
		t.Errorf("the owner counts %+v, the holders %+v and %+v", c, k.loops[0].Counters().Holder, k.loops[1].Counters().Holder)
	}
	forwarded, err := k.planes[2].Counters()
	k.must(err)
	if forwarded.Strays > 4 || forwarded.ForwardedOut < 90 {
		t.Errorf("%d strays, %d forwarded: the kernel has not taken over", forwarded.Strays, forwarded.ForwardedOut)
	}
	k.must(first.(*net.TCPConn).SetLinger(0))
	first.Close()
	testnet.Eventually(t, 10*time.Second, func() bool { return k.loops[2].Counters().Led == 1 }, "the entry gone with its connection")
	k.echo(second, "still there")
}

// TestNetConnectionOfNobodyIsReset: who had it has lost it without a word.
func TestNetConnectionOfNobodyIsReset(t *testing.T) {
	k := startKernels(t)
	k.lead(0)
	c, _ := k.dial()
	k.echo(c, "at home")
	lost := (<-k.taken[0]).(*net.TCPConn)
	if out, err := k.servers[0].Run("ip", "route", "del", "default"); err != nil { // nothing that it says reaches the user
		t.Fatalf("%v: %s", err, out)
	}
	k.must(lost.SetLinger(0))
	k.must(lost.Close())
	k.lead(1)
	if _, err := io.WriteString(c, "anybody?"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
	testnet.Eventually(t, 5*time.Second, func() bool { return k.loops[1].Counters().GivenUp == 1 }, "the flow given up")
	if counters := k.loops[1].Counters(); counters.Found != 0 || counters.Failed != 0 {
		t.Errorf("%+v", counters)
	}
}
