package service

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/steer"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/binding"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/steering"
	"github.com/manycast/manycast/tdpd/internal/vips"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// userState is what there is of bindings of users to servers.
type userState struct {
	book    *steering.Book
	steered map[string]*steered // by service: what holds
	refused map[string]uint64   // by reason: neighbors' bindings and words of who is active that were not taken, and parts that make none
	tagless map[string]uint64   // packets that came without a tag from a router, by what came of them
	told    time.Time           // when one that was refused was logged last

	owners map[netip.Addr]steer.Owner // servers' numbers in plans, by their addresses, while any binding that holds names them
	freed  map[steer.Owner]bool       // numbers of servers that none names any more, while plans in force may have them
	dirty  bool                       // what is in the fast path is not what holds
	unsaid bool                       // BGP neighbors may be to know otherwise than was said
	unkept bool                       // what is on disk is not what was said
	heard  time.Time                  // when it was noted last on disk that somebody said it
	news   bool                       // bindings may name other servers
	retry  time.Time                  // when it is tried again, after a failure

	due     time.Time // when users who have become active, or are so no more, are to be in the fast path, too; zero: there are none
	brought time.Time // when all was brought in last
}

func newUserState(s *Service) userState {
	return userState{
		book:    steering.New(s.Config.RouterID, s.Config.Users.Trust(), steering.Limits{}),
		steered: map[string]*steered{}, refused: map[string]uint64{}, tagless: map[string]uint64{},
		owners: map[netip.Addr]steer.Owner{}, freed: map[steer.Owner]bool{},
	}
}

// restoreUsers takes over what a process before has kept. Where that cannot be read it is said again by those who said it.
func (s *Service) restoreUsers(now time.Time) {
	if s.Users == nil {
		return
	}
	kept, err := s.Users.Load()
	if err != nil {
		s.Log.Error("users are steered again when their directors say so", "err", err)
		return
	}
	s.users.owners = kept.Owners
	s.users.dirty = true // also where nothing holds: that process may have ended before the fast path knew it
	s.steer(now, s.users.book.Restore(now, kept.At, kept.Bindings))
}

// keepUsers keeps what was said, when that has changed.
func (s *Service) keepUsers(now time.Time) error {
	if s.Users == nil || !s.users.unkept {
		s.users.unkept = false
		return nil
	}
	err := s.Users.Save(binding.Kept{Bindings: s.users.book.Words(now), Owners: s.users.owners})
	s.users.unkept = err != nil
	return err
}

// noteUsers notes on disk that somebody vouches now: a next process holds what is there from then on. Not at each word. Where nobody vouches
// for some of it, all is written, with the time that is left of that.
func (s *Service) noteUsers(now time.Time) {
	if s.Users == nil || now.Sub(s.users.heard) < 5*time.Second {
		return
	}
	s.users.heard = now
	if s.users.book.Holds(now) {
		s.users.unkept = true
		return
	}
	if err := s.Users.Touch(now); err != nil {
		s.users.unkept = true // writing it says why it cannot be
	}
}

func (s *Service) forgetUsers() error {
	if s.Users == nil {
		return nil
	}
	return s.Users.Remove()
}

// Bind takes what a director at this router says of a service. The error says why not.
func (s *Service) Bind(now time.Time, b steering.Binding) error {
	if err := s.Config.Users.MayBind(b.VIPs); err != nil {
		return err
	}
	actions, err := s.users.book.Say(now, b)
	s.steer(now, actions)
	if err == nil {
		s.noteUsers(now)
	}
	return err
}

// Only takes a director's word at this router that there are no services but these that it speaks of.
func (s *Service) Only(now time.Time, services []string) {
	s.steer(now, s.users.book.Only(now, services))
}

func (s *Service) bind(now time.Time, from steering.Router, b steering.Binding, again bool) error {
	take := s.users.book.Put
	if again {
		take = s.users.book.Refresh
	}
	actions, err := take(now, from, b)
	s.steer(now, actions)
	if err == nil {
		s.noteUsers(now)
	}
	return err
}

