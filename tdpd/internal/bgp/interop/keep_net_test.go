package interop

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgp/gobgp"
)

// TestNetKeep: a speaker that goes on keeps what an earlier client has told it, for as long as the next one says so and does not name it; rules only while there are no
// others.
func TestNetKeep(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	match := func(source string) bgp.FlowRule {
		return bgp.FlowRule{FlowMatch: bgp.FlowMatch{Destination: vip4, Source: netip.MustParsePrefix(source)}, FlowAction: bgp.FlowAction{RedirectIP: us4}}
	}
	has := func(want string) {
		t.Helper()
		var got []string
		for _, f := range bgp.Families() {
			err := r.client.Routes(t.Context(), bgp.Query{Family: f}, func(one bgp.Route) bool {
				if one.FlowRule != nil {
					got = append(got, one.FlowRule.Source.String())
				} else {
					got = append(got, one.Unicast.Prefix.Addr().String())
				}
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(got)
		if text := strings.Join(got, " "); text != want {
			t.Errorf("the speaker has %q, want %q", text, want)
		}
	}
	r.d.Unicast, r.d.Rules = []bgp.Path{{Prefix: vip4}, {Prefix: vip6}}, []bgp.FlowRule{match("203.0.113.0/25")}
	r.apply()
	has("192.0.2.80 2001:db8:80::80 203.0.113.0/25")

	r.client.Close()
	var err error
	if r.client, err = gobgp.New(gobgp.Options{Target: r.child.Socket(), Log: slog.New(slog.NewTextHandler(r.log, nil))}); err != nil {
		t.Fatal(err)
	}
	r.d.Keep, r.d.Unicast, r.d.Rules = true, nil, nil
	r.apply()
	has("192.0.2.80 2001:db8:80::80 203.0.113.0/25")
	r.d.Unicast, r.d.Rules = []bgp.Path{{Prefix: vip4}}, []bgp.FlowRule{match("203.0.113.0/24")}
	r.apply()
	has("192.0.2.80 2001:db8:80::80 203.0.113.0/24")
	r.d.Unicast = nil
	r.apply()
	has("2001:db8:80::80 203.0.113.0/24")
	r.d.Keep = false
	r.apply()
	has("203.0.113.0/24")
}
