package agent

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/mover"
)

// keeps reports whether connections of moved users go on at the servers that have them. An allocation that says who had whom before says so, too: it
// may be here before the service that its leader made it for.
func keeps(s service.Service, a alloc.Allocation) bool {
	return !s.Static() && (s.Handover.Keeps() || len(a.Trail.Chains) > 0)
}

// holds reports whether this server goes on with connections of a cell that is another's.
func (c *Core) holds(s service.Service, a alloc.Allocation, cell int) bool {
	chain := a.ChainOf(cell)
	return keeps(s, a) && (chain.Cut != epoch.Epoch{} || chain.Has(c.name) || c.standsBy(a)(cell))
}

// standsBy says of a cell whether this server serves its users in their owner's stead, when that is out. It may be asked by any goroutine.
func (c *Core) standsBy(a alloc.Allocation) func(cell int) bool {
	me, hears := c.name, c.hearing != nil
	return func(cell int) bool { return hears && a.OwnerOf(cell) != me && a.StandbyOf(cell) == me }
}

// class are cells that the data plane treats alike.
type class struct {
	chain uint32 // of the trail
	owner string // who serves them; empty: not known
	away  string // in whose stead, or who was in theirs, if that may hold connections; empty: nobody
	takes bool   // this server is about to have them, or stands by for their owner
	owns  bool   // it is about to have them, or has them and is out
}

// chains are who may have connections of whose users, and whose these are now. Where routers alone decide who comes here, what is for
// others may come, too, and is sent on: to the standby, where the owner is gone.
func (c *Core) chains(s service.Service) []dataplane.Chain {
	a := c.current(s.Name)
	if next := c.expected(s.Name, c.held[s.Name]); !next.Zero() {
		return c.chainsAhead(s, a, next)
	}
	now := c.effective(a)
	return c.chainsOf(s, now, now, func(cell int) string { return c.servedBy(a, now, cell) }, func(cell int) string { return c.away(s.Name, a, now, cell) })
}

// chainsAhead are those of what is announced, in force until it is executed: with all that may hold connections then, but until then users are
// whose they were. Their new owner may know nothing yet.
func (c *Core) chainsAhead(s service.Service, a, next alloc.Allocation) []dataplane.Chain {
	now := c.effective(a)
	owners, aways, several := make([]string, len(next.Owner)), make([]string, len(next.Owner)), make([]bool, len(next.Owner))
	for was, is := range alloc.Pairs(now, next) {
		owner := c.servedBy(a, now, was)
		several[is] = several[is] || owners[is] != "" && owners[is] != owner
		owners[is], aways[is] = owner, cmp.Or(aways[is], c.away(s.Name, a, now, was))
	}
	return c.chainsOf(s, next, now, func(cell int) string {
		if several[cell] {
			return ""
		}
		return owners[cell]
	}, func(cell int) string { return aways[cell] })
}

// servedBy is whose what is new of a cell's users is: while this server owns them and is out, their standby's. now is a as it is served, as far as is
// heard of others.
func (c *Core) servedBy(a, now alloc.Allocation, cell int) string {
	owner, standby := now.OwnerOf(cell), a.StandbyOf(cell)
	if owner == c.name && !c.takes() && standby != c.name && c.isThere(standby) {
		return standby
	}
	return owner
}

// away is in whose stead a cell's users are served, or who was in their owner's, if that may hold connections of theirs; empty: nobody. now is a as it
// is served.
func (c *Core) away(name string, a, now alloc.Allocation, cell int) string {
	switch owner, standby := a.OwnerOf(cell), a.StandbyOf(cell); {
	case owner != now.OwnerOf(cell) && owner != c.name && !c.isSilent(owner):
		return owner // it is out, and has its connections yet
	case owner == c.name && owner == now.OwnerOf(cell) && c.stoodIn(name, standby):
		return standby
	}
	return ""
}

