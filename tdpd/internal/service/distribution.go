package service

import (
	"net/netip"
	"time"

	"github.com/manycast/manycast/tdpd/internal/discovery"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// batch is what the label distribution wants and has not been carried out: first the kernel's tables, then what peers are told, to
// whom it holds from then on.
type batch struct {
	changed   map[netip.Prefix]bool
	bound     map[netip.Prefix]wire.Label
	unbound   map[netip.Prefix]bool
	says      []labels.Say
	recovered bool
}

func (b *batch) change(p netip.Prefix) {
	if b.changed == nil {
		b.changed = map[netip.Prefix]bool{}
	}
	b.changed[p] = true
}

// distribute collects what the label distribution wants.
func (s *Service) distribute(now time.Time, actions []labels.Action) {
	b := &s.pending
	if b.bound == nil {
		b.bound, b.unbound = map[netip.Prefix]wire.Label{}, map[netip.Prefix]bool{}
	}
	for _, a := range actions {
		switch a := a.(type) {
		case labels.Changed:
			for _, p := range a.FECs {
				b.change(p)
			}
		case labels.Say:
			b.says = append(b.says, a)
		case labels.Event:
			s.noted(now, a)
		case labels.Warn:
			s.Log.Warn(a.Text, "peer", a.Peer)
		case labels.Recovered:
			b.recovered = true
		}
	}
}

// noted takes an event for the journal and for others.
func (s *Service) noted(now time.Time, e labels.Event) {
	switch e.What {
	case labels.Bound:
		s.pending.bound[e.FEC] = e.Label
		delete(s.pending.unbound, e.FEC)
	case labels.Unbound:
		delete(s.pending.bound, e.FEC)
		s.pending.unbound[e.FEC] = true
	}
	s.publish(Event{Time: now, What: whatOf(e.What), Peer: e.Peer, FEC: e.FEC, Label: e.Label})
}

// flush carries out what was collected.
func (s *Service) flush(now time.Time) {
	b := s.pending
	s.pending = batch{}
	if len(b.bound)+len(b.unbound) > 0 {
		unbound := make([]netip.Prefix, 0, len(b.unbound))
		for p := range b.unbound {
			unbound = append(unbound, p)
		}
		if err := s.Journal.Set(b.bound, unbound); err != nil {
			s.kernel.warn(s.Log, now, err)
		}
	}
	s.install(now, b)
	if len(b.says) > 0 {
		s.boundQueues()
	}
	for _, say := range b.says {
		if p := s.peers[say.Peer]; p != nil {
			s.act(now, p, p.session.Say(now, say.Message))
		}
	}
}

// routesChanged takes what netlink tells.
func (s *Service) routesChanged(now time.Time, c routes.Change) {
	changed, gone := s.fecs.Apply(c)
	if c.Full || len(c.Interfaces) > 0 {
		s.interfacesChanged(now)
	}
	s.distribute(now, s.labels.Routes(now, changed, gone))
	s.bareChanged(c)
	s.settlePlain()
	if !s.kernel.synced {
		s.kernel.synced, s.kernel.wrong = true, true
	}
}

// setServers makes these, and those of the configuration, all the servers.
func (s *Service) setServers(now time.Time, all []netip.Addr) {
	changed, gone := s.fecs.SetServers(append(all[:len(all):len(all)], s.Config.Servers.Addresses...))
	s.distribute(now, s.labels.Routes(now, changed, gone))
}

// interfacesChanged tells everybody of interfaces and addresses.
func (s *Service) interfacesChanged(now time.Time) {
	s.links = nil
	var addresses []netip.Addr
	for _, i := range s.fecs.Table().Interfaces {
		for _, p := range i.Addresses {
			if i.Up && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
				addresses = append(addresses, p.Addr())
			}
		}
	}
	for _, name := range s.Config.Interfaces {
		for _, i := range s.fecs.Table().Interfaces {
			if i.Name == name && i.Up {
				s.links = append(s.links, linkOf(i))
			}
		}
	}
	if err := s.Network.SetInterfaces(s.links); err != nil {
		s.Log.Error("interfaces", "err", err)
	}
	s.kernel.wrong = s.kernel.synced // the interfaces that take labelled packets are part of the whole
	s.discovered(now, s.discovery.SetInterfaces(now, s.links))
	s.distribute(now, s.labels.Addresses(now, addresses))
}

func linkOf(i *routes.Interface) discovery.Interface {
	link := discovery.Interface{Name: i.Name}
	for _, p := range i.Addresses {
		link.V4 = link.V4 || p.Addr().Is4()
		link.V6 = link.V6 || p.Addr().Is6() && p.Addr().IsLinkLocalUnicast()
	}
	return link
}