// toldAgain is how long a binding may be, in bytes, that is told in full when it is refreshed.
const toldAgain = 512 << 10

// steer carries out what the book wants.
func (s *Service) steer(now time.Time, actions []steering.Action) {
	changed := false
	for _, a := range actions {
		switch a := a.(type) {
		case steering.Steer:
			changed, s.users.unsaid = true, true
			s.users.dirty, s.users.unkept, s.users.news, s.users.retry = true, true, true, time.Time{}
			if a.Withdraws() {
				delete(s.users.steered, a.Service)
				s.control.allocate(a.Service, alloc.Allocation{})
				s.Log.Info("users are steered no more", "service", a.Service)
				continue
			}
			s.holds(a)
			s.control.allocate(a.Service, a.Allocation)
			s.Log.Info("users are steered", "service", a.Service, "epoch", a.Allocation.Epoch, "voucher", a.Voucher, "vips", a.VIPs, "servers", len(a.Allocation.Servers), "all", a.All)
		case steering.Tell:
			s.users.unkept = s.users.unkept || !a.Again
			s.tellUsers(now, s.sortedPeers(), a.Binding, a.Again)
		}
	}
	if changed {
		s.judge(now)
		s.settlePlain()
	}
}

// tells says whether a neighbor is told a binding: it is upstream, takes bindings, and has not passed this one on itself.
func (s *Service) tells(p *peer, b steering.Binding) bool {
	id := netip.AddrFrom4(p.id.LSR)
	return p.takesUsers && slices.Contains(s.Config.Users.Upstream, id) && !slices.Contains(b.Path, id)
}

// tellUsers tells those neighbors a binding that are to be told.
func (s *Service) tellUsers(now time.Time, all []*peer, b steering.Binding, again bool) {
	all = slices.DeleteFunc(slices.Clone(all), func(p *peer) bool { return !s.tells(p, b) })
	if len(all) == 0 {
		return
	}
	kind, raw, err := encode(b, again)
	if err != nil {
		s.Log.Error("tell a binding of users", "service", b.Service, "err", err)
		return
	}
	for _, p := range all {
		for _, m := range binding.Messages(kind, raw, int(p.session.MaxPDU())) {
			s.act(now, p, p.session.Say(now, m))
		}
	}
}

// encode is what neighbors are told. What holds for longer is told in full again, where that is not much: a neighbor may have refused it
// when it was told.
func encode(b steering.Binding, again bool) (kind wire.MessageType, raw []byte, err error) {
	kind = binding.TypeTold
	if raw, err = binding.Encode(b); err == nil && again && len(raw) > toldAgain {
		kind, b.Allocation, b.Nobody, b.Users, b.Others, b.Split = binding.TypeRefreshed, steering.Binding{}.Allocation, false, nil, nil, nil
		raw, err = binding.Encode(b)
	}
	return kind, raw, err
}

// usersUp begins with a neighbor: one upstream that takes bindings is told all there are.
func (s *Service) usersUp(now time.Time, p *peer, offers []wire.TLV) {
	p.takesUsers, p.users = binding.Offered(offers), binding.Assembler{}
	for _, b := range s.users.book.Held(now) {
		s.tellUsers(now, []*peer{p}, b, false)
	}
}

// usersDown ends with a neighbor.
func (s *Service) usersDown(now time.Time, p *peer) {
	p.takesUsers = false
	s.steer(now, s.users.book.Lost(now, netip.AddrFrom4(p.id.LSR)))
}

// usersTold takes a part of a binding from a neighbor. What is wrong with it ends nothing else.
func (s *Service) usersTold(now time.Time, p *peer, m wire.VendorPrivate) {
	if err := s.takeUsers(now, p, m); err != nil {
		reason := refusal(err)
		s.users.refused[reason]++
		if now.Sub(s.users.told) >= time.Minute {
			s.users.told = now
			s.Log.Warn("a binding of users is refused", "peer", p.id, "err", err, "reason", reason, "refused_so_far", s.users.refused[reason])
		}
	}
}

