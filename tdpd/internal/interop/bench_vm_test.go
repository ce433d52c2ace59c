package interop

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// BenchmarkVMWithdraw measures, along three routers of ours with ordered control, how long after the last one has lost a server
// the first one's kernel has no label for it any more, and the one in the middle.
func BenchmarkVMWithdraw(b *testing.B) {
	l := newLine(b, 3, 2, 1)
	server := l.servers()[0]
	p := netip.PrefixFrom(server, 32)
	var all []*ours
	for at := range 3 {
		all = append(all, l.tdpd(at, func(r *role) {
			r.Config.Labels.Control = "ordered"
			if at == 2 {
				r.Config.Servers.Addresses = []netip.Addr{server}
			}
		}))
	}
	all[0].meets(1)
	all[1].meets(2)
	gone := [2]<-chan time.Time{l.losses(0, p), l.losses(1, p)}
	var took [2]time.Duration
	for range b.N {
		l.eventually(func() bool {
			return l.labelled(0, p) != "" && l.labelled(0, p) == all[1].local(p) && l.labelled(1, p) != "" && l.labelled(1, p) == all[2].local(p)
		}, "labels along the chain")
		time.Sleep(200 * time.Millisecond) // nothing is under way
		start := time.Now()
		l.ownAddress(2, (*netlink.Handle).AddrDel, p)
		for at := range gone {
			select {
			case end := <-gone[at]:
				took[at] += end.Sub(start)
			case <-time.After(soon):
				b.Fatalf("router %d still has a label", at+1)
			}
		}
		l.eventually(func() bool { return all[1].local(p) == "" && all[0].remote(1, p) == "" }, "the label is withdrawn")
		l.ownAddress(2, (*netlink.Handle).AddrAdd, p)
	}
	b.ReportMetric(float64(took[0].Microseconds())/1000/float64(b.N), "ms/first")
	b.ReportMetric(float64(took[1].Microseconds())/1000/float64(b.N), "ms/middle")
}

// ownAddress gives a router an address on lo, or takes it.
func (l *line) ownAddress(at int, do func(*netlink.Handle, netlink.Link, *netlink.Addr) error, p netip.Prefix) {
	l.t.Helper()
	nl := l.nodes[at].Netlink()
	lo, err := nl.LinkByName("lo")
	if err == nil {
		err = do(nl, lo, &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}})
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// losses tells when a router's kernel drops the route with labels to a prefix.
func (l *line) losses(at int, p netip.Prefix) <-chan time.Time {
	l.t.Helper()
	updates, lost, done := make(chan netlink.RouteUpdate, 64), make(chan time.Time, 64), make(chan struct{})
	l.t.Cleanup(func() { close(done) })
	if err := l.nodes[at].Do(func() error { return netlink.RouteSubscribe(updates, done) }); err != nil {
		l.t.Fatal(err)
	}
	go func() {
		for u := range updates {
			if u.Type == unix.RTM_DELROUTE && u.Dst != nil && u.Dst.String() == p.String() && u.Encap != nil {
				lost <- time.Now()
			}
		}
	}()
	return lost
}
