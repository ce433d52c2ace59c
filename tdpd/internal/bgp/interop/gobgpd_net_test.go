package interop

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgp/gobgp"
)

// gobgpd starts Debian's in a node, with its API at a socket.
func (r *rig) gobgpd(node *testnet.Node, config string) (*testnet.Process, string) {
	r.t.Helper()
	dir := r.t.TempDir()
	path, socket := filepath.Join(dir, "gobgpd.toml"), filepath.Join(dir, "api.sock")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return node.Start("gobgpd", "-f", path, "-p", "--pprof-disable", "--api-hosts", "unix://"+socket), socket
}

// TestNetForeign: a gobgpd that somebody else has set up, with a neighbor, a path and policies of its own. We come, and go, and it has what it had; and what is ours comes back
// when it was started anew. What its own neighbor tells is not for us; it hears our VIPs, without marks that are between that gobgpd and us.
func TestNetForeign(t *testing.T) {
	t.Parallel()
	const config = `
[global.config]
as = 4200000001
router-id = "10.0.1.1"
[global.apply-policy.config]
import-policy-list = ["theirs"]
default-import-policy = "accept-route"
[[neighbors]]
[neighbors.config]
neighbor-address = "2001:db8:1::2"
peer-as = 65001
[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = "ipv6-unicast"
[[policy-definitions]]
name = "theirs"
[[policy-definitions.statements]]
name = "theirs-1"
[policy-definitions.statements.actions]
route-disposition = "accept-route"
`
	r := newNetwork(t)
	r.d.Restart = bgp.Restart{}
	p, socket := r.gobgpd(r.us, config)
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if r.client, err = gobgp.New(gobgp.Options{Target: socket, Foreign: true, Log: log}); err != nil {
		t.Fatal(err)
	}
	defer r.client.Close()
	f := r.frr(frrConfig{v6: []string{}, global: " no bgp network import-check\n", families: family("ipv4 unicast", us4, "network 198.51.100.0/24", "network 192.0.2.80/32") +
		family("ipv6 unicast", us6, "network 2001:db8:99::/48") + family("ipv4 flowspec", us4)})
	theirPrefix := netip.MustParsePrefix("2001:db8:99::/48")
	seen := r.watch()
	theirs := func(when string) {
		t.Helper()
		r.eventually(func() bool {
			var routes []string
			_ = r.client.Routes(t.Context(), bgp.Query{Family: bgp.IPv6Unicast}, func(one bgp.Route) bool {
				if one.Unicast.From.IsValid() {
					routes = append(routes, one.Unicast.Prefix.String())
				}
				return true
			})
			return r.state(frr6).State == bgp.Established && strings.Join(routes, " ") == theirPrefix.String()
		}, "their neighbor ", when)
	}
	theirs("at first")
	n := r.neighbor(bgp.IPv4Unicast, bgp.IPv4FlowSpec)
	n.Import = everything.Name
	r.d.Neighbors, r.d.Policies = []bgp.Neighbor{n}, []bgp.Policy{everything}
	r.d.Unicast = []bgp.Path{{Prefix: vip4, Attributes: bgp.Attributes{Prepend: 1}}, {Prefix: vip6, Attributes: bgp.Attributes{Prepend: 1}}}
	r.d.Rules = []bgp.FlowRule{{FlowMatch: bgp.FlowMatch{Destination: vip4, Source: netip.MustParsePrefix("203.0.113.0/24")}, FlowAction: bgp.FlowAction{RedirectIP: us4}}}
	ours := func(when string) {
		t.Helper()
		r.eventually(func() bool {
			one := f.routes("ipv4 unicast", vip4)
			told := 0
			for _, p := range one {
				if p.AsPath.String == "4200000001 4200000001" {
					told++
				}
			}
			return told == 1 && strings.Contains(f.vty("show bgp ipv4 flowspec detail"), "203.0.113.0/24")
		}, "ours at FRR ", when)
		r.eventually(func() bool { return seen.unicast(netip.MustParsePrefix("198.51.100.0/24")) != nil }, "FRR's at us ", when)
		if seen.unicast(vip4) != nil {
			t.Error("FRR's word about our VIP was taken")
		}
		r.eventually(func() bool { return len(f.routes("ipv6 unicast", vip6)) == 1 }, "our VIP at their neighbor ", when)
		if p := f.routes("ipv6 unicast", vip6)[0]; p.LargeCommunity.String != "" || p.AsPath.String != "4200000001" {
			t.Errorf("their neighbor has our VIP with large communities %q, AS path %q", p.LargeCommunity.String, p.AsPath.String)
		}
		theirs(when)
		if seen.unicast(theirPrefix) != nil {
			t.Errorf("what their neighbor tells was taken, %s", when)
		}
	}
	r.apply()
	ours("at first")

	// Another process of ours finds what is ours, and changes nothing.
	up := r.state(frr4).Since
	r.client.Close()
	if r.client, err = gobgp.New(gobgp.Options{Target: socket, Foreign: true, Log: log}); err != nil {
		t.Fatal(err)
	}
	r.apply()
	if s := r.state(frr4); s.State != bgp.Established || s.Since != up {
		t.Errorf("the session has not gone on: %+v, since %v before", s, up)
	}
	r.d.AS++
	if err := r.client.Apply(t.Context(), r.d); err == nil || !strings.Contains(err.Error(), "bgp.as") {
		t.Errorf("another AS: %v", err)
	}
	r.d.AS--

	p.Signal(unix.SIGKILL)
	_ = p.Wait()
	if err := os.Remove(socket); err != nil { // it does not take one that is there
		t.Fatal(err)
	}
	seen = r.watch()
	p = r.us.Start("gobgpd", "-f", filepath.Join(filepath.Dir(socket), "gobgpd.toml"), "-p", "--pprof-disable", "--api-hosts", "unix://"+socket)
	r.eventually(func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return r.client.Apply(ctx, r.d) == nil
	}, "gobgpd, started anew")
	ours("again")

	// A configuration that has another one later knows nothing of its AS; and one that is not wanted has to forget us all the same.
	last, err := gobgp.New(gobgp.Options{Target: socket, Foreign: true, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	if err := last.Forget(t.Context()); err != nil {
		t.Error(err)
	}
	r.eventually(func() bool {
		s := r.state(frr4)
		return !s.Address.IsValid()
	}, "our neighbor is gone")
	theirs("without ours")
	if text := p.Output(); strings.Contains(text, "panic") {
		t.Error(text)
	}
}

// TestNetGobgpdNeighbor: Debian's gobgpd as a neighbor, with all families on one session.
func TestNetGobgpdNeighbor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, socket := r.gobgpd(r.peer, `
[global.config]
as = 65001
router-id = "10.0.1.2"
[[neighbors]]
[neighbors.config]
neighbor-address = "10.0.1.1"
peer-as = 4200000001
[neighbors.graceful-restart.config]
enabled = true
restart-time = 60
long-lived-enabled = true
`+afiSafis("ipv4-unicast", "ipv6-unicast", "ipv4-labelled-unicast", "ipv6-labelled-unicast", "ipv4-flowspec", "ipv6-flowspec"))
	log := slog.New(slog.NewTextHandler(r.log, nil))
	there, err := gobgp.New(gobgp.Options{Target: socket, Foreign: true, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	r.d.Restart.LongLived = 3600 * time.Second
	r.d.Neighbors = []bgp.Neighbor{r.neighbor(bgp.Families()...)}
	hop6 := us6
	r.d.Unicast = []bgp.Path{{Prefix: vip4}, {Prefix: vip6, Attributes: bgp.Attributes{NextHop: hop6}}}
	r.d.Labelled = []bgp.LabelledPath{{Path: bgp.Path{Prefix: netip.MustParsePrefix("10.9.0.80/32")}, Label: 1000}, {Path: bgp.Path{Prefix: netip.MustParsePrefix("2001:db8:9::80/128"), Attributes: bgp.Attributes{NextHop: hop6}}, Label: 1048575}}
	r.d.Rules = []bgp.FlowRule{
		{FlowMatch: bgp.FlowMatch{Destination: vip4, Source: netip.MustParsePrefix("203.0.113.0/24"), Protocol: 17, Port: 53}, FlowAction: bgp.FlowAction{RedirectIP: us4}},
		{FlowMatch: bgp.FlowMatch{Destination: vip6, Source: netip.MustParsePrefix("2001:db8:5::/48")}, FlowAction: bgp.FlowAction{RedirectIP: us6}},
		{FlowMatch: bgp.FlowMatch{Destination: vip6, Source: netip.MustParsePrefix("2001:db8:6::/48")}, FlowAction: bgp.FlowAction{RedirectVRF: bgp.RouteTarget{AS: 4_200_000_001, Value: 7}}},
	}
	r.apply()
	r.established(frr4)
	r.eventually(func() bool {
		got := map[bgp.Family][]bgp.Learned{}
		for _, f := range bgp.Families() {
			if there.Routes(t.Context(), bgp.Query{Family: f}, func(one bgp.Route) bool { got[f] = append(got[f], one.Learned); return true }) != nil {
				return false
			}
		}
		l4, l6, r4, r6 := got[bgp.IPv4Labelled], got[bgp.IPv6Labelled], got[bgp.IPv4FlowSpec], got[bgp.IPv6FlowSpec]
		if len(got[bgp.IPv4Unicast]) != 1 || len(got[bgp.IPv6Unicast]) != 1 || len(l4) != 1 || len(l6) != 1 || len(r4) != 1 || len(r6) != 2 {
			return false
		}
		if l4[0].Labelled.Label != 1000 || l6[0].Labelled.Label != 1048575 || l6[0].Labelled.NextHop != us6 || got[bgp.IPv6Unicast][0].Unicast.NextHop != us6 {
			t.Fatalf("%+v, %+v, %+v", l4[0].Labelled, l6[0].Labelled, got[bgp.IPv6Unicast][0].Unicast)
		}
		rules := []bgp.FlowRule{*r4[0].FlowRule, *r6[0].FlowRule, *r6[1].FlowRule}
		for _, want := range r.d.Rules {
			found := false
			for _, has := range rules {
				found = found || has.FlowMatch == want.FlowMatch && has.FlowAction == want.FlowAction && has.From == us4
			}
			if !found {
				t.Fatalf("%+v is not among %+v", want, rules)
			}
		}
		return true
	}, "all paths at gobgpd")
	agreed := 0
	for _, f := range r.state(frr4).Families {
		if f.Agreed {
			agreed++
		}
	}
	if agreed != len(bgp.Families()) {
		t.Errorf("%d families are agreed on: %+v", agreed, r.state(frr4))
	}
}

func afiSafis(names ...string) string {
	var b strings.Builder
	for _, n := range names {
		b.WriteString("[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"" + n + "\"\n[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n")
	}
	return b.String()
}
