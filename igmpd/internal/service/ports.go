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
	if s.portsAgain = err != nil; err != nil { // nobody may tell of another change: look again soon
		s.stats.warn(now, "interfaces", "err", err)
		if len(states) == 0 {
			return
		}
	}
	found := make(map[string]PortState, len(states))
	for _, st := range states {
		found[st.Name] = st
	}
	for name, p := range s.ports {
		s.portState(p, found[name])
	}
	s.refreshRoutes(now)
	for name, p := range s.ports {
		if !p.Up || !p.Address.IsValid() {
			p.admission = nil
			s.act(s.table.RemovePort(now, name))
			continue
		}
		p.admission = &admission.Port{Name: name, Prefixes: p.Prefixes, Members: p.Members, Neighbors: p.Neighbors}
		s.act(s.table.SetPort(now, membership.Port{Name: name, Address: p.Address, Members: p.Members, Upstream: s.upstream[name]}))
	}
	s.reroute(now)
}

// portState notes how an interface is now. Forwarding refers to the very interface: one that was made anew, though its members
// are the same, needs its entries and its program again.
func (s *Service) portState(p *port, now PortState) {
	now.Name = p.Interface.Name
	if p.Index != now.Index || p.Hardware != now.Hardware || p.Up != now.Up {
		s.changed = true
	}
	p.PortState = now
}

// refreshRoutes finds the ports toward the roots anew.
func (s *Service) refreshRoutes(now time.Time) {
	clear(s.routes)
	upstream := make(map[string]bool)
	for _, root := range s.Config.Roots {
		port := ""
		if hop, ok := s.route(root); ok && !hop.Local && s.ports[hop.Port] != nil {
			port = hop.Port
			upstream[port] = true
		}
		was, known := s.rootPorts[root]
		s.rootPorts[root] = port
		if known && was != port && port != "" {
			s.refillSoon(now, port)
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

// portTo is the port that an address is reached by: that of the unicast route, unless the control channel knows better.
func (s *Service) portTo(a netip.Addr) (string, bool) {
	hop, ok := s.route(a)
	if !ok || hop.Local {
		return hop.Port, false
	}
	return s.heardBy(a, hop.Port), true
}