// errNotOffered: who says such things says in its Initialization message that it knows them (RFC 5561).
var errNotOffered = errors.New("the neighbor has not offered the capability")

// takeUsers adds a part to those that have come, and takes the binding when it is the last one.
func (s *Service) takeUsers(now time.Time, p *peer, m wire.VendorPrivate) error {
	raw, err := p.users.Add(m)
	if err != nil || raw == nil {
		return err
	}
	if !p.takesUsers {
		return errNotOffered
	}
	from := netip.AddrFrom4(p.id.LSR)
	if m.MessageType == binding.TypeActive {
		return s.takeActive(now, from, raw)
	}
	b, err := binding.Decode(raw)
	if err != nil {
		return err
	}
	return s.bind(now, from, b, m.MessageType == binding.TypeRefreshed)
}

// refusal is why a neighbor's binding was not taken, in a word.
func refusal(err error) string {
	for _, r := range []struct {
		is   error
		word string
	}{
		{errNotOffered, "not_offered"}, {steering.ErrNotTrusted, "not_trusted"}, {steering.ErrLoop, "loop"}, {steering.ErrStale, "stale"},
		{steering.ErrContradicts, "contradicts"}, {steering.ErrTaken, "taken"}, {steering.ErrFull, "full"},
		{errNotTold, "not_told"}, {binding.ErrTooMany, "too_many"}, {binding.ErrNoUser, "no_user"},
	} {
		if errors.Is(err, r.is) {
			return r.word
		}
	}
	return "malformed"
}

