package main

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
)

var (
	dynamicVIP  = netip.MustParseAddrPort("192.0.2.80:80")
	dynamicVIP6 = netip.MustParseAddrPort("[2001:db8::80]:80")
	dynamicKey  = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
)

// serviceKeys are of both VIPs: changes of destination are signed by them.
func serviceKeys() (all []keyfile.Group) {
	for _, vip := range []netip.AddrPort{dynamicVIP, dynamicVIP6} {
		all = append(all, keyfile.Group{Name: "web.example.", Address: vip.Addr(), Private: dynamicKey})
	}
	return all
}

// dynamicAgents are three agents of a dynamic service, as processes of their own, and a user of s1's behind a router.
//
//	user (10.8.0.100) --- router --- lan --- s1 (10.9.0.1), s2 (10.9.0.2), s3 (10.9.0.3), leader (10.9.0.9)
//
// Of IPv6 they have addresses with the same ends: 2001:db8:8::100, 2001:db8:9::1 and so on.
type dynamicAgents struct {
	t      *testing.T
	net    *testnet.Net
	user   *testnet.Node
	nodes  map[string]*testnet.Node
	agents map[string]*testnet.Process
	apps   map[string]string // sockets of the agents, for applications
}

var dynamicServers = []string{"s1", "s2", "s3"}

func newDynamicAgents(t *testing.T) *dynamicAgents {
	n := testnet.New(t)
	a := &dynamicAgents{t: t, net: n, user: n.Node("u"), nodes: map[string]*testnet.Node{}, agents: map[string]*testnet.Process{}, apps: map[string]string{}}
	lan, router := n.Node("lan"), n.Node("router")
	n.Link(router, "user", "10.8.0.1/24", a.user, "eth0", "10.8.0.100/24")
	n.Link(router, "lan", "10.9.0.254/24", lan, "router", "")
	router.Address("user", "2001:db8:8::1/64")
	router.Address("lan", "2001:db8:9::254/64")
	a.user.Address("eth0", "2001:db8:8::100/64")
	a.user.Route("default", "10.8.0.1")
	a.user.Route("::/0", "2001:db8:8::1")
	router.Sysctl("net.ipv4.ip_forward", "1")
	router.Sysctl("net.ipv6.conf.all.forwarding", "1")
	router.Route("192.0.2.80/32", "10.9.0.1")
	router.Route("2001:db8::80/128", "2001:db8:9::1")
	hosts := append(slices.Clone(dynamicServers), "leader")
	for i, name := range hosts {
		last := i + 1
		if name == "leader" {
			last = 9
		}
		a.nodes[name] = n.Node(name)
		n.Link(lan, name, "", a.nodes[name], "eth0", fmt.Sprintf("10.9.0.%d/24", last))
		a.nodes[name].Address("eth0", fmt.Sprintf("2001:db8:9::%d/64", last))
		a.nodes[name].Route("default", "10.9.0.254")
		a.nodes[name].Route("::/0", "2001:db8:9::254")
	}
	lan.Bridge("br0", false, append(hosts, "router")...)
	return a
}

const dynamicWeb = "name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [tcp/80]\nslots: suffix/1\nhandover: [transfer, forward]\ndynamic: true\n"

// start starts the agents of a service, by their command lines as something has them.
func (a *dynamicAgents) start(service string, as func(name string, argv []string) []string) {
	a.t.Helper()
	for i, name := range dynamicServers {
		argv := takeoverAgentOf(a.t, a.net, name, netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}), service)
		a.apps[name] = filepath.Join(filepath.Dir(argv[len(argv)-1]), "migrate.sock")
		a.agents[name] = a.nodes[name].Start(as(name, argv)...)
	}
}

// client is the user's host's side.
func (a *dynamicAgents) client() (client kernel.Client) {
	a.t.Helper()
	must(a.t, a.user.Do(func() (err error) {
		if client, err = kernel.OpenClient(kernel.Config{Interfaces: []string{"eth0"}, Bpffs: filepath.Join(a.net.BPFFS(), "user")}); err != nil {
			return err
		}
		return client.Set([]kernel.ClientService{{VIP: dynamicVIP, Published: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}}})
	}))
	a.t.Cleanup(func() { _ = client.Close(false) })
	return client
}

// stop ends the agents as systemd does.
func (a *dynamicAgents) stop() {
	a.t.Helper()
	for _, name := range dynamicServers {
		a.agents[name].Signal(syscall.SIGTERM)
		if err := a.agents[name].Wait(); err != nil {
			a.t.Errorf("clean stop of %s: %v\n%s", name, err, a.agents[name].Output())
		}
	}
}

func asIs(_ string, argv []string) []string { return argv }

// TestNetAgentSaysWhereConnectionsLive: an agent of a dynamic service, as a process of its own, answers users' hosts that ask with its own address,
// where their packets go from then on.
func TestNetAgentSaysWhereConnectionsLive(t *testing.T) {
	a := newDynamicAgents(t)
	a.start(dynamicWeb, asIs)
	serve(t, a.nodes["s1"], dynamicVIP)
	client := a.client()
	testnet.Eventually(t, 20*time.Second, func() bool { // until the agent serves it
		return echoes(t, a.user, dynamicVIP) && livesAt(t, client, netip.MustParseAddrPort("10.9.0.1:80"))
	}, "a connection that lives at s1's own address")
	if c, err := client.Counters(); err != nil || c.Sent == 0 || c.Received == 0 {
		t.Errorf("%+v, %v", c, err)
	}
	a.stop()
}

// serve answers each connection with what it says, once.
func serve(t *testing.T, node *testnet.Node, at netip.AddrPort) {
	t.Helper()
	serveWhenThere(t, node, at, func(c net.Conn) {
		buf := make([]byte, 5)
		if _, err := c.Read(buf); err == nil {
			_, _ = c.Write(buf)
		}
	})
}

// serveWhenThere serves at a VIP as soon as the agent has added it.
func serveWhenThere(t *testing.T, node *testnet.Node, at netip.AddrPort, handle func(net.Conn)) {
	t.Helper()
	var l net.Listener
	testnet.Eventually(t, 10*time.Second, func() bool {
		return node.Do(func() (err error) {
			l, err = net.Listen("tcp", at.String())
			return err
		}) == nil
	}, "the VIP is there")
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
}

func echoes(t *testing.T, user *testnet.Node, to netip.AddrPort) bool {
	var c net.Conn
	if user.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", to.String(), time.Second)
		return err
	}) != nil {
		return false
	}
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	buf := make([]byte, 5)
	if _, err := c.Write([]byte("hello")); err != nil {
		return false
	}
	_, err := c.Read(buf)
	return err == nil && string(buf) == "hello"
}

// livesAt says whether there is a connection, TIME-WAIT included, at that place.
func livesAt(t *testing.T, client kernel.Client, here netip.AddrPort) bool {
	t.Helper()
	all, err := client.Connections()
	must(t, err)
	for _, c := range all {
		if c.Destination == here {
			return true
		}
	}
	return false
}
