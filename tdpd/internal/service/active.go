package service

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/tdpd/internal/binding"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/steering"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

const (
	// activeMost is how many users of a service may be active; where there are more, those go first that were told first.
	activeMost = 1 << 16
	// Plans that name active users are made anew no sooner than after that, and so much longer for each of them: it is not what a router is for.
	activePause   = 20 * time.Millisecond
	activePauseOf = 8 * time.Microsecond
)

// byRoute stands among servers for none: users who are not active go by the route, toward a director.
var byRoute = netip.IPv6Unspecified()

// errNotTold: who says who is active has had a packet of theirs, and so has a binding of the service, which it has told.
var errNotTold = errors.New("the neighbor has told no reactive binding of the service")

// steered is what holds of a service, and what its users are steered by.
type steered struct {
	steering.Steer
	compiled  *steering.Steering // nil: not yet
	four, six *steer.Plan        // of all users, of both families; nil: they are to be made anew
	out       bool               // no server is left, as far as is heard

	active           *steering.Active // nil: all users are steered, or exceptions alone
	active4, active6 *steer.Plan      // the same of active users alone
}

// holds takes what holds of a service from now on. Who is active stays so.
func (s *Service) holds(a steering.Steer) {
	b := &steered{Steer: a}
	was := s.users.steered[a.Service]
	if was != nil && was.compiled != nil && a.Compiled(was.Binding) {
		b.compiled, _ = was.compiled.WithUsers(a.Binding) // what cannot be is found again, and told, when all is compiled
	}
	if !a.All && !a.UsersOnly {
		if was != nil {
			b.active = was.active
		}
		if b.active == nil {
			b.active = steering.NewActive(activeMost, s.Config.Users.Active)
		}
	}
	s.users.steered[a.Service] = b
	if a.Reactive && a.All && s.Tagless == nil && len(s.Config.Users.Upstream) > 0 {
		s.Log.Warn("nobody upstream tags users: a reactive service needs forwarding.fast_path here, which notices their packets", "service", a.Service)
	}
}

// plans are what users of both families are steered by. others is the owner of those who are not active.
func (b *steered) plans(others steer.Owner) (four, six *steer.Plan, err error) {
	if b.active == nil {
		return b.four, b.six, nil
	}
	if b.active4 == nil {
		b.active4, err = steering.OnlyActive(b.four, b.active.Users(false), others)
	}
	if b.active6 == nil && err == nil {
		b.active6, err = steering.OnlyActive(b.six, b.active.Users(true), others)
	}
	return b.active4, b.active6, err
}

// activeAnew has a service's active users steered anew soon.
func (u *userState) activeAnew(b *steered) {
	b.active4, b.active6 = nil, nil
	if due := u.brought.Add(activePause + time.Duration(b.active.Len())*activePauseOf); u.due.Before(due) {
		u.due = due
	}
}

// takeActive takes a neighbor's word that it has had packets of users by way of this router.
func (s *Service) takeActive(now time.Time, from steering.Router, raw []byte) error {
	a, err := binding.DecodeActive(raw)
	if err != nil {
		return err
	}
	if !s.users.book.MayActivate(from, a.Service) {
		return errNotTold
	}
	b := s.users.steered[a.Service]
	if b == nil || b.active == nil {
		return nil // it is not by who is active that users are steered here
	}
	news := false
	for _, user := range a.Users {
		six := user.Is6()
		if six {
			user = steer.Standin(user)
		}
		news = b.active.Add(now, user, six) || news
	}
	if news {
		s.users.activeAnew(b)
	}
	return nil
}

// expireActive lets time pass: of whom no word has come for long enough the next packet goes by the route, and tells anew.
func (s *Service) expireActive(now time.Time) {
	for _, b := range s.users.steered {
		if b.active != nil && b.active.Expire(now) {
			s.users.activeAnew(b)
		}
	}
}

// taglessCame takes packets that came without a tag, and went along a tree here: the router that sent them is told that their users are
// active, and tags what comes next itself.
func (s *Service) taglessCame(now time.Time, all []vips.Tagless) {
	reactive := map[netip.Addr]*steered{}
	for _, b := range s.users.steered {
		for _, vip := range b.VIPs {
			if b.Reactive {
				reactive[vip] = b
			}
		}
	}
	active := map[*peer]map[string][]netip.Addr{}
	for _, t := range all {
		user, ok := binding.User(t.User)
		b := reactive[t.VIP]
		if !ok || b == nil {
			continue
		}
		p := s.sender(t)
		switch {
		case p == nil:
			s.users.tagless["unknown_neighbor"]++
			continue
		case !s.tells(p, b.Binding):
			s.users.tagless["not_upstream"]++
			continue
		}
		s.users.tagless["told"]++
		if active[p] == nil {
			active[p] = map[string][]netip.Addr{}
		}
		active[p][b.Service] = append(active[p][b.Service], user)
	}
	s.boundQueues()
	for p, services := range active {
		for _, name := range slices.Sorted(maps.Keys(services)) {
			for some := range slices.Chunk(services[name], binding.MaxActive) {
				s.tellActive(now, p, binding.Active{Service: name, Users: some})
			}
		}
	}
}

// sender is the peer that sent a packet; nil: it is not known, or none.
func (s *Service) sender(t vips.Tagless) *peer {
	i := s.fecs.Table().Interfaces[t.Interface]
	if i == nil {
		return nil
	}
	for _, a := range t.From {
		if id, ok := s.labels.Neighbor(labels.NextHop{Address: a, Interface: i.Name, Index: t.Interface}); ok && s.peers[id] != nil {
			return s.peers[id]
		}
	}
	return nil
}

func (s *Service) tellActive(now time.Time, p *peer, a binding.Active) {
	raw, err := binding.EncodeActive(a)
	if err != nil {
		s.Log.Error("tell who is active", "peer", p.id, "service", a.Service, "err", err)
		return
	}
	for _, m := range binding.Messages(binding.TypeActive, raw, int(p.session.MaxPDU())) {
		s.act(now, p, p.session.Say(now, m))
	}
}