// chainsOf are those of an allocation, whose cells are served as owner and away say; known has the addresses. nil: there are none.
func (c *Core) chainsOf(s service.Service, a, known alloc.Allocation, owner, away func(cell int) string) []dataplane.Chain {
	if !keeps(s, a) || a.Zero() {
		return nil
	}
	classes := make([]class, len(a.Owner))
	seen := map[class]bool{}
	for cell := range a.Owner {
		k := class{owner: owner(cell), away: away(cell)}
		if a.Trail.Of != nil {
			k.chain = a.Trail.Of[cell]
		}
		k.owns = k.owner != c.name && a.OwnerOf(cell) == c.name
		k.takes = k.owns || k.owner != c.name && a.StandbyOf(cell) == c.name
		classes[cell] = k
		comes := s.Mode == service.Tags || pinsUsers(s) || k.takes
		if k.chain > 0 || k.away != "" || comes && k.owner != c.name { // with a chain: who had them in a trail before this one may yet be sent to
			seen[k] = true
		}
	}
	var out []dataplane.Chain
	for _, k := range slices.SortedFunc(maps.Keys(seen), func(x, y class) int {
		return cmp.Or(later(x.takes, y.takes), later(x.owns, y.owns), cmp.Compare(x.owner, y.owner), cmp.Compare(x.away, y.away), cmp.Compare(x.chain, y.chain))
	}) {
		users := a.Select(func(cell int) bool { return classes[cell] == k })
		out = append(out, c.chain(s.Name, a, known, k, portion.Union{users}))
	}
	return out
}

// later orders those last of which something is true.
func later(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return 1
	}
	return -1
}

func (c *Core) chain(name string, a, known alloc.Allocation, k class, users portion.Union) dataplane.Chain {
	out := dataplane.Chain{Users: users, Takes: k.takes, Owns: k.owns}
	staysHere := c.isSilent(k.owner) || c.isDoubted(k.owner) && c.mayServe(a, k)
	var hops []alloc.Hop
	if k.owner != "" && k.owner != c.name && !staysHere {
		out.Owner = known.Address(k.owner)
	}
	if k.away != "" {
		hops = append(hops, alloc.Hop{Server: k.away, Address: known.Address(k.away), Until: known.Epoch})
	}
	if k.chain > 0 {
		from := a.Trail.Chains[k.chain-1]
		out.Ask = from.Cut != epoch.Epoch{}
		for _, h := range from.Hops {
			if h.Server != c.name && !c.isOver(name, h) {
				hops = append(hops, h)
			}
		}
	}
	out.Hops = orderedHops(hops, c.name)
	if len(out.Hops) > dataplane.MaxHops {
		out.Hops, out.Ask = out.Hops[:dataplane.MaxHops], true
	}
	return out
}

// orderedHops are former owners with an address in the one order that all servers go by, each epoch's by their names.
func orderedHops(hops []alloc.Hop, me string) []dataplane.Hop {
	slices.SortFunc(hops, func(x, y alloc.Hop) int { return cmp.Or(y.Until.Compare(x.Until), cmp.Compare(x.Server, y.Server)) })
	var out []dataplane.Hop
	for _, h := range slices.Compact(hops) {
		if h.Address.IsValid() {
			out = append(out, dataplane.Hop{Address: h.Address, Until: until(h, me)})
		}
	}
	return out
}

// until is where a former owner stands in a chain, as a server sees it: servers execute allocations at different moments, so it may hang on
// nothing but the two.
func until(h alloc.Hop, me string) uint32 {
	n := 2 * uint32(h.Until.Number)
	if h.Server > me {
		n--
	}
	return n
}

// isOver reports whether a former owner holds nothing any more that it had until then: it has said so, or is silent.
func (c *Core) isOver(service string, h alloc.Hop) bool {
	if c.hearing == nil {
		return false
	}
	m, known := c.hearing.members[h.Server]
	if !known {
		return false
	}
	if c.isSilent(h.Server) || m.anew {
		return true
	}
	holders := alloc.Holders{}
	holders.Add(h.Server, m.kept[service])
	return !holders.Hold(h.Server, h.Until)
}

