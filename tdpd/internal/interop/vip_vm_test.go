package interop

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestVMPacketsForTheService: packets are for the service's address, to which no router behind the first one has a route. Labels alone bring
// them to the server whose tree they take: popped and delivered by the last router, or, where that is foreign, by tdpd on the server's host.
func TestVMPacketsForTheService(t *testing.T) {
	for name, x := range map[string]struct {
		tdpd, frr []int
		egress    int
	}{
		"last router ours":    {tdpd: []int{0, 1, 2}, egress: 2},
		"last router foreign": {tdpd: []int{0, 1, 3}, frr: []int{2}, egress: 3},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLine(t, 9, 8, 2, 1)
			servers := []netip.Addr{netip.MustParseAddr("10.0.3.2"), netip.MustParseAddr("fd00:3::2")} // the last one, on its link
			if x.egress == 3 {
				servers = l.servers() // a foreign router makes FECs of routes, not of single hosts on links
			}
			services := []netip.Addr{netip.MustParseAddr("203.0.113.80"), netip.MustParseAddr("2001:db8:80::1")}
			for i, server := range servers {
				l.run(3, "ip", "addr", "add", netip.PrefixFrom(services[i], services[i].BitLen()).String(), "dev", "lo")
				for at := range 2 {
					l.route(at, 3, netip.PrefixFrom(server, server.BitLen()))
				}
			}
			for _, at := range x.frr {
				l.frr(at, frrConfig{is4: true, is6: true})
			}
			all := map[int]*ours{}
			for _, at := range x.tdpd {
				all[at] = l.tdpd(at, func(r *role) {
					r.Config.Transport6 = l.id6(at)
					r.Config.Labels.First = 1000 * (at + 1)
					if at == x.egress {
						r.Config.Servers.Addresses = servers
					}
				})
			}
			for i, service := range services {
				p := netip.PrefixFrom(servers[i], servers[i].BitLen())
				l.eventually(func() bool {
					label := all[0].remote(1, p)
					return label != "" && l.labelled(0, p) == label && l.labelled(1, p) != "" && all[x.egress].local(p) != ""
				}, "a tree to ", servers[i])
				for at := 1; at < 3; at++ {
					if out, err := l.nodes[at].Run("ip", "route", "get", service.String()); err == nil {
						t.Fatalf("router %d has a route to the service: %s", at+1, out)
					}
				}
				via, dev := l.towards(0, 1, service.Is4())
				l.run(0, "ip", "route", "add", fmt.Sprint(netip.PrefixFrom(service, service.BitLen())), "encap", "mpls", l.labelled(0, p), "via", via.String(), "dev", dev)
				l.reaches(0, service)
				l.transfer(0, 3, service, 1<<20)
			}
		})
	}
}
