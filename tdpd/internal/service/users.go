package service

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/binding"
	"github.com/manycast/manycast/tdpd/internal/steering"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// userState is what there is of bindings of users to servers.
type userState struct {
	book    *steering.Book
	steered map[string]steering.Binding // by service: what holds
	refused uint64                      // bindings that were not taken
	told    time.Time                   // when one that was refused was logged last
}

func newUserState(s *Service) userState {
	return userState{book: steering.New(s.Config.RouterID, s.Config.Users.Trust(), steering.Limits{}), steered: map[string]steering.Binding{}}
}

// Bind takes what a director at this router says of a service; again: that what it said holds for longer. The error says why not.
func (s *Service) Bind(now time.Time, b steering.Binding, again bool) error {
	b.Voucher, b.Path = s.Config.RouterID, []steering.Router{s.Config.RouterID}
	return s.bind(now, s.Config.RouterID, b, again)
}

func (s *Service) bind(now time.Time, from steering.Router, b steering.Binding, again bool) error {
	take := s.users.book.Put
	if again {
		take = s.users.book.Refresh
	}
	actions, err := take(now, from, b)
	s.steer(now, actions)
	return err
}

// steer carries out what the book wants.
func (s *Service) steer(now time.Time, actions []steering.Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case steering.Steer:
			if a.Withdraws() {
				delete(s.users.steered, a.Service)
				s.Log.Info("users are steered no more", "service", a.Service)
				continue
			}
			s.users.steered[a.Service] = a.Binding
			s.Log.Info("users are steered", "service", a.Service, "epoch", a.Allocation.Epoch, "voucher", a.Voucher, "vips", a.VIPs)
		case steering.Tell:
			for _, p := range s.sortedPeers() {
				s.tellUsers(now, p, a.Binding, a.Again)
			}
		}
	}
}

// tellUsers tells a neighbor upstream that takes bindings, unless it has passed this one on itself.
func (s *Service) tellUsers(now time.Time, p *peer, b steering.Binding, again bool) {
	id := netip.AddrFrom4(p.id.LSR)
	if !p.takesUsers || !slices.Contains(s.Config.Users.Upstream, id) || slices.Contains(b.Path, id) {
		return
	}
	kind := binding.TypeTold
	if again {
		kind, b.Allocation, b.Users = binding.TypeRefreshed, steering.Binding{}.Allocation, nil
	}
	raw, err := binding.Encode(b)
	if err != nil {
		s.Log.Error("tell a binding of users", "peer", p.id, "service", b.Service, "err", err)
		return
	}
	for _, m := range binding.Messages(kind, raw, int(p.session.MaxPDU())) {
		s.act(now, p, p.session.Say(now, m))
	}
}

// usersUp begins with a neighbor: one upstream that takes bindings is told all there are.
func (s *Service) usersUp(now time.Time, p *peer, offers []wire.TLV) {
	p.takesUsers, p.users = binding.Offered(offers), binding.Assembler{}
	for _, b := range s.users.book.Held(now) {
		s.tellUsers(now, p, b, false)
	}
}

// usersDown ends with a neighbor.
func (s *Service) usersDown(now time.Time, p *peer) {
	p.takesUsers = false
	s.steer(now, s.users.book.Lost(now, netip.AddrFrom4(p.id.LSR)))
}

// usersTold takes a part of a binding from a neighbor. What is wrong with it ends nothing else.
func (s *Service) usersTold(now time.Time, p *peer, m wire.VendorPrivate) {
	raw, err := p.users.Add(m)
	if err == nil && raw == nil {
		return
	}
	if err == nil {
		var b steering.Binding
		if b, err = binding.Decode(raw); err == nil {
			err = s.bind(now, netip.AddrFrom4(p.id.LSR), b, m.MessageType == binding.TypeRefreshed)
		}
	}
	if err == nil {
		return
	}
	s.users.refused++
	if now.Sub(s.users.told) >= time.Minute {
		s.users.told = now
		s.Log.Warn("a binding of users is refused", "peer", p.id, "err", err, "refused_so_far", s.users.refused)
	}
}

// Steered is what holds of a service; false: nothing.
func (s *Service) Steered(service string) (steering.Binding, bool) {
	b, ok := s.users.steered[service]
	return b, ok
}

// Services are those whose users are steered, sorted.
func (s *Service) Services() []string { return slices.Sorted(maps.Keys(s.users.steered)) }
