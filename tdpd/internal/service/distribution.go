package service

import (
	"maps"
	"net/netip"
	"slices"
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
	bound     map[netip.Prefix]wire.Label // for the journal
	freed     map[netip.Prefix]wire.Label
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
		b.bound, b.freed = map[netip.Prefix]wire.Label{}, map[netip.Prefix]wire.Label{}
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
			if a.What == labels.Bound && a.Label >= wire.LabelFirst {
				b.bound[a.FEC] = a.Label
			}
			s.publish(Event{Time: now, What: whatOf(a.What), Peer: a.Peer, FEC: a.FEC, Label: a.Label})
		case labels.Freed:
			b.free(a)
		case labels.Warn:
			s.Log.Warn(a.Text, "peer", a.Peer)
		case labels.Recovered:
			b.recovered = true
		}
	}
}

// free is for the journal: until then a peer may send packets with the label, and who comes after this process must not give it to
// another FEC.
func (b *batch) free(f labels.Freed) {
	if b.bound[f.FEC] == f.Label {
		delete(b.bound, f.FEC)
	}
	b.freed[f.FEC] = f.Label
}

// keep writes the journal.
func (s *Service) keep(now time.Time, b batch) {
	if len(b.bound)+len(b.freed) == 0 {
		return
	}
	var freed []netip.Prefix
	for p, label := range b.freed {
		if s.Journal.Labels()[p] == label {
			freed = append(freed, p)
		}
	}
	if err := s.Journal.Set(b.bound, freed); err != nil {
		s.kernel.warn(s.Log, now, err)
	}
}

// flush carries out what was collected.
func (s *Service) flush(now time.Time) {
	if s.users.news {
		s.users.news = false
		s.setServers(now)
	}
	b := s.pending
	s.pending = batch{}
	s.keep(now, b)
	s.install(now, b)
	s.users.note(b.changed)
	s.bringUsers(now)
	s.sayView(b.changed)
	if len(b.says) > 0 {
		s.boundQueues()
	}
	for _, say := range b.says {
		if p := s.peers[say.Peer]; p != nil {
			s.act(now, p, p.session.Say(now, say.Message))
		}
	}
	if len(s.pending.changed) > 0 { // labels turned out to be taken
		s.flush(now)
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
	s.noteBIRD(now, c)
	s.setTunnels(now)
	s.settlePlain()
	if !s.kernel.synced {
		s.kernel.synced, s.kernel.wrong = true, true
	}
}

// setServers makes those that services have, of the configuration, and of users' bindings, where their hosts are asked themselves or nobody has told
// yet which services have, all the servers: those bound to users before a restart keep their trees.
func (s *Service) setServers(now time.Time) {
	all := slices.Concat(s.servers, s.Config.Servers.Addresses)
	if s.Config.Servers.Tunnel != "" || s.Servers != nil && !s.told {
		all = append(all, s.users.servers()...)
	}
	changed, gone := s.fecs.SetServers(all)
	s.distribute(now, s.labels.Routes(now, changed, gone))
	s.setTargets(now)
}

// interfacesChanged tells everybody of interfaces and addresses.
func (s *Service) interfacesChanged(now time.Time) {
	inputs := s.inputs
	s.links, s.inputs = nil, map[string]int{}
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
			if i.Name == name {
				s.inputs[name] = i.Index
				if i.Up {
					s.links = append(s.links, linkOf(i))
				}
			}
		}
	}
	if err := s.Network.SetInterfaces(s.links); err != nil {
		s.Log.Error("interfaces", "err", err)
	}
	if !maps.Equal(inputs, s.inputs) {
		s.kernel.wrong = s.kernel.synced // the interfaces that take labelled packets are part of the whole
	}
	s.discovered(now, s.discovery.SetInterfaces(now, s.links))
	s.setTargets(now)
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
