package main

import (
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/testnet"
)

// This test runs in the machine, see docs/testing.md.
func TestVMKernelPushesSwapsAndPops(t *testing.T) {
	n := testnet.NewMPLS(t)
	a, b, c := n.Node("a"), n.Node("b"), n.Node("c")
	n.Link(a, "ab", "10.0.1.1/24", b, "ba", "10.0.1.2/24")
	n.Link(b, "bc", "10.0.2.2/24", c, "cb", "10.0.2.3/24")
	c.Address("lo", "10.9.9.9/32")
	for node, port := range map[*testnet.Node]string{b: "ba", c: "cb"} {
		node.Sysctl("net.mpls.platform_labels", "1000")
		node.Sysctl("net.mpls.conf."+port+".input", "1")
		node.Sysctl("net.ipv4.conf.all.rp_filter", "0")
		node.Sysctl("net.ipv4.conf."+port+".rp_filter", "0")
	}
	run := func(node *testnet.Node, command string) string {
		t.Helper()
		out, err := node.Run(strings.Fields(command)...)
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return out
	}
	run(a, "ip route add 10.9.9.9/32 encap mpls 200 via inet 10.0.1.2")
	run(b, "ip -f mpls route add 200 as 300 via inet 10.0.2.3")
	run(c, "ip -f mpls route add 300 dev lo")
	run(c, "ip route add 10.0.1.0/24 via 10.0.2.2")
	run(b, "sysctl -qw net.ipv4.ip_forward=1") // for the answers; b knows no route to 10.9.9.9
	if out, err := b.Run("ip", "route", "get", "10.9.9.9"); err == nil {
		t.Fatalf("b could forward without labels: %s", out)
	}
	run(a, "ping -c 3 -i 0.2 -W 2 10.9.9.9")
	run(b, "ip -f mpls route del 200")
	if out, err := a.Run("ping", "-c", "1", "-W", "1", "10.9.9.9"); err == nil {
		t.Errorf("packets pass without the label's entry: %s", out)
	}
}
