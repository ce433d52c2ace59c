package service

import (
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/tdpd/internal/steering"
)

// Control is what the service needs of the control channel.
type Control interface {
	Listen(handle func(control.Event)) (stop func())
	Members() []control.Member
}

// controlState is what the loop knows of the channel.
type controlState struct {
	mail     *control.Mailbox
	servers  map[string]control.Member // members with that role, by name
	failures uint64                    // times that one was found unwell or silent
}

// openControl takes the members that are known from before: they are how they were until they are heard.
func (s *Service) openControl() (stop func()) {
	c := &s.control
	c.mail, c.servers = control.NewMailbox(1), map[string]control.Member{}
	if s.Control == nil {
		return func() {}
	}
	for _, m := range s.Control.Members() {
		if m.Role == control.Server {
			c.servers[m.Name] = m
		}
	}
	return s.Control.Listen(c.mail.Put)
}

// heard takes news of the channel: users of a server that fails go to its standbys, and come back when it does.
func (s *Service) heard() {
	changed, _ := s.control.mail.Take()
	for _, m := range changed {
		before := s.control.servers[m.Name]
		if m.Role != control.Server {
			continue
		}
		if s.control.servers[m.Name] = m; m.Health == control.Unknown { // forgotten
			delete(s.control.servers, m.Name)
		}
		was, is := healthOf(before.Health), healthOf(m.Health)
		if was == is && before.Address == m.Address {
			continue
		}
		s.users.anew(m.Name)
		if was == is {
			continue
		}
		if is != steering.Available {
			s.control.failures++
		}
		s.Log.Warn("control channel: server", "server", m.Name, "address", m.Address, "health", m.Health, "why", m.Why, "heard_ms_ago", time.Since(m.Heard).Milliseconds())
	}
}

// health is how a server of an allocation is. One of that name at another address is another one.
func (c *controlState) health(server string, at netip.Addr) steering.Health {
	m := c.servers[server]
	if at.Is4() && m.Address != at { // members have addresses of IPv4 alone
		return steering.Available
	}
	return healthOf(m.Health)
}

// healthOf takes servers of whom nothing can be said for available.
func healthOf(h control.Health) steering.Health {
	switch h {
	case control.Unwell:
		return steering.Unwell
	case control.Silent:
		return steering.Silent
	}
	return steering.Available
}
