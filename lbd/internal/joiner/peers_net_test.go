package joiner

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

func command(t *testing.T, argv ...string) (string, error) {
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	return string(out), err
}

// A Linux bridge with IGMP snooping learns the group of an extended report, sends the group's packets where the server is
// and nowhere else, and forgets it on the leave.
func TestNetSnoopingBridgeLearnsTheGroup(t *testing.T) {
	n := testnet.New(t)
	lan, router, server, silent := n.Node("switch"), n.Node("router"), n.Node("server"), n.Node("silent")
	n.Link(router, "down", "10.2.0.1/24", lan, "p1", "")
	n.Link(server, "eth0", "10.2.0.2/24", lan, "p2", "")
	n.Link(silent, "eth0", "10.2.0.3/24", lan, "p3", "")
	lan.Bridge("br0", true, "p1", "p2", "p3")
	// Intervals are in 1/100 s. A bridge snoops only where it knows of a querier, so this one becomes it; it floods for one
	// response interval from then on, which therefore has to be short before.
	for _, setting := range [][]string{
		{"mcast_igmp_version", "3"}, {"mcast_last_member_interval", "20"}, {"mcast_startup_query_interval", "30"},
		{"mcast_query_response_interval", "20"}, {"mcast_querier", "1"},
	} {
		out, err := lan.Run(append([]string{"ip", "link", "set", "br0", "type", "bridge"}, setting...)...)
		if err != nil {
			t.Fatalf("bridge setting %v: %v: %s", setting, err, out)
		}
	}

	mdb := func() bool {
		out, err := lan.Run("bridge", "mdb", "show", "dev", "br0")
		if err != nil {
			t.Fatalf("bridge mdb: %v\n%s", err, out)
		}
		for line := range strings.Lines(out) {
			if strings.Contains(line, groupA.String()) && strings.Contains(line, "port p2") {
				return true
			}
		}
		return false
	}
	got, stray := countPackets(t, server), countPackets(t, silent)
	loop, end := runLoop(t, server, "eth0")
	if mdb() {
		t.Fatal("the bridge knows the group before it is joined")
	}
	if err := loop.Set(t.Context(), []Membership{member(groupA, 1, 20), member(groupB, 1, 3)}); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, 5*time.Second, mdb, "the bridge's entry of ", groupA)

	send := sendPackets(t, router, "down")
	testnet.Eventually(t, 10*time.Second, func() bool { // until the bridge trusts its querier it floods
		strays, arrived := stray.Load(), got.Load()
		for range 20 {
			send()
		}
		testnet.Eventually(t, 5*time.Second, func() bool { return got.Load() >= arrived+20 }, "packets at the server")
		return stray.Load() == strays
	}, "an end of packets at the silent host")

	end()
	testnet.Eventually(t, 5*time.Second, func() bool { return !mdb() }, "the bridge to forget ", groupA)
}

// countPackets counts the UDP packets of groupA that reach the node's eth0.
func countPackets(t *testing.T, node *testnet.Node) *atomic.Int64 {
	t.Helper()
	var count atomic.Int64
	eachPacket(t, node, "eth0", func(b []byte) {
		if b[14+9] == unix.IPPROTO_UDP && netip.AddrFrom4([4]byte(b[14+16:])) == groupA {
			count.Add(1)
		}
	})
	return &count
}

// sendPackets returns a function that sends one packet to groupA from the node's interface.
func sendPackets(t *testing.T, node *testnet.Node, ifname string) func() {
	t.Helper()
	var c net.PacketConn
	err := node.Do(func() (err error) {
		if c, err = net.ListenPacket("udp4", "10.2.0.1:0"); err != nil {
			return err
		}
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		return ipv4.NewPacketConn(c).SetMulticastInterface(ifi)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return func() {
		if _, err := c.WriteTo([]byte("hello"), &net.UDPAddr{IP: groupA.AsSlice(), Port: 80}); err != nil {
			t.Fatal(err)
		}
	}
}

// FRR's pimd learns the group of an extended report and loses it on the leave.
func TestNetPimdLearnsTheGroup(t *testing.T) {
	n := testnet.New(t)
	server, router := n.Node("server"), n.Node("router")
	n.Link(server, "eth0", "10.2.0.2/24", router, "down", "10.2.0.1/24")
	vtysh := startPimd(t, router)
	groups := func() string { out, _ := vtysh("show ip igmp groups json"); return out }
	testnet.Eventually(t, 20*time.Second, func() bool {
		out, err := vtysh("show ip igmp interface json")
		return err == nil && strings.Contains(out, `"querier":true`)
	}, "pimd to be the querier")

	loop, end := runLoop(t, server, "eth0")
	if err := loop.Set(t.Context(), []Membership{member(groupA, 1, 300), member(groupB, 1, 3)}); err != nil {
		t.Fatal(err)
	}
	learned := func() bool {
		out := groups()
		if !strings.Contains(out, groupA.String()) || !strings.Contains(out, groupB.String()) {
			return false
		}
		var decoded map[string]any
		if err := json.Unmarshal([]byte(out), &decoded); err != nil {
			t.Fatalf("pimd's groups: %v\n%s", err, out)
		}
		return true
	}
	testnet.Eventually(t, 10*time.Second, learned, "both groups at pimd")
	if out := groups(); !strings.Contains(out, `"mode":"EXCLUDE"`) {
		t.Errorf("pimd does not take every source of the groups:\n%s", out)
	}
	end()
	testnet.Eventually(t, 20*time.Second, func() bool { return !strings.Contains(groups(), groupA.String()) }, "pimd to forget ", groupA)
}

// startPimd runs FRR's zebra and pimd in the node, with all of their files in a directory of the test's own.
func startPimd(t *testing.T, node *testnet.Node) func(command string) (string, error) {
	t.Helper()
	frr, err := user.Lookup("frr")
	if err != nil {
		t.Fatalf("%v: install Debian's frr (tools/setup does)", err)
	}
	dir, err := os.MkdirTemp("", "frr") // not the test's: paths of Unix sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	own := func(path string) {
		t.Helper()
		uid, _ := strconv.Atoi(frr.Uid)
		gid, _ := strconv.Atoi(frr.Gid)
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	own(dir)
	for _, daemon := range []struct{ name, config string }{
		{"zebra", ""},
		{"pimd", "interface down\n ip igmp\n ip igmp version 3\n ip igmp query-interval 10\n ip igmp last-member-query-interval 2\n ip pim\n"},
	} {
		conf := filepath.Join(dir, daemon.name+".conf")
		if err := os.WriteFile(conf, []byte(daemon.config), 0o640); err != nil {
			t.Fatal(err)
		}
		own(conf)
		node.Start("/usr/lib/frr/"+daemon.name, "-f", conf, "-i", filepath.Join(dir, daemon.name+".pid"),
			"-z", filepath.Join(dir, "zserv.api"), "--vty_socket", dir, "-P", "0")
		socket := filepath.Join(dir, daemon.name+".vty")
		testnet.Eventually(t, 20*time.Second, func() bool { _, err := os.Stat(socket); return err == nil }, daemon.name, " to start")
	}
	return func(command string) (string, error) { return node.Run("vtysh", "--vty_socket", dir, "-c", command) }
}