// stoodSaid is how long a server that was out takes its standbys for such that stood in, whatever they have said: the longest time between two
// measurements of what they hold, and between two reports.
const stoodSaid = 11 * time.Second

// stoodIn reports whether a standby may hold connections of this server's users, whom it took in its stead.
func (c *Core) stoodIn(service, standby string) bool {
	if c.hearing == nil || standby == "" || c.isSilent(standby) {
		return false
	}
	m := c.hearing.members[standby]
	kept := m.kept[service]
	return !m.anew && (!c.presence.back.IsZero() || kept != nil && kept.Stood)
}

// mayHold reports whether this server may hold connections of a service's users who are others'.
func (c *Core) mayHold(name string) bool {
	_, some := c.kept(c.specs[name])
	return some
}

// Of connections that end: how long an application has to close in order, how long one has carried nothing at a break point that the
// application is not asked for, and how often those are looked for.
const (
	orderlyGrace = 2 * time.Second
	breakIdle    = time.Second
	breakEvery   = time.Second
)

// ending is how a closing closes. An application that reads the end comes to its own break point; else it is where nothing is on its way.
func ending(s service.Service, d closing) dataplane.Ending {
	var how dataplane.Ending
	if s.Handover.Close == service.CloseOrderly {
		how.Orderly, how.Grace = true, orderlyGrace
	}
	if d.breaks {
		how.Idle = breakIdle
	}
	return how
}

// views are the services, with the allocations that are executed.
func (c *Core) views() []mover.View {
	var out []mover.View
	for _, name := range slices.Sorted(maps.Keys(c.specs)) {
		v := mover.View{Service: c.specs[name]}
		if !v.Service.Static() {
			v.Allocation = c.current(name)
		}
		out = append(out, v)
	}
	return out
}

// handshake is how long after the last SYN that came here a connection may begin.
const handshake = 200 * time.Millisecond

// fresh is an allocation whose lost users may yet reach this server: until routers have switched, and their handshakes are over.
type fresh struct {
	before  epoch.Epoch // what it replaced
	until   time.Time
	late    []late    // oldest first
	settled time.Time // when the last of them is over
}

// late is an allocation that was replaced, until packets of users whom neighbours lost by that to other links do not come by this one any more.
type late struct {
	before alloc.Allocation
	until  time.Time
}

// runOn is how long routers let a replaced set run on where nobody else has claimed it: a winner's joins may be late. Until then a packet on the
// old link does not mean that its owner is silent.
const runOn = time.Second

// lateMost bounds what is kept of allocations that follow each other within runOn: four times as many as a leader makes.
const lateMost = 16

// next is what follows it when an allocation is executed: what was lost by those before, just now, may yet reach this server, too.
func (f *fresh) next(now time.Time, before alloc.Allocation, settle time.Duration) *fresh {
	out := &fresh{before: before.Epoch, until: now.Add(settle + handshake), settled: now.Add(runOn)}
	if f != nil && now.Before(f.until) && f.before != (epoch.Epoch{}) {
		out.before = f.before
	}
	if f != nil {
		f.settle(now)
		out.late = f.late[max(len(f.late)-lateMost+1, 0):]
	}
	if !before.Zero() {
		out.late = append(slices.Clone(out.late), late{before, out.settled})
	}
	return out
}

// settle ends that time of some, and reports whether it has just ended of any.
func (f *fresh) settle(now time.Time) bool {
	n := len(f.late)
	f.late = slices.DeleteFunc(f.late, func(l late) bool { return !now.Before(l.until) })
	return len(f.late) < n
}

