package probe

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manycast/manycast/internal/testnet"
)

// Ways are lost that go out of a route, whether it is replaced or deleted; other prefixes and tables are not meant, and what is replaced by the same is not lost.
func TestNetRoutesThatAreLost(t *testing.T) {
	n := testnet.New(t)
	router, other := n.Node("router"), n.Node("other")
	n.Link(router, "a", "10.0.1.1/24", other, "a", "10.0.1.2/24")
	ip := func(args ...string) {
		t.Helper()
		if out, err := router.Run(append([]string{"ip"}, args...)...); err != nil {
			t.Fatal(err, out)
		}
	}
	const vip = "192.0.2.80"
	two := []string{"nexthop", "via", "10.0.1.2", "nexthop", "via", "10.0.1.3"}
	ip(append([]string{"route", "add", vip}, two...)...)
	began := time.Now()
	r, err := WatchRoutes(router.Namespace, netip.MustParseAddr(vip))
	if err != nil {
		t.Fatal(err)
	}
	now := func(want ...string) {
		t.Helper()
		var gateways []netip.Addr
		for _, w := range want {
			gateways = append(gateways, netip.MustParseAddr(w))
		}
		testnet.Eventually(t, 5*time.Second, func() bool { return slices.Equal(r.Now(), gateways) }, want)
	}
	now("10.0.1.2", "10.0.1.3")
	ip(append([]string{"route", "replace", vip}, two...)...)
	ip("route", "add", "192.0.2.0/24", "via", "10.0.1.2")
	ip("route", "del", "192.0.2.0/24")
	ip("route", "add", vip, "via", "10.0.1.2", "table", "99")
	ip("route", "del", vip, "table", "99")
	ip("route", "replace", vip, "via", "10.0.1.2")
	now("10.0.1.2")
	ip(append([]string{"route", "replace", vip}, two...)...)
	now("10.0.1.2", "10.0.1.3")
	ip("route", "del", vip)
	now()
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	var got []string
	for _, l := range r.Lost(began, time.Now()) {
		got = append(got, l.Via.String())
	}
	if diff := cmp.Diff([]string{"10.0.1.3", "10.0.1.2", "10.0.1.3"}, got); diff != "" {
		t.Error(diff)
	}
	if early := r.Lost(began.Add(-time.Hour), began); len(early) > 0 {
		t.Errorf("lost before: %v", early)
	}
}
