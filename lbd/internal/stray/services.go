package stray

import (
	"net/netip"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/lbd/internal/mover"
)

// services are those that this server executes.
type services struct {
	at      map[netip.AddrPort]string // by VIP and port of TCP
	servers map[string]map[string]bool
}

func newServices(views []mover.View) services {
	s := services{map[netip.AddrPort]string{}, map[string]map[string]bool{}}
	for _, v := range views {
		for _, end := range v.Ends() {
			s.at[end] = v.Service.Name
		}
		servers := map[string]bool{}
		for _, name := range v.Allocation.Servers {
			servers[name] = true
		}
		for _, chain := range v.Allocation.Trail.Chains {
			for _, h := range chain.Hops {
				servers[h.Server] = true
			}
		}
		s.servers[v.Service.Name] = servers
	}
	return s
}

// has reports whether a member is a server of a service: by the allocation, or, since who is looked for may have left it, by the work for it
// that it reports.
func (s services) has(service string, m control.Member) bool {
	if m.Role != control.Server || m.Health == control.Silent || !m.Address.Is4() {
		return false
	}
	if _, reports := m.Loads[service]; reports {
		return true
	}
	return s.servers[service][m.Name]
}
