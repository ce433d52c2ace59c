package interop

import (
	"fmt"
	"testing"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

func pointer(n uint32) *uint32 { return &n }

// unicast starts FRR and a session with it for each family, by that family.
func (r *rig) unicast(c frrConfig) *frr {
	r.t.Helper()
	c.v6 = append([]string{}, c.v6...)
	if c.families == "" {
		c.families = family("ipv4 unicast", us4) + family("ipv6 unicast", us6)
	}
	f := r.frr(c)
	six := r.neighbor(bgp.IPv6Unicast)
	six.Address = frr6
	r.d.Neighbors = []bgp.Neighbor{r.neighbor(bgp.IPv4Unicast), six}
	r.apply()
	r.established(frr4)
	r.established(frr6)
	return f
}

// TestNetVIP: addresses of both families are announced, drained by each of the three ways, undrained, and withdrawn; sessions stay.
func TestNetVIP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.d.Unicast = []bgp.Path{{Prefix: vip4}, {Prefix: vip6}}
	f := r.unicast(frrConfig{})
	both := func(what string, is func(route) bool) {
		t.Helper()
		r.eventually(func() bool {
			a, b := f.routes("ipv4 unicast", vip4), f.routes("ipv6 unicast", vip6)
			return len(a) == 1 && len(b) == 1 && a[0].Valid && b[0].Valid && is(a[0]) && is(b[0])
		}, what)
	}
	plain := func(p route) bool {
		return p.AsPath.String == fmt.Sprint(uint32(ourAS)) && p.Metric == 0 && p.Community.String == ""
	}
	both("VIPs at FRR", plain)
	for _, next := range []struct {
		what string
		a    bgp.Attributes
		is   func(route) bool
	}{
		{"MED", bgp.Attributes{MED: pointer(500)}, func(p route) bool { return p.Metric == 500 }},
		{"prepended", bgp.Attributes{Prepend: 5}, func(p route) bool {
			return p.AsPath.String == fmt.Sprintf("%[1]d %[1]d %[1]d %[1]d %[1]d %[1]d", uint32(ourAS)) && p.Metric == 0
		}},
		{"GRACEFUL_SHUTDOWN", bgp.Attributes{Communities: []bgp.Community{bgp.GracefulShutdown, 65001<<16 | 7}}, func(p route) bool {
			return p.Community.String == "65001:7 graceful-shutdown"
		}},
		{"a path of others passed on", bgp.Attributes{ASPath: []uint32{64999, 4_200_000_002}}, func(p route) bool {
			return p.AsPath.String == fmt.Sprintf("%d 64999 4200000002", uint32(ourAS))
		}},
		{"undrained", bgp.Attributes{}, plain},
	} {
		r.d.Unicast = []bgp.Path{{Prefix: vip4, Attributes: next.a}, {Prefix: vip6, Attributes: next.a}}
		r.apply()
		both(next.what, next.is)
	}
	up := r.state(frr4).Since
	r.d.Unicast = nil
	r.apply()
	r.eventually(func() bool { return len(f.routes("ipv4 unicast", vip4))+len(f.routes("ipv6 unicast", vip6)) == 0 }, "withdrawn")
	if s := r.state(frr4); s.State != bgp.Established || s.Since != up || s.AS != frrAS || s.RouterID != frr4 {
		t.Errorf("the session has not gone on since %v: %+v", up, s)
	}
}

// TestNetIBGP: toward our own AS a path is not prepended, and has its local preference.
func TestNetIBGP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.d.Unicast = []bgp.Path{{Prefix: vip4, Attributes: bgp.Attributes{Prepend: 3, LocalPref: pointer(0)}}}
	f := r.frr(frrConfig{as: ourAS, families: family("ipv4 unicast", us4)})
	n := r.neighbor(bgp.IPv4Unicast)
	n.AS = ourAS
	r.d.Neighbors = []bgp.Neighbor{n}
	r.apply()
	r.eventually(func() bool { return len(f.routes("ipv4 unicast", vip4)) == 1 }, "the VIP at FRR")
	if p := f.routes("ipv4 unicast", vip4)[0]; p.AsPath.String != "Local" || p.LocalPref == nil || *p.LocalPref != 0 {
		t.Errorf("%+v", p)
	}
}