// note looks for trees among FECs that have changed.
func (u *userState) note(changed map[netip.Prefix]bool) {
	for server := range u.owners {
		u.dirty = u.dirty || changed[host(server)]
	}
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// bringUsers brings what holds into the fast path, where it is not there yet.
func (s *Service) bringUsers(now time.Time) {
	u := &s.users
	if !u.dirty && !u.unkept && (u.due.IsZero() || now.Before(u.due)) || !s.kernel.synced || now.Before(u.retry) {
		return // before there are routes there are no trees: what a process before has left goes on
	}
	all, err := s.allUsers()
	err = errors.Join(err, s.keepUsers(now))
	var failed error
	if s.Steer != nil && (u.dirty || !u.due.IsZero()) { // else what was said is to be kept alone
		u.brought = now
		failed = s.Steer(all)
	}
	if failed == nil {
		clear(u.freed)
	}
	if err = errors.Join(err, failed); err != nil {
		u.retry = now.Add(retrySoon)
		s.kernel.warn(s.Log, now, err)
		return
	}
	u.dirty, u.due, u.retry = false, time.Time{}, time.Time{}
}

// allUsers is what all users are steered by. What cannot be is left out, and in the error.
func (s *Service) allUsers() (vips.Users, error) {
	s.users.number()
	all := vips.Users{
		VIPs: map[netip.Addr]*steer.Plan{}, Trees: map[steer.Owner][]kernel.Hop{}, Split: map[netip.Addr]vips.Split{},
		Refuse: map[netip.Addr]vips.Refusal{}, Tell: map[netip.Addr]bool{},
	}
	for server, owner := range s.users.owners {
		if all.Trees[owner] = s.tables.Tree(host(server)); all.Trees[owner] == nil {
			all.Trees[owner] = []kernel.Hop{{}} // as the route says, to a director
		}
	}
	var errs []error
	for _, name := range s.Services() {
		b := s.users.steered[name]
		err := s.plan(b)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		four, six, err := b.plans(s.users.owners[byRoute])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, vip := range b.VIPs {
			all.VIPs[vip], all.Refuse[vip], all.Tell[vip] = four, refusalOf(b.Refuse), b.Reactive && len(s.Config.Users.Upstream) > 0
			if vip.Is6() {
				all.VIPs[vip] = six
			}
			if len(b.Split) > 0 { // active or not: a NAT that is worth it always is
				all.Split[vip] = vips.Split{Prefixes: b.Split, Plan: b.six}
			}
		}
	}
	return all, errors.Join(errs...)
}

// refusalOf is a binding's refusal in the fast path.
func refusalOf(r steering.Refusal) vips.Refusal {
	switch r {
	case steering.Unreachable:
		return vips.Unreachable
	case steering.Reset:
		return vips.Reset
	}
	return vips.Drop
}

// plan makes a service's plans, where they are to be made anew.
func (s *Service) plan(b *steered) (err error) {
	if b.four != nil {
		return nil
	}
	health := func(server string) steering.Health { return s.control.health(server, b.Address(server)) }
	owner := func(server string) steer.Owner { return s.users.owners[b.Address(server)] }
	if b.UsersOnly {
		b.four, b.six, err = steering.OnlyUsers(b.Binding, health, owner, s.users.owners[byRoute])
		return err
	}
	if b.compiled == nil {
		if b.compiled, err = steering.Compile(b.Binding); err != nil {
			return err
		}
	}
	if b.out {
		owner = func(string) steer.Owner { return 0 }
	}
	b.four, b.six = b.compiled.Plans(health, owner)
	b.active4, b.active6 = nil, nil
	return nil
}

// anew has the users of services that a server takes part in steered anew: it is otherwise than it was.
func (u *userState) anew(server string) {
	for _, b := range u.steered {
		if b.Address(server).IsValid() {
			u.planAnew(b)
		}
	}
}

func (u *userState) planAnew(b *steered) {
	b.four, b.six, u.dirty, u.unsaid, u.retry = nil, nil, true, true, time.Time{}
}

// servers are those that bindings name, by address.
func (u *userState) servers() (all []netip.Addr) {
	for _, b := range u.steered {
		for _, name := range b.Allocation.Servers {
			if a := b.Allocation.Address(name); a.IsValid() {
				all = append(all, a)
			}
		}
		for _, o := range b.Others {
			all = append(all, o.Address)
		}
	}
	return all
}

// number gives servers numbers, which they keep, and takes back those of servers that no binding names. None is another one's before plans
// that have it are out of force: their users would go to the wrong server until then.
func (u *userState) number() {
	named, used := map[netip.Addr]bool{}, map[steer.Owner]bool{}
	for _, a := range u.servers() {
		named[a] = true
	}
	for _, b := range u.steered {
		if !b.All {
			named[byRoute] = true
		}
	}
	for a, o := range u.owners {
		if used[o] = true; !named[a] {
			u.freed[o] = true
			delete(u.owners, a)
		}
	}
	maps.Copy(used, u.freed)
	next := steer.Owner(1)
	for _, a := range slices.SortedFunc(maps.Keys(named), netip.Addr.Compare) {
		if u.owners[a] != 0 {
			continue
		}
		for used[next] {
			next++
		}
		u.owners[a], used[next] = next, true
	}
}

func (s *Service) steeredStatus() (out []*tdpdv1.Steered) {
	for _, name := range s.Services() {
		b := s.users.steered[name]
		st := &tdpdv1.Steered{
			Service: name, Voucher: b.Voucher.String(), Epoch: alloc.EpochToProto(b.Allocation.Epoch),
			Servers: uint32(len(b.Allocation.Used())), Users: uint32(len(b.Users)),
			Reactive: b.Reactive, All: b.All, UsersOnly: b.UsersOnly,
		}
		if b.active != nil {
			st.Active = uint32(b.active.Len())
		}
		for _, server := range b.Allocation.Servers {
			if s.control.health(server, b.Allocation.Address(server)) != steering.Available {
				st.Failing = append(st.Failing, server)
			}
		}
		for _, v := range b.VIPs {
			st.Vips = append(st.Vips, v.String())
		}
		out = append(out, st)
	}
	return out
}

// Steered is what holds of a service; false: nothing.
func (s *Service) Steered(service string) (steering.Binding, bool) {
	b, ok := s.users.steered[service]
	if !ok {
		return steering.Binding{}, false
	}
	return b.Binding, true
}

// Services are those whose users are steered, sorted.
func (s *Service) Services() []string { return slices.Sorted(maps.Keys(s.users.steered)) }
