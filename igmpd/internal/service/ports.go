package service

import (
	"maps"
	"net/netip"
	"time"

	"github.com/manycast/manycast/igmpd/internal/admission"
	"github.com/manycast/manycast/igmpd/internal/membership"
)

// refreshPorts brings interfaces and routes up to date.
func (s *Service) refreshPorts(now time.Time) {
	states, err := s.Network.Ports()
	if err != nil {
		s.stats.warn(now, "interfaces", "err", err)
	}
	for _, p := range s.ports {
		p.Up = false
	}
	for _, st := range states {
		if p := s.ports[st.Name]; p != nil {
			p.PortState = st
		}
	}
	s.refreshRoutes()
	for name, p := range s.ports {
		if !p.Up || !p.Address.IsValid() {
			p.admission = nil
			s.act(s.table.RemovePort(now, name))
			continue
		}
		p.admission = &admission.Port{Name: name, Prefixes: p.Prefixes, Members: p.Members, Neighbors: p.Neighbors}
		s.act(s.table.SetPort(now, membership.Port{Name: name, Address: p.Address, Members: p.Members, Upstream: s.upstream[name]}))
	}
}

// refreshRoutes finds the ports toward the roots anew.
func (s *Service) refreshRoutes() {
	clear(s.routes)
	upstream := make(map[string]bool)
	for _, root := range s.Config.Roots {
		if hop, ok := s.route(root); ok && !hop.Local && s.ports[hop.Port] != nil {
			upstream[hop.Port] = true
		}
	}
	if !maps.Equal(upstream, s.upstream) {
		s.upstream = upstream
		s.changed = true
	}
}

// route looks a route up, from memory until the system says that routes have changed.
func (s *Service) route(a netip.Addr) (Hop, bool) {
	if hop, ok := s.routes[a]; ok {
		return hop, hop != Hop{}
	}
	hop, ok := s.Network.Route(a)
	if !ok {
		hop = Hop{}
	}
	if len(s.routes) >= routesMax {
		clear(s.routes)
	}
	s.routes[a] = hop
	return hop, ok
}

func (s *Service) portTo(a netip.Addr) (string, bool) {
	hop, ok := s.route(a)
	return hop.Port, ok && !hop.Local
}
