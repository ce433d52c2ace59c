package interop

import (
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// TestNetMD5: with the same password there is a session, and a password that changes at our end alone ends it; without passwords it is back.
func TestNetMD5(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := r.frr(frrConfig{neighbor: []string{"password tell-nobody"}, families: family("ipv4 unicast", us4)})
	n := r.neighbor(bgp.IPv4Unicast)
	n.Password = "tell-nobody"
	r.d.Unicast, r.d.Neighbors = []bgp.Path{{Prefix: vip4}}, []bgp.Neighbor{n}
	r.apply()
	r.established(frr4)
	r.d.Neighbors[0].Password = "something-else"
	r.apply()
	r.eventually(func() bool { return r.state(frr4).State != bgp.Established }, "the end of the session")
	begun := time.Now()
	for time.Since(begun) < 5*time.Second {
		if r.state(frr4).State == bgp.Established {
			t.Fatal("a session with two passwords")
		}
	}
	r.d.Neighbors[0].Password = ""
	f.configure("no neighbor 10.0.1.1 password")
	r.apply()
	r.established(frr4)
	r.eventually(func() bool { return len(f.routes("ipv4 unicast", vip4)) == 1 }, "the VIP")
}

// TestNetGTSM: both ends want all hops; a neighbor that sends with a lower TTL has no session.
func TestNetGTSM(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := r.frr(frrConfig{neighbor: []string{"ttl-security hops 1"}, families: family("ipv4 unicast", us4)})
	n := r.neighbor(bgp.IPv4Unicast)
	n.GTSM = true
	r.d.Neighbors = []bgp.Neighbor{n}
	r.apply()
	r.established(frr4)
	f.configure("no neighbor 10.0.1.1 ttl-security hops 1")
	r.eventually(func() bool { return r.state(frr4).State != bgp.Established }, "the end of the session: FRR's packets have a TTL of 1 now")
}

// TestNetPolicies: what a neighbor tells passes by the policy that its name stands for, changed as that says; and so does what it is told.
func TestNetPolicies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	in := netip.MustParsePrefix("198.51.100.0/24")
	r.d.Policies = []bgp.Policy{
		{Name: "in", Rules: []bgp.PolicyRule{
			{Prefixes: []bgp.PrefixRange{{Prefix: netip.MustParsePrefix("198.51.100.64/26"), Least: 26, Most: 32}}, Deny: true},
			// The speaker looks at the longest prefix of a set alone: 198.51.100.128/25 must not hide what the wider one says.
			{Prefixes: []bgp.PrefixRange{{Prefix: in, Least: 24, Most: 32}, {Prefix: netip.MustParsePrefix("198.51.100.128/25"), Least: 25, Most: 25}}, Set: bgp.PolicySet{LocalPref: pointer(300), Add: []bgp.Community{7<<16 | 7}}},
		}},
		{Name: "out", Rules: []bgp.PolicyRule{
			{Communities: []bgp.Community{65001<<16 | 1}, Deny: true},
			{Set: bgp.PolicySet{MED: pointer(20), Prepend: 2, Remove: []bgp.Community{65001<<16 | 2}}},
		}},
	}
	n := r.neighbor(bgp.IPv4Unicast)
	n.Import, n.Export = "in", "out"
	r.d.Neighbors = []bgp.Neighbor{n}
	secret := netip.MustParsePrefix("192.0.2.81/32")
	r.d.Unicast = []bgp.Path{
		{Prefix: secret, Attributes: bgp.Attributes{Communities: []bgp.Community{65001<<16 | 1}}},
		{Prefix: vip4, Attributes: bgp.Attributes{Prepend: 1, Communities: []bgp.Community{65001<<16 | 2}}},
	}
	seen := r.watch()
	f := r.frr(frrConfig{global: " no bgp network import-check\n", families: family("ipv4 unicast", us4,
		"network 198.51.100.0/24", "network 198.51.100.64/26", "network 198.51.100.65/32", "network 198.51.100.129/32", "network 203.0.113.0/24")})
	r.apply()
	r.eventually(func() bool {
		p := f.routes("ipv4 unicast", vip4)
		return len(p) == 1 && p[0].Metric == 20 && p[0].AsPath.String == "4200000001 4200000001 4200000001 4200000001" && p[0].Community.String == ""
	}, "the VIP as the policy wants it")
	if len(f.routes("ipv4 unicast", secret)) != 0 {
		t.Error("told against the policy")
	}
	r.eventually(func() bool {
		return seen.unicast(in) != nil && seen.unicast(netip.MustParsePrefix("198.51.100.129/32")) != nil
	}, "what passes")
	if p := seen.unicast(in); p.LocalPref == nil || *p.LocalPref != 300 || len(p.Communities) != 1 || p.Communities[0] != 7<<16|7 {
		t.Errorf("%+v", p)
	}
	if routes, _, _, _ := seen.counts(); routes != 2 {
		t.Errorf("%d routes were taken", routes)
	}
	// Another policy holds for what was told before.
	r.d.Policies[0].Rules = r.d.Policies[0].Rules[:1]
	r.d.Policies[1].Rules = r.d.Policies[1].Rules[1:]
	r.apply()
	r.eventually(func() bool {
		routes, _, _, _ := seen.counts()
		return routes == 0 && len(f.routes("ipv4 unicast", secret)) == 1
	}, "the other policies")
}
