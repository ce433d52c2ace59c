package main

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
)

// TestNetAgentSaysWhereConnectionsLive: an agent of a dynamic service, as a process of its own, answers users' hosts that ask with its own address,
// where their packets go from then on.
func TestNetAgentSaysWhereConnectionsLive(t *testing.T) {
	n := testnet.New(t)
	lan, user := n.Node("lan"), n.Node("u")
	n.Link(lan, "u", "", user, "eth0", "10.9.0.100/24")
	user.Route("192.0.2.80/32", "10.9.0.1")
	var s1 *testnet.Node
	agents := map[string]*testnet.Process{}
	for i, name := range []string{"s1", "s2", "s3"} {
		node := n.Node(name)
		n.Link(lan, name, "", node, "eth0", fmt.Sprintf("10.9.0.%d/24", i+1))
		if name == "s1" {
			s1 = node
		}
		agents[name] = node.Start(takeoverAgentOf(t, n, name, netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}),
			"name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [tcp/80]\nslots: suffix/1\nhandover: [transfer, forward]\ndynamic: true\n")...)
	}
	lan.Bridge("br0", false, "u", "s1", "s2", "s3")
	vip, here := netip.MustParseAddrPort("192.0.2.80:80"), netip.MustParseAddrPort("10.9.0.1:80")
	serve(t, s1, vip)
	var client kernel.Client
	must(t, user.Do(func() (err error) {
		if client, err = kernel.OpenClient(kernel.Config{Interfaces: []string{"eth0"}, Bpffs: filepath.Join(n.BPFFS(), "user")}); err != nil {
			return err
		}
		return client.Set([]kernel.ClientService{{VIP: vip, Published: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}}})
	}))
	t.Cleanup(func() { _ = client.Close(false) })
	testnet.Eventually(t, 20*time.Second, func() bool { // until the agent serves it
		return echoes(t, user, vip) && livesAt(t, client, here)
	}, "a connection that lives at s1's own address")
	if c, err := client.Counters(); err != nil || c.Sent == 0 || c.Received == 0 {
		t.Errorf("%+v, %v", c, err)
	}
	for name, agent := range agents {
		agent.Signal(syscall.SIGTERM)
		if err := agent.Wait(); err != nil {
			t.Errorf("clean stop of %s: %v\n%s", name, err, agent.Output())
		}
	}
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
