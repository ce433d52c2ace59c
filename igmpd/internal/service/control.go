package service

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/igmpd/internal/kernel"
	"github.com/manycast/manycast/igmpd/internal/membership"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/members"
	igmpdv1 "github.com/manycast/manycast/proto/igmpd/v1"
)

// Control is what the service needs of the control channel.
type Control interface {
	control.Channel
	Members() []control.Member
	Known() []members.Known // for a restart
	Refused() map[string]uint64
}

// controlState is what the loop knows of the channel.
type controlState struct {
	group    netip.Addr // invalid: there is no channel
	mail     *control.Mailbox
	members  map[string]control.Member
	at       map[netip.Addr]string // address to name, of servers first
	switches uint64                // times that somebody's users went to standbys
}

// openControl takes the members that are known from before: the kernel's first state is to have their routes.
func (s *Service) openControl() {
	c := &s.control
	c.mail, c.members, c.at = control.NewMailbox(1), make(map[string]control.Member), make(map[netip.Addr]string)
	if s.Control == nil {
		return
	}
	c.group = s.Config.Control.GroupAddr()
	for _, m := range s.Control.Members() {
		s.member(m)
	}
}

// restoreHealth has servers that were silent before a restart be so until they are heard.
func (s *Service) restoreHealth(now time.Time) {
	for _, m := range s.control.members {
		if m.Role == control.Server {
			s.act(s.table.SetHealth(now, m.Address, healthOf(m.Health)))
		}
	}
}

func (s *Service) member(m control.Member) {
	s.control.members[m.Name] = m
	if m.Role == control.Server || s.control.at[m.Address] == "" {
		s.control.at[m.Address] = m.Name
	}
}

// heard takes news of the control channel.
func (s *Service) heard(now time.Time) {
	changed, _ := s.control.mail.Take()
	for _, m := range changed {
		before := s.control.members[m.Name]
		s.member(m)
		if before.Address != m.Address || !slices.Equal(before.Via, m.Via) {
			s.changed = true // of the control group's own routes
		}
		if m.Role != control.Server {
			continue
		}
		if before.Health != m.Health {
			s.health(now, m)
		}
		if !slices.Equal(before.Via, m.Via) {
			s.reroute(now)
		}
	}
}

// health tells the memberships how a server is.
func (s *Service) health(now time.Time, m control.Member) {
	was, is := s.table.Health(m.Address), healthOf(m.Health)
	s.act(s.table.SetHealth(now, m.Address, is))
	if was == is {
		return
	}
	if is != membership.Available {
		s.control.switches++
	}
	s.Log.Warn("control channel: server", "server", m.Name, "address", m.Address, "health", m.Health, "why", m.Why, "heard_ms_ago", now.Sub(m.Heard).Milliseconds())
}

// healthOf takes servers of whom nothing can be said for available.
func healthOf(h control.Health) membership.Health {
	switch h {
	case control.Unwell:
		return membership.Unwell
	case control.Silent:
		return membership.Silent
	}
	return membership.Available
}

// reroute looks anew by which ports members behind other routers are reached.
func (s *Service) reroute(now time.Time) {
	ports := make(map[netip.Addr]string)
	s.table.Requesters(func(requester netip.Addr, port string) {
		if s.onLinkOf(requester, port) {
			return
		}
		if way, ok := s.portTo(requester); ok && way != port && s.ports[way] != nil {
			ports[requester] = way
		}
	})
	for requester, port := range ports {
		s.act(s.table.Reroute(now, requester, port))
	}
}

func (s *Service) onLinkOf(a netip.Addr, name string) bool {
	p := s.ports[name]
	return p != nil && p.Up && p.Members && slices.ContainsFunc(p.Prefixes, func(prefix netip.Prefix) bool { return prefix.Contains(a) })
}

// heardBy finds the way to a member of the channel: that of its unicast route, unless it is heard elsewhere and no more there.
func (s *Service) heardBy(a netip.Addr, route string) string {
	m, ok := s.control.members[s.control.at[a]]
	if !ok || len(m.Via) == 0 || slices.Contains(m.Via, route) {
		return route
	}
	for _, via := range m.Via {
		if p := s.ports[via]; p != nil && p.Up {
			return via
		}
	}
	return route
}

// controlRoutes forward the frames of each verified member from the way it is reached by to all other interfaces of the channel.
// Nobody else's are forwarded.
func (s *Service) controlRoutes() []kernel.Route {
	var routes []kernel.Route
	if !s.control.group.IsValid() {
		return nil
	}
	done := make(map[netip.Addr]bool)
	for _, name := range slices.Sorted(maps.Keys(s.control.members)) {
		m := s.control.members[name]
		in, ok := s.portTo(m.Address)
		if !ok || done[m.Address] || !slices.Contains(s.Config.Control.Interfaces, in) {
			continue
		}
		done[m.Address] = true
		out := slices.DeleteFunc(slices.Clone(s.Config.Control.Interfaces), func(i string) bool { return i == in })
		routes = append(routes, kernel.Route{Group: s.control.group, Source: m.Address, In: []string{in}, Out: out})
	}
	return routes
}

func (s *Service) controlStatus(now time.Time) *igmpdv1.Control {
	if s.Control == nil {
		return nil
	}
	c := &igmpdv1.Control{Group: text(s.control.group), Refused: s.Control.Refused(), Switches: s.control.switches}
	for _, m := range s.Control.Members() {
		heard := int64(-1)
		if !m.Heard.IsZero() {
			heard = now.Sub(m.Heard).Milliseconds()
		}
		c.Members = append(c.Members, &igmpdv1.Member{
			Name: m.Name, Role: m.Role.String(), Address: text(m.Address), Health: m.Health.String(), Why: m.Why, Via: m.Via, HeardMs: heard, Leader: m.Leader,
		})
	}
	return c
}

// healthText is what an operator reads; available needs no word.
func healthText(h membership.Health) string {
	switch h {
	case membership.Unwell:
		return control.Unwell.String()
	case membership.Silent:
		return control.Silent.String()
	}
	return ""
}
