package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/apps"
	"github.com/manycast/manycast/lbd/internal/mover"
)

// relayed is a node with the VIP, an unmodified server that says who it is and whom it sees, a relay in front of it, and the
// agent's end for applications.
type relayed struct {
	node  *testnet.Node
	name  string
	route []string // the user's, to it
	apps  *apps.Server
}

const vip = "192.0.2.80"

func newRelayed(t *testing.T, node *testnet.Node, name, gateway string) *relayed {
	t.Helper()
	node.Address("lo", vip+"/32")
	l, err := node.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", name, netip.MustParseAddrPort(r.RemoteAddr).Addr())
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	file := relayFile(t, strings.Replace(`
[[listen]]
name = "web"
addresses = ["VIP:8000"]
backend = "127.0.0.1:8080"
user = "transparent"
`, "VIP", vip, 1))
	s := apps.NewServer(filepath.Join(filepath.Dir(file), "agent.sock"), apps.DefaultLimits(), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-s.Ready()
	node.Start(relayCommand(t, file)...)
	at := netip.AddrPortFrom(netip.MustParseAddr(vip), 8000)
	testnet.Eventually(t, 10*time.Second, func() bool { return s.Serves(at) }, "the relay has found its agent")
	return &relayed{node, name, []string{"ip", "route", "replace", vip, "via", gateway}, s}
}

// A user's keep-alive connection goes from one server to the other and back by the kernels of both, and the unmodified servers see the user.
func TestNetRelayMoves(t *testing.T) {
	n := testnet.New(t)
	user, lan := n.Node("u"), n.Node("lan")
	var ports []string
	join := func(node *testnet.Node, address string) {
		port := fmt.Sprintf("p%d", len(ports))
		n.Link(node, "eth0", address, lan, port, "")
		ports = append(ports, port)
	}
	join(user, "198.51.100.7/24")
	a, b := n.Node("a"), n.Node("b")
	join(a, "198.51.100.1/24")
	join(b, "198.51.100.2/24")
	lan.Bridge("br", false, ports...)
	from, to := newRelayed(t, a, "a", "198.51.100.1"), newRelayed(t, b, "b", "198.51.100.2")
	lead(t, user, from.route)
	c, err := user.DialContext(t.Context(), "tcp", vip+":8000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(c)
	for i := range 100 {
		if got, err := get(c, answers); err != nil || got != from.name+" 198.51.100.7" {
			t.Fatalf("request %d: %q, %v, want it of %s, and the user's address", i, got, err, from.name)
		}
		moveRelayed(t, user, c, from, to)
		from, to = to, from
	}
}

func get(c net.Conn, answers *bufio.Reader) (string, error) {
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(answers, nil)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}

func lead(t *testing.T, user *testnet.Node, route []string) {
	t.Helper()
	if out, err := user.Run(route...); err != nil {
		t.Fatal(out, err)
	}
}

// moveRelayed does what two agents do, while the user's packets go nowhere.
func moveRelayed(t *testing.T, user *testnet.Node, c net.Conn, from, to *relayed) {
	t.Helper()
	flow := apps.Flow{Local: c.RemoteAddr().(*net.TCPAddr).AddrPort(), Remote: c.LocalAddr().(*net.TCPAddr).AddrPort()}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	exported, err := from.apps.Export(ctx, flow)
	if err != nil {
		t.Fatal(err)
	}
	lead(t, user, []string{"ip", "route", "replace", "blackhole", vip})
	var frozen, restored mover.Socket
	var state []byte
	if err := from.node.Do(func() (err error) {
		frozen, state, err = mover.Kernel{}.Freeze(exported.FD())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := to.node.Do(func() (err error) {
		restored, err = mover.Kernel{}.Restore(flow.Local, flow.Remote, state)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	imported, err := to.apps.Import(ctx, flow, restored.FD(), exported.App())
	if err != nil {
		t.Fatal(err)
	}
	exported.Gone()
	lead(t, user, []string{"ip", "route", "del", "blackhole", vip})
	lead(t, user, to.route)
	if err := errors.Join(frozen.Close(), restored.Thaw()); err != nil {
		t.Fatal(err)
	}
	imported.Live()
	if err := restored.Close(); err != nil {
		t.Fatal(err)
	}
}
