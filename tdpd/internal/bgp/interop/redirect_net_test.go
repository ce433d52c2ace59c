package interop

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// vipPort is where servers are asked.
const vipPort = "192.0.2.80:80"

// What zebra (FRR 8.4) has of a rule: whom it matches, and the mark by which its kernel rule leads to a table.
var (
	zebraMatch = regexp.MustCompile(`from (\S+) to (\S+) \(`)
	zebraMark  = regexp.MustCompile(`table (\d+), fwmark (\d+)`)
)

// TestNetFlowSpecRedirects: FRR makes of a rule what leads a user to the server: a match, a mark, and a table. Two parts are not in the kernel of Debian's FRR 8.4: the
// match is an ipset of a module of zebra's that there is none of ("not installed in PBR"), and the kernel's rule has an interface of no name (FRA_IFNAME ""), which
// no packet comes by. With these two put there as zebra has them the user of the rule comes to the server, and another one to us. (Of a rule that is withdrawn bgpd leaves zebra the
// match, for it takes it for one that was never installed.)
func TestNetFlowSpecRedirects(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for key, value := range map[string]string{"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "0"} {
		r.peer.Sysctl(key, value)
	}
	server := r.net.Node("server")
	r.net.Link(server, "eth0", "10.9.0.80/24", r.peer, "s", "10.9.0.1/24")
	steered, other := r.user("u1", "203.0.113.130/30", "203.0.113.129/30"), r.user("u2", "203.0.113.2/30", "203.0.113.1/30")
	server.Route("0.0.0.0/0", "10.9.0.1")
	r.us.Route("0.0.0.0/0", frr4.String())
	for name, n := range map[string]*testnet.Node{"server": server, "us": r.us} {
		n.Address("lo", vip4.String())
		n.Serve(vipPort, func(c net.Conn) { _, _ = io.WriteString(c, name) })
	}
	r.d.Unicast = []bgp.Path{{Prefix: vip4}}
	r.d.Rules = []bgp.FlowRule{{
		FlowMatch:  bgp.FlowMatch{Destination: vip4, Source: netip.MustParsePrefix("203.0.113.128/25")},
		FlowAction: bgp.FlowAction{RedirectIP: netip.MustParseAddr("10.9.0.80")},
	}}
	r.d.Neighbors = []bgp.Neighbor{r.neighbor(bgp.IPv4Unicast, bgp.IPv4FlowSpec)}
	f := r.frr(frrConfig{families: family("ipv4 unicast", us4) + family("ipv4 flowspec", us4)})
	r.apply()
	comes := func(u *testnet.Node, to string) {
		t.Helper()
		r.eventually(func() bool { return answers(u, vipPort) == to }, "a user of ", u.Name(), " at ", to)
	}
	comes(other, "us")
	var match, mark []string
	r.eventually(func() bool {
		match, mark = zebraMatch.FindStringSubmatch(f.daemon("zebra", "show pbr ipset")), zebraMark.FindStringSubmatch(f.daemon("zebra", "show pbr iptable"))
		return match != nil && mark != nil && strings.Contains(r.out("ip", "route", "show", "table", mark[1]), "default") && strings.Contains(r.out("ip", "rule"), "lookup "+mark[1])
	}, "the rule at zebra, and a table in its kernel")
	if way := r.out("ip", "route", "show", "table", mark[1]); match[1] != "203.0.113.128/25" || match[2] != "192.0.2.80" || !strings.Contains(way, "via 10.9.0.80 dev s") {
		t.Errorf("matches %v, and leads\n%s", match, way)
	}
	if text := f.vty("show bgp ipv4 flowspec detail"); !strings.Contains(text, "not installed in PBR") {
		t.Errorf("FRR marks by itself: this test, and docs/bgp.md, say that it cannot\n%s", text)
	}
	comes(steered, "us")
	if out, err := r.peer.Run("nft", fmt.Sprintf(
		"table ip pbr { chain in { type filter hook prerouting priority mangle; ip saddr %s ip daddr %s meta mark set %s; }; }", match[1], match[2], mark[2])); err != nil {
		t.Fatal(err, out)
	}
	comes(steered, "us") // it is marked, and FRR's rule is none for it
	if out, err := r.peer.Run("ip", "rule", "add", "fwmark", mark[2], "lookup", mark[1], "pref", "100"); err != nil {
		t.Fatal(err, out)
	}
	comes(steered, "server")
	comes(other, "us")

	r.d.Rules = nil
	r.apply()
	r.eventually(func() bool { return !strings.Contains(f.vty("show bgp ipv4 flowspec detail"), match[1]) }, "the rule goes")
}

// user is a host behind FRR.
func (r *rig) user(link, address, gateway string) *testnet.Node {
	r.t.Helper()
	n := r.net.Node(link)
	r.net.Link(n, "eth0", address, r.peer, link, gateway)
	n.Route("0.0.0.0/0", netip.MustParsePrefix(gateway).Addr().String())
	return n
}

// out is what a command in FRR's namespace says; of a table that is not there nothing.
func (r *rig) out(argv ...string) string {
	out, _ := r.peer.Run(argv...)
	return out
}

// answers is who answers a user at an address; "": nobody.
func answers(user *testnet.Node, at string) (who string) {
	who, _ = asks(user, at)
	return who
}

// asks is answers, and the user's end of the connection.
func asks(user *testnet.Node, at string) (who string, from netip.AddrPort) {
	_ = user.Do(func() error {
		c, err := (&net.Dialer{Timeout: soon / 20}).Dial("tcp", at)
		if err != nil {
			return err
		}
		defer c.Close()
		from = c.LocalAddr().(*net.TCPAddr).AddrPort()
		text, err := io.ReadAll(c)
		who = string(text)
		return err
	})
	return who, from
}
