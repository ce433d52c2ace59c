package dataplane

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

// lan is one LAN with users, a director and two servers. The director rewrites on the bridge port that leads to the users; the
// bridge floods groups to both servers, so that it is the agents alone that decide who answers.
//
//	users (10.0.0.11-14) --- users [director: br0] s1 --- s1 (10.0.0.1, odd users of web, even of dns)
//	                                               s2 --- s2 (10.0.0.2, the others)
type lan struct {
	net      *testnet.Net
	users    *testnet.Node
	edge     *testnet.Node
	servers  map[string]*testnet.Node
	director DirectorPlane
	agents   map[string]AgentPlane
	bpffs    string
}

const lanMTU = 1400 // path MTU of the agents

func newLAN(t *testing.T) *lan {
	t.Helper()
	n := testnet.New(t)
	l := &lan{net: n, users: n.Node("users"), edge: n.Node("edge"), bpffs: n.BPFFS(),
		servers: make(map[string]*testnet.Node), agents: make(map[string]AgentPlane)}
	n.Link(l.users, "eth0", "10.0.0.11/24", l.edge, "users", "")
	for _, a := range []string{"10.0.0.12/24", "10.0.0.13/24", "10.0.0.14/24"} {
		l.users.Address("eth0", a)
	}
	for i, name := range []string{"s1", "s2"} {
		s := n.Node(name)
		n.Link(s, "eth0", fmt.Sprintf("10.0.0.%d/24", i+1), l.edge, name, "")
		l.servers[name] = s
	}
	l.edge.Bridge("br0", false, "users", "s1", "s2")
	// The director is the users' router by its port's own address: the bridge has none that it would answer for.
	mac, err := l.edge.Netlink().LinkByName("users")
	if err != nil {
		t.Fatal(err)
	}
	l.users.Route("192.0.2.0/24", "10.0.0.254")
	if out, err := l.users.Run("ip", "neigh", "add", "10.0.0.254", "lladdr", mac.Attrs().HardwareAddr.String(), "dev", "eth0"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return l
}

func (l *lan) open(t *testing.T) {
	t.Helper()
	l.in(t, l.edge, func() (err error) {
		l.director, err = asUnit(OpenDirector, DirectorConfig{Interfaces: []string{"users"}, Bpffs: filepath.Join(l.bpffs, "director")})
		return err
	})
	for name, node := range l.servers {
		l.in(t, node, func() (err error) {
			l.agents[name], err = asUnit(OpenAgent, AgentConfig{Interface: "eth0", Bpffs: filepath.Join(l.bpffs, name), PathMTU: lanMTU})
			return err
		})
	}
}

func (l *lan) set(t *testing.T) {
	t.Helper()
	l.in(t, l.edge, func() error { return l.director.Set(directorServices()) })
	l.in(t, l.servers["s1"], func() error { return l.agents["s1"].Set(agentServices(odd, even)) })
	l.in(t, l.servers["s2"], func() error { return l.agents["s2"].Set(agentServices(even, odd)) })
}

func (l *lan) close(t *testing.T, keep bool) {
	t.Helper()
	l.in(t, l.edge, func() error { return l.director.Close(keep) })
	for name, node := range l.servers {
		l.in(t, node, func() error { return l.agents[name].Close(keep) })
	}
}

func (l *lan) in(t *testing.T, node *testnet.Node, f func() error) {
	t.Helper()
	if err := node.Do(f); err != nil {
		t.Fatalf("%s: %+v", node.Name(), err)
	}
}

// serve starts the applications of all servers: on VIP:80 one that says its server's name, or the hash of what it was given;
// on VIP:53/udp an echo with the name in front.
func (l *lan) serve(t *testing.T) {
	t.Helper()
	for name, node := range l.servers {
		listener, err := node.Listen("tcp", testVIP+":80")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := sha256.New()
			n, err := io.Copy(h, r.Body)
			fmt.Fprintf(w, "%s %d %x %v", name, n, h.Sum(nil), err)
		})}
		go server.Serve(listener)
		t.Cleanup(func() { server.Close() })

		var conn net.PacketConn
		l.in(t, node, func() (err error) {
			conn, err = net.ListenPacket("udp4", testVIP+":53")
			return err
		})
		go echo(conn, name)
		t.Cleanup(func() { conn.Close() })
	}
}

func echo(conn net.PacketConn, name string) {
	b := make([]byte, 65536)
	for {
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			return
		}
		conn.WriteTo(append([]byte(name+" "), b[:n]...), from)
	}
}

// client is an HTTP client at a user's address, every request on a fresh connection.
func (l *lan) client(user string) *http.Client {
	dial := func(_ context.Context, network, address string) (c net.Conn, err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(user)}, Timeout: 3 * time.Second}
		err = l.users.Do(func() error {
			c, err = d.Dial(network, address)
			return err
		})
		return c, err
	}
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
}

// get asks VIP:80 and returns what it says, body being what it is given.
func (l *lan) get(t *testing.T, user, body string) string {
	t.Helper()
	resp, err := l.client(user).Post("http://"+testVIP+"/", "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatalf("user %s: %v", user, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("user %s: %v", user, err)
	}
	return string(answer)
}

// ask sends one datagram to VIP:53 and returns the answer.
func (l *lan) ask(t *testing.T, user, question string) string {
	t.Helper()
	var conn *net.UDPConn
	l.in(t, l.users, func() (err error) {
		conn, err = net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(user)}, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(testVIP+":53")))
		return err
	})
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := io.WriteString(conn, question); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 65536)
	n, err := conn.Read(b)
	if err != nil {
		t.Fatalf("user %s: %v", user, err)
	}
	return string(b[:n])
}

func (l *lan) agentCounters(t *testing.T, name string) AgentCounters {
	t.Helper()
	c, err := l.agents[name].Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// countDials is dial and counts its calls, which come one after the other.
func countDials(dial dialFunc, calls *int) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		*calls++
		return dial(ctx, network, address)
	}
}
