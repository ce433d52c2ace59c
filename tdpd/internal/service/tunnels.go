package service

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/labels"
)

// setTargets has targeted hellos go to whom they are to go: neighbors, and servers' hosts.
func (s *Service) setTargets(now time.Time) {
	targets := s.Config.Targets()
	if s.Config.Servers.Tunnel != "" {
		for p := range s.fecs.Servers {
			if !s.fecs.Own(p.Addr()) {
				targets = append(targets, p.Addr())
			}
		}
	}
	s.discovered(now, s.discovery.SetTargets(now, targets))
	s.setTunnels(now)
}

// setTunnels tells which neighbors packets may be sent to in UDP, and by which next hops.
func (s *Service) setTunnels(now time.Time) {
	if !s.Config.UsesTunnels() {
		return
	}
	neighbors, all := s.Config.Tunnels(), map[netip.Addr][]labels.NextHop{}
	for far := range s.labels.Far {
		if slices.Contains(neighbors, far) || s.Config.Servers.Tunnel != "" && s.fecs.IsServer(host(far)) {
			all[far] = s.fecs.NextHops(far)
		}
	}
	s.distribute(now, s.labels.Tunnels(now, all))
}
