package marking

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

// With this variable set the test binary is a router that steers, with pins below the variable's value, until SIGTERM.
const routerEnv = "MANYCAST_TEST_MARKING"

func TestMain(m *testing.M) {
	if pins := os.Getenv(routerEnv); pins != "" {
		if err := steerUntilTerm(pins); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// steerUntilTerm sends half of the users to two servers, of which the second one is reached by a neighbor of IPv6, of IPv4, too; the others are
// told that nobody serves them. SIGHUP has the servers change places.
func steerUntilTerm(pins string) error {
	c := config
	c.Edge, c.Pins = []string{"e", "none"}, pins
	b, err := Open(c, kernel.NewNone(nil), slog.New(slog.NewTextHandler(os.Stdout, nil)))
	if err != nil {
		return err
	}
	plan, err := steer.Compile(half)
	if err != nil {
		return err
	}
	var index [3]int
	for i, name := range []string{"e", "c1", "c2"} {
		dev, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		index[i] = dev.Index
	}
	u := vips.Users{VIPs: map[netip.Addr]*steer.Plan{vip4: plan, vip6: plan}, Trees: map[steer.Owner][]kernel.Hop{
		1: {{Via: netip.MustParseAddr("10.2.1.2"), Interface: index[1]}, {Via: netip.MustParseAddr("2001:db8:21::2"), Interface: index[1]}},
		2: {{Via: netip.MustParseAddr("2001:db8:22::2"), Interface: index[2]}},
	}, Refuse: map[netip.Addr]vips.Refusal{vip4: vips.Reset, vip6: vips.Unreachable}}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGHUP, unix.SIGTERM)
	for {
		if err := b.Steer(u); err != nil {
			return err
		}
		fmt.Println("steers")
		if s := <-signals; s == unix.SIGTERM {
			return b.Close(false)
		}
		u.Trees[1], u.Trees[2] = u.Trees[2], u.Trees[1]
	}
}

// TestNetUsersOfTwoServers: a router whose own routes know nothing of the VIPs leads users of both families to their servers by marks, rules
// and tables. It is killed and started again, its users change places, others take its rules and routes away, and nothing that is not its own
// is touched. A clean stop leaves nothing.
func TestNetUsersOfTwoServers(t *testing.T) {
	n := testnet.New(t)
	u, r := n.Node("u"), n.Node("r")
	servers := []*testnet.Node{n.Node("s1"), n.Node("s2")}
	for _, key := range []string{"net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter"} {
		for _, node := range append(servers, u, r) {
			node.Sysctl(key, "0")
		}
	}
	r.Sysctl("net.ipv4.ip_forward", "1")
	r.Sysctl("net.ipv6.conf.all.forwarding", "1")
	n.Link(u, "eth0", "10.1.0.12/24", r, "e", "10.1.0.1/24")
	r.Address("e", "2001:db8:1::1/48")
	u.Address("eth0", "10.1.0.13/24")
	u.Address("eth0", "10.1.0.14/24")
	users, others := []string{"10.1.0.12", "10.1.0.13", sixOf(t, 1), sixOf(t, 2)}, []string{"10.1.0.14", sixOf(t, 0)}
	for i, s := range servers {
		n.Link(r, fmt.Sprint("c", i+1), fmt.Sprintf("10.2.%d.1/24", i+1), s, "eth0", fmt.Sprintf("10.2.%d.2/24", i+1))
		r.Address(fmt.Sprint("c", i+1), fmt.Sprintf("2001:db8:2%d::1/64", i+1))
		s.Address("eth0", fmt.Sprintf("2001:db8:2%d::2/64", i+1))
		s.Address("lo", vip4.String()+"/32")
		s.Address("lo", vip6.String()+"/128")
		s.Route("default", fmt.Sprintf("10.2.%d.1", i+1))
		s.Route("::/0", fmt.Sprintf("2001:db8:2%d::1", i+1))
		serve(t, s, fmt.Sprint("s", i+1))
	}
	u.Route("default", "10.1.0.1")
	for _, user := range append(users[2:], others[1]) {
		u.Address("eth0", user+"/48")
	}
	u.Route("::/0", "2001:db8:1::1")
	run := func(node *testnet.Node, command string) string {
		t.Helper()
		out, err := node.Run("sh", "-c", command)
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return out
	}
	run(r, "ip rule add fwmark 0x54000001 priority 7701 lookup 500 protocol static; ip route add table 77009 default via 10.1.0.99 protocol static")
	const show = "ip rule; ip -6 rule; for proto in static 77; do ip route show table all proto $proto; ip -6 route show table all proto $proto; done"
	before := run(r, show)

	pins := PinsBelow(filepath.Join(n.BPFFS(), "tdpd"))
	start := func() *testnet.Process {
		p := r.Start("env", routerEnv+"="+pins, os.Args[0])
		testnet.Eventually(t, 10*time.Second, func() bool { return strings.Contains(p.Output(), "steers") }, "it steers")
		return p
	}
	go1 := func(when string, want ...string) {
		t.Helper()
		for i, user := range users {
			if got, err := ask(t, u, user); err != nil || got != want[i%2] {
				t.Errorf("%s: user %s gets to %q, %v, want %s", when, user, got, err, want[i%2])
			}
		}
	}
	p := start()
	go1("at first", "s1", "s2")

	var floods []*testnet.Process
	for i, user := range users {
		floods = append(floods, u.Start("ping", "-i", "0.002", "-W", "2", "-q", "-I", user, []string{vip4.String(), vip6.String()}[i/2]))
	}
	for range 3 {
		p.Signal(unix.SIGKILL)
		p.Wait()
		go1("killed", "s1", "s2")
		p = start()
	}
	for i := range 4 {
		p.Signal(unix.SIGHUP)
		testnet.Eventually(t, 10*time.Second, func() bool { return strings.Count(p.Output(), "steers") == i+2 }, "it steers otherwise")
		go1("users change places", []string{"s2", "s1"}[i%2], []string{"s1", "s2"}[i%2])
	}
	for i, f := range floods {
		f.Signal(unix.SIGINT)
		f.Wait()
		if out := f.Output(); !strings.Contains(out, " 0% packet loss") {
			t.Errorf("user %s:\n%s", users[i], out)
		}
	}

	for _, command := range []string{
		"ip rule del priority 7700; ip -6 rule del priority 7701; ip -6 rule del priority 7701",
		"ip route del default table 77001; ip -6 route del default table 77002",
		"ip link set c1 down && sleep 0.2 && ip link set c1 up && ip addr add 2001:db8:21::1/64 dev c1 nodad",
	} {
		run(r, command)
		testnet.Eventually(t, 10*time.Second, func() bool {
			_, err1 := ask(t, u, users[0])
			_, err2 := ask(t, u, users[2])
			return err1 == nil && err2 == nil && strings.Contains(run(r, "ip rule"), "7700:")
		}, "after ", command)
		go1(command, "s1", "s2")
	}
	for _, user := range others {
		if name, err := ask(t, u, user); !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("user %s, whom nobody serves, gets to %q, %v", user, name, err)
		}
	}
	if out, err := u.Run("ping", "-c", "1", "-t", "1", "-W", "2", vip4.String()); !strings.Contains(out, "Time to live exceeded") {
		t.Errorf("a TTL of 1: %v\n%s", err, out)
	}

	p.Signal(unix.SIGTERM)
	if err := p.Wait(); err != nil || strings.Contains(p.Output(), "no longer noticed") {
		t.Errorf("%v\n%s", err, p.Output())
	}
	if after := run(r, show); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	if left, err := os.ReadDir(pins); err == nil {
		t.Errorf("left: %v", left)
	}
	if _, err := ask(t, u, users[0]); err == nil {
		t.Error("a user still has its server")
	}
}

// sixOf is an address of IPv6 of a server's user.
func sixOf(t *testing.T, owner steer.Owner) string {
	t.Helper()
	p, err := steer.Compile(half)
	if err != nil {
		t.Fatal(err)
	}
	for n := 2; ; n++ {
		user := fmt.Sprintf("2001:db8:1:%x::12", n)
		if p.Lookup(steer.Standin(netip.MustParseAddr(user))) == owner {
			return user
		}
	}
}

// serve says who it is to whoever connects to a VIP.
func serve(t *testing.T, node *testnet.Node, name string) {
	t.Helper()
	for _, vip := range []netip.Addr{vip4, vip6} {
		l, err := node.Listen("tcp", netip.AddrPortFrom(vip, 80).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, name)
				c.Close()
			}
		}()
	}
}

// ask is who serves a user.
func ask(t *testing.T, node *testnet.Node, user string) (name string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	from, to := netip.MustParseAddr(user), vip4
	if from.Is6() {
		to = vip6
	}
	e := node.Do(func() error {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(to, 80).String())
		if err != nil {
			return err
		}
		defer c.Close()
		b, err := io.ReadAll(c)
		name = string(b)
		return err
	})
	return name, errors.Join(err, e)
}