// kept counts what this server holds of a service's users who are others', and says whether there may be any.
func (c *Core) kept(s service.Service) (count func(now time.Time, connected iter.Seq[netip.AddrPort]) alloc.Kept, some bool) {
	a, me := c.current(s.Name), c.name
	if !keeps(s, a) || a.Zero() {
		return nil, false
	}
	for _, chain := range a.Trail.Chains {
		some = some || chain.Has(me) || chain.Cut != epoch.Epoch{}
	}
	some = some || c.hearing != nil && len(c.owners(s.Name)) > 0
	fresh, stands := c.fresh[s.Name], c.standsBy(a)
	return func(now time.Time, connected iter.Seq[netip.AddrPort]) alloc.Kept {
		k := alloc.Kept{Epoch: a.Epoch}
		if fresh != nil && now.Before(fresh.until) {
			k.Epoch = fresh.before // of users lost since, connections may yet begin here
		}
		for user := range connected {
			cell := cellOf(a, s.Split, user)
			if isOwn := a.OwnerOf(cell) == me; isOwn && (fresh == nil || !now.Before(fresh.settled) || !a.ChainOf(cell).Has(me)) {
				continue // those who have just come back, servers that are late still bring by the old way
			}
			until := a.ChainOf(cell).Until(me)
			if until == (epoch.Epoch{}) && stands(cell) {
				until, k.Stood = a.Epoch, true
			}
			if k.Connections == 0 || until.Less(k.Since) {
				k.Since = until
			}
			k.Connections++
		}
		return k
	}, some
}

// isSilent reports whether a server is, as far as is heard.
func (c *Core) isSilent(server string) bool {
	return c.hearing != nil && c.hearing.gone[server] && c.hearing.members[server].health == control.Silent
}

// isDoubted reports whether a server may be dead, which is not known yet.
func (c *Core) isDoubted(server string) bool { return c.hearing != nil && c.hearing.doubted[server] }

// mayServe reports whether what is new of a class' users may stay here while their owner is doubted, which is lost where that is dead: its standby
// would serve it, and what a former owner serves is found, for it is in the trail.
func (c *Core) mayServe(a alloc.Allocation, k class) bool {
	return k.takes || k.chain > 0 && a.Trail.Chains[k.chain-1].Has(c.name)
}

// over are the hops of all trails that are over.
func (c *Core) over() map[over]bool {
	out := map[over]bool{}
	for name, s := range c.specs {
		a := c.current(name)
		if !keeps(s, a) {
			continue
		}
		for _, chain := range a.Trail.Chains {
			for _, h := range chain.Hops {
				if c.isOver(name, h) {
					out[over{name, h.Server, h.Until}] = true
				}
			}
		}
	}
	return out
}

// stood are the standbys that say that they hold what they took in this server's stead, or in another's.
func (c *Core) stood() map[ward]bool {
	out := map[ward]bool{}
	for server, m := range c.hearing.members {
		for name, k := range m.kept {
			if k.Stood && c.stoodIn(name, server) {
				out[ward{name, server}] = true
			}
		}
	}
	return out
}

// forget takes former owners out of the chains that hold nothing any more, and standbys into them that hold something, unless actions apply everything anyway.
func (c *Core) forget(actions []Action) []Action {
	wasOver, wasStood := c.hearing.over, c.hearing.stood
	c.hearing.over, c.hearing.stood = c.over(), c.stood()
	if maps.Equal(wasOver, c.hearing.over) && maps.Equal(wasStood, c.hearing.stood) || slices.ContainsFunc(actions, func(a Action) bool { _, is := a.(Apply); return is }) {
		return actions
	}
	return append(actions, c.apply())
}

type over struct {
	service, server string
	until           epoch.Epoch
}

// peers are the servers that may hand packets and connections over to this one.
func (c *Core) peers() []netip.Addr {
	all := map[netip.Addr]bool{}
	for name, s := range c.specs {
		for _, a := range []alloc.Allocation{c.current(name), c.expected(name, c.held[name])} {
			if !keeps(s, a) {
				continue
			}
			for i, address := range a.Addresses {
				all[address] = all[address] || a.Servers[i] != c.name
			}
			for _, chain := range a.Trail.Chains {
				for _, h := range chain.Hops {
					all[h.Address] = all[h.Address] || h.Server != c.name
				}
			}
		}
	}
	maps.DeleteFunc(all, func(a netip.Addr, other bool) bool { return !other || !a.IsValid() })
	return slices.SortedFunc(maps.Keys(all), netip.Addr.Compare)
}
