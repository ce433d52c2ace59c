package service

import (
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/outage"
	"github.com/manycast/manycast/tdpd/internal/steering"
)

// Control is what the service needs of the control channel.
type Control interface {
	Listen(handle func(control.Event)) (stop func())
	Members() []control.Member
	Silence() time.Duration
}

// controlState is what the loop knows of the channel.
type controlState struct {
	mail     *control.Mailbox
	members  map[string]control.Member
	outage   *outage.Outage // nil: there is no channel
	due      time.Time      // when time alone may have left a service without servers
	failures uint64         // times that a server was found unwell or silent
}

// openControl takes the members that are known from before: they are how they were until they are heard.
func (s *Service) openControl(now time.Time) (stop func()) {
	c := &s.control
	c.mail, c.members = control.NewMailbox(1), map[string]control.Member{}
	if s.Control == nil {
		return func() {}
	}
	known := s.Control.Members()
	for _, m := range known {
		c.members[m.Name] = m
	}
	c.outage = outage.New(now, s.Control.Silence())
	c.outage.Hear(now, known)
	return s.Control.Listen(c.mail.Put)
}

// heard takes news of the channel: users of a server that fails go to its standbys, and come back when it does.
func (s *Service) heard(now time.Time) {
	c := &s.control
	changed, _ := c.mail.Take()
	c.outage.Hear(now, changed)
	news := false
	for _, m := range changed {
		before := c.members[m.Name]
		if c.members[m.Name] = m; m.Health == control.Unknown { // forgotten
			delete(c.members, m.Name)
		}
		news = news || before.Health != m.Health || before.Why != m.Why
		if m.Role == control.Server {
			s.server(now, before, m)
		}
	}
	if news {
		s.judge(now)
	}
}

// server follows how a server is.
func (s *Service) server(now time.Time, before, m control.Member) {
	was, is := healthOf(before), healthOf(m)
	if was != is || before.Address != m.Address {
		s.users.anew(m.Name)
	}
	if was == is {
		return
	}
	if is != steering.Available {
		s.control.failures++
	}
	s.Log.Warn("control channel: server", "server", m.Name, "address", m.Address, "health", m.Health, "why", m.Why, "heard_ms_ago", now.Sub(m.Heard).Milliseconds())
}

// judge finds the services that have no server left: their users get what the service refuses them by, not what no standby took.
func (s *Service) judge(now time.Time) {
	c := &s.control
	if c.outage == nil {
		return
	}
	for name, b := range s.users.steered {
		out := c.outage.Of(now, name) && c.knowsAll(b)
		if out == b.out {
			continue
		}
		b.out = out
		s.users.planAnew(b)
		s.Log.Warn("control channel: service", "service", name, "without_servers", out)
	}
	c.due = c.outage.Next(now)
}

// allocate takes a service's allocation; the zero one forgets it.
func (c *controlState) allocate(service string, a alloc.Allocation) {
	if c.outage != nil {
		c.outage.Allocate(service, a)
	}
}

// knowsAll says whether all of a service's servers were heard at some time: one that is on no channel is not gone.
func (c *controlState) knowsAll(b *steered) bool {
	for _, server := range b.Allocation.Servers {
		if m := c.members[server]; m.Role != control.Server || !isAt(m, b.Allocation.Address(server)) {
			return false
		}
	}
	return true
}

// health is how a server of an allocation is. One of that name at another address is another one.
func (c *controlState) health(server string, at netip.Addr) steering.Health {
	m := c.members[server]
	if m.Role != control.Server || !isAt(m, at) {
		return steering.Available
	}
	return healthOf(m)
}

// isAt says whether a member may be the server with that address: members have addresses of IPv4 alone.
func isAt(m control.Member, a netip.Addr) bool { return !a.Is4() || m.Address == a }

// healthOf takes servers of whom nothing can be said for available, and those that hear nobody: they serve until a leader gives their users to
// others, and no standby takes these before.
func healthOf(m control.Member) steering.Health {
	switch {
	case m.Health == control.Unwell && m.Why != control.Deaf:
		return steering.Unwell
	case m.Health == control.Silent:
		return steering.Silent
	}
	return steering.Available
}
