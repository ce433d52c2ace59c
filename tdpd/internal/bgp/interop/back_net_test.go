package interop

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// TestNetToldBack: FRR has one table of routes with and without labels, and tells what it has heard with a label on sessions without, and no next hop. The speaker takes that for a
// withdrawal, and says so of each; where FRR is configured as docs/bgp.md has it there is nothing to be said.
func TestNetToldBack(t *testing.T) {
	t.Parallel()
	for name, out := range map[string][]string{"as documented": {"-prefix-list nothing out"}, "without": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.us.Address("a", "10.0.1.11/24")
			other := r.neighbor(bgp.IPv4Labelled)
			other.Address, other.Local = netip.MustParseAddr("10.0.1.12"), netip.MustParseAddr("10.0.1.11")
			r.peer.Address("a", "10.0.1.12/24")
			r.d.Neighbors = []bgp.Neighbor{r.neighbor(bgp.IPv4Unicast), other}
			r.d.Unicast = []bgp.Path{{Prefix: vip4}}
			host := netip.MustParsePrefix("10.9.0.80/32")
			f := r.frr(frrConfig{
				more: "ip prefix-list nothing seq 5 deny any",
				global: " neighbor 10.0.1.11 remote-as 4200000001\n neighbor 10.0.1.11 timers connect 1\n neighbor 10.0.1.11 advertisement-interval 0\n" +
					" neighbor 10.0.1.11 update-source 10.0.1.12\n",
				families: family("ipv4 unicast", us4, out...) + family("ipv4 labeled-unicast", "10.0.1.11"),
			})
			r.apply()
			r.established(frr4)
			r.established(other.Address)
			r.d.Labelled = []bgp.LabelledPath{{Path: bgp.Path{Prefix: host}, Label: 1000}}
			r.apply()
			r.eventually(func() bool {
				p := f.routes("ipv4 labeled-unicast", host)
				return len(p) == 1 && p[0].Label == 1000 && len(f.routes("ipv4 unicast", vip4)) == 1
			}, "the label, and the VIP, at FRR")
			isWrong := func() bool { return strings.Contains(r.log.String(), "treated as withdraw") }
			if out == nil {
				r.eventually(isWrong, "FRR's word about the label")
				return
			}
			// FRR answers a question for all that it tells in order: what it has told before is here then.
			before := r.state(frr4).Received.Updates
			if err := r.client.Clear(t.Context(), frr4, true); err != nil {
				t.Fatal(err)
			}
			r.eventually(func() bool { return r.state(frr4).Received.Updates > before }, "the end of what FRR tells")
			if isWrong() {
				t.Error("the speaker complains of what FRR tells")
			}
		})
	}
}
