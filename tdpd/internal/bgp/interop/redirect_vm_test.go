package interop

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// TestVMFlowSpecRedirectsByLabel: FRR has no link to the server that a rule redirects to, but the label that we have told it on another session. zebra's route in the rule's table
// stays inactive then, for FRR 8.4 resolves none of FlowSpec's by another route; a static one of FRR's own in that table takes the label, and the next one when it changes. (A rule of
// the kernel stands for the mark, as in TestNetFlowSpecRedirects: user-mode Linux has no nftables.) So the user of the rule goes by the label, and comes to the server; another
// one goes to us without.
func TestVMFlowSpecRedirectsByLabel(t *testing.T) {
	r := newNetworkIn(t, testnet.NewMPLS(t))
	r.startChild()
	const label, next = 1080, 1081
	host := netip.MustParsePrefix("10.9.0.80/32")
	r.treeTo(host.Addr(), label, next)
	steered, other := r.user("u1", "203.0.113.130/30", "203.0.113.129/30"), r.user("u2", "203.0.113.2/30", "203.0.113.1/30")
	r.d.Unicast = []bgp.Path{{Prefix: vip4}}
	r.d.Labelled = []bgp.LabelledPath{{Path: bgp.Path{Prefix: host, Attributes: bgp.Attributes{NextHop: us4}}, Label: label}}
	r.d.Rules = []bgp.FlowRule{{
		FlowMatch:  bgp.FlowMatch{Destination: vip4, Source: netip.MustParsePrefix("203.0.113.128/25")},
		FlowAction: bgp.FlowAction{RedirectIP: host.Addr()},
	}}
	labels := r.neighbor(bgp.IPv4Labelled)
	labels.Address = frr6
	r.d.Neighbors = []bgp.Neighbor{r.neighbor(bgp.IPv4Unicast, bgp.IPv4FlowSpec), labels}
	f := r.frr(frrConfig{v6: []string{}, families: family("ipv4 unicast", us4) + family("ipv4 flowspec", us4) + family("ipv4 labeled-unicast", us6)})
	r.apply()
	pushes := func(label int, route ...string) func() bool {
		return func() bool {
			return strings.Contains(r.out(append([]string{"ip", "route", "show"}, route...)...), fmt.Sprintf("encap mpls  %d via 10.0.1.1 dev a", label))
		}
	}
	r.eventually(pushes(label, host.Addr().String()), "the label in FRR's kernel")

	var match, mark []string
	inactive := fmt.Sprintf("via %v inactive", host.Addr())
	r.eventually(func() bool {
		match, mark = zebraMatch.FindStringSubmatch(f.daemon("zebra", "show pbr ipset")), zebraMark.FindStringSubmatch(f.daemon("zebra", "show pbr iptable"))
		return match != nil && mark != nil && strings.Contains(f.daemon("zebra", "show ip route table "+mark[1]), inactive)
	}, "the rule at zebra, and its route, which leads nowhere")
	if out, err := r.peer.Run("ip", "rule", "add", "from", match[1], "to", match[2], "lookup", mark[1], "pref", "100"); err != nil {
		t.Fatal(err, out)
	}
	r.rides(steered, "us", "")
	f.start("staticd", fmt.Sprintf("log stdout\nip route 0.0.0.0/0 %v table %s\n", host.Addr(), mark[1]))
	r.eventually(pushes(label, "table", mark[1]), "the label in the rule's table")
	r.rides(steered, "server", strconv.Itoa(label))
	r.rides(other, "us", "")

	r.d.Labelled[0].Label = next
	r.apply()
	r.eventually(pushes(next, "table", mark[1]), "another label in the rule's table")
	r.rides(steered, "server", strconv.Itoa(next))
	r.rides(other, "us", "")
}

// treeTo has us pop labels toward a server on a link of ours; it answers from the VIP, as we do.
func (r *rig) treeTo(host netip.Addr, labels ...int) {
	r.t.Helper()
	for _, n := range []*testnet.Node{r.us, r.peer} {
		for key, value := range map[string]string{
			"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "0",
			"net.mpls.platform_labels": "100000", "net.mpls.conf.a.input": "1",
		} {
			n.Sysctl(key, value)
		}
	}
	server := r.net.Node("server")
	r.net.Link(server, "eth0", host.String()+"/24", r.us, "s", "10.9.0.1/24")
	r.us.Sysctl("net.ipv4.conf.s.accept_local", "1")
	server.Route("0.0.0.0/0", "10.9.0.1")
	r.us.Route("0.0.0.0/0", frr4.String())
	for _, l := range labels {
		if out, err := r.us.Run("ip", "-f", "mpls", "route", "add", strconv.Itoa(l), "via", "inet", host.String(), "dev", "s"); err != nil {
			r.t.Fatal(err, out)
		}
	}
	for name, n := range map[string]*testnet.Node{"server": server, "us": r.us} {
		n.Address("lo", vip4.String())
		n.Serve(vipPort, func(c net.Conn) { _, _ = io.WriteString(c, name) })
	}
}

// Packets to the VIP as tcpdump has them, each on one line: the label, if there is one, and the port at the user's end.
var (
	toVIP  = regexp.MustCompile(`(?m)^[0-9:.]+ (?:MPLS \(label (\d+), tc 0, \[S\], ttl \d+\) )?IP \(tos.* ([0-9.]+)\.(\d+) > 192\.0\.2\.80\.80: Flags`)
	goesOn = regexp.MustCompile(`\n[ \t]+`)
)

// rides says that a user is answered by whom it is to be, and that its packets go from FRR to us with this label, and no other; "": without one.
func (r *rig) rides(user *testnet.Node, to, label string) {
	r.t.Helper()
	capture := r.peer.Start("tcpdump", "-l", "-n", "-v", "-i", "a", "tcp or mpls")
	r.eventually(func() bool { return strings.Contains(capture.Output(), "listening on") }, "a capture")
	var from netip.AddrPort
	r.eventually(func() bool {
		var who string
		who, from = asks(user, vipPort)
		return who == to
	}, "a user of ", user.Name(), " at ", to)
	var seen int
	r.eventually(func() bool {
		seen = 0
		for _, p := range toVIP.FindAllStringSubmatch(goesOn.ReplaceAllString(capture.Output(), " "), -1) {
			if p[2] != from.Addr().String() || p[3] != strconv.Itoa(int(from.Port())) {
				continue
			}
			if seen++; p[1] != label {
				r.t.Fatalf("a packet with label %q, want %q: %s", p[1], label, p[0])
			}
		}
		return seen >= 3 // of SYN, ACK and FIN
	}, "packets of ", from, " with label ", label)
	r.t.Logf("%v to %s with label %q: %d packets", from, to, label, seen)
	capture.Signal(unix.SIGTERM)
	_ = capture.Wait()
}
