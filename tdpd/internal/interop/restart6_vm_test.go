package interop

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestVMKilledOverIPv6: three of ours with sessions over IPv6 alone, and traffic to an IPv6 server. The one in the middle is killed and comes
// back: no packet is lost, and the labels are the same.
func TestVMKilledOverIPv6(t *testing.T) {
	l := newLine(t, 3, 2, 1)
	server := l.servers()[1]
	p := netip.PrefixFrom(server, 128)
	var all []*ours
	for at := range 3 {
		all = append(all, l.tdpd(at, restarts, func(r *role) {
			r.Config.Transport4, r.Config.Transport6, r.Config.Labels.First = netip.Addr{}, l.id6(at), 1000*(at+1)
			if at == 2 {
				r.Config.Servers.Addresses = []netip.Addr{server}
			}
		}))
	}
	all[0].meets(1)
	all[1].meets(2)
	l.eventually(func() bool {
		return l.labelled(0, p) != "" && l.labelled(0, p) == all[1].local(p) && l.labelled(1, p) == all[2].local(p)
	}, "labels to the server")
	label, before := all[1].local(p), l.labelRoute(1, all[1].local(p))
	f := l.flood(0, 2, server)
	all[1].restart(time.Second, func() {})
	all[1].meets(0)
	all[1].meets(2)
	l.eventually(func() bool { return strings.Contains(all[1].Output(), "ready") && all[1].local(p) == label }, "the label ", label, " again")
	time.Sleep(7 * time.Second) // longer than the recovery
	if after := l.labelRoute(1, label); after != before || l.labelled(0, p) != label {
		t.Errorf("label %s: %q before, %q after; the first one has %q", label, before, after, l.labelled(0, p))
	}
	if r := f.end(); r.unanswered > 0 { // what comes in is counted of IPv4 alone
		t.Errorf("%v", r)
	} else {
		t.Logf("%v", r)
	}
}
