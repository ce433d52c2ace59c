package service

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
	"github.com/manycast/manycast/tdpd/internal/fec"
	"github.com/manycast/manycast/tdpd/internal/flowspec"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/routing"
	"github.com/manycast/manycast/tdpd/internal/steering"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// learnedChanged takes what neighbors tell.
func (s *Service) learnedChanged(now time.Time, c bgppolicy.Changes) {
	news := map[netip.Prefix]fec.Learned{}
	for _, r := range slices.Concat(c.Added, c.Changed, c.Stale, c.Fresh) {
		s.learned[r.Prefix] = r
		news[r.Prefix] = fec.Learned{Via: r.NextHop, Labelled: r.Label != bgppolicy.NoLabel}
		s.pending.change(r.Prefix)
	}
	for _, p := range c.Gone {
		delete(s.learned, p)
		news[p] = fec.Learned{}
		s.pending.change(p)
	}
	changed, gone := s.fecs.Learn(news)
	s.distribute(now, s.labels.Routes(now, changed, gone))
}

// viewOf is a FEC with the labels that BGP has told of it: what an LDP neighbor has bound at a next hop goes before.
func (s *Service) viewOf(p netip.Prefix) (labels.View, bool) {
	v, ok := s.labels.View(p)
	r, learned := s.learned[p]
	if !ok || !learned || r.Label == bgppolicy.NoLabel || v.Kind != labels.Transit {
		return v, ok
	}
	for i, h := range v.Hops {
		if h.Label == labels.NoLabel && h.Address == r.NextHop {
			v.Hops[i].Label = wire.Label(r.Label)
		}
	}
	return v, true
}

// sayView says what BGP neighbors may be to know, where that may have changed: servers' trees, and whose users are whose.
func (s *Service) sayView(changed map[netip.Prefix]bool) {
	for p := range changed {
		s.users.unsaid = s.users.unsaid || s.fecs.IsServer(p)
	}
	if s.Say == nil || !s.users.unsaid || !s.kernel.synced {
		return
	}
	s.users.unsaid = false
	s.Say(routing.View{Services: s.reaches(), Users: s.flowUsers(), Hosts: s.hostRoutes()})
}

// reaches says of services whose users are all steered here whether they are reached. Who pins users alone has them come by multicast, of which this
// router knows nothing.
func (s *Service) reaches() (out []announcing.Service) {
	for _, name := range s.Services() {
		if b := s.users.steered[name]; !b.UsersOnly {
			out = append(out, announcing.Service{Name: name, VIPs: b.VIPs, Reach: s.reach(b)})
		}
	}
	return out
}

// reach says whether a server that is there has a tree. When all are silent it is as likely the channel that has failed (steering.Takes).
func (s *Service) reach(b *steered) announcing.Reach {
	if b.Nobody || b.out {
		return announcing.NoServer
	}
	isSilent := func(name string) bool { return s.control.health(name, b.Address(name)) == steering.Silent }
	heard := slices.ContainsFunc(b.Allocation.Servers, func(name string) bool { return !isSilent(name) })
	for _, name := range b.Allocation.Used() {
		if (!heard || !isSilent(name)) && s.tables.Tree(host(b.Address(name))) != nil {
			return announcing.Reached
		}
	}
	return announcing.NoTree
}

// flowUsers are users as rules have them: those of a service without servers go to a director, who refuses them.
func (s *Service) flowUsers() (out []flowspec.Users) {
	if !s.FlowRules {
		return nil
	}
	for _, name := range s.Services() {
		b := s.users.steered[name]
		takes := steering.Taken{Users: make([]string, len(b.Users))}
		if !b.out {
			takes = steering.Takes(b.Binding, func(server string) steering.Health { return s.control.health(server, b.Address(server)) })
		}
		out = append(out, flowspec.Of(b.Binding, takes))
	}
	return out
}

// hostRoutes are servers' trees that begin with a label of this router's; of a server's host its own. Those that lead on by what BGP has told are
// not told back.
func (s *Service) hostRoutes() (out []bgp.LabelledPath) {
	own := s.Config.BGP.Announce.Server
	for _, p := range slices.SortedFunc(s.fecs.Servers, netip.Prefix.Compare) {
		if own && !s.fecs.Own(p.Addr()) {
			continue
		}
		v, ok := s.labels.View(p)
		_, learned := s.learned[p]
		if !ok || learned && v.Kind == labels.Transit || v.Local < wire.LabelFirst || v.Local == labels.NoLabel || s.tables.Tree(p) == nil {
			continue
		}
		out = append(out, bgp.LabelledPath{Path: bgp.Path{Prefix: p}, Label: uint32(v.Local)})
	}
	return out
}
