package agent

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/joiner"
	"github.com/manycast/manycast/lbd/internal/store"
)

// Core knows the services and allocations that concern one server.
type Core struct {
	name   string
	serve  []string     // names of services; empty: those that name this server with portions
	link   netip.Prefix // where the groups are joined
	settle time.Duration

	judged   bool                        // healthy says something
	healthy  bool                        // the application, as far as known
	specs    map[string]service.Service  // nil before the first SetServices
	held     map[string]alloc.Allocation // executed, by service; kept also while the service is not known
	unread   map[string]epoch.Epoch      // of an allocation that is not understood, by service; counts while it is newer
	fresh    map[string]*fresh           // by service
	closings []closing
	losses   map[string][]loss           // by service
	begins   map[string][]beginning      // by service, the oldest first: those that wait for losers
	coming   map[string]coming           // announced, by service
	ahead    map[string]alloc.Allocation // announced, by service: users are pinned by it, who are to go
	hearing  *hearing                    // nil: there is no control channel
	presence presence
}

// closing is a Close to come: routers get the time to switch, so that no packet of a moved user finds its connection gone
// at a server that it still reaches.
type closing struct {
	service string
	epoch   epoch.Epoch      // zero: others have come back, and nobody waits for a Done
	before  alloc.Allocation // what the allocation of that epoch replaced
	all     bool             // also what is kept: nothing keeps it any more
	until   epoch.Epoch      // of users whom the server lost after that epoch or before; zero: of all
	breaks  bool             // those that are at a break point, again and again
	winners map[string]bool  // where all are on this link: those that have yet to take over
	isBack  bool             // their owner is back, who was out
	at      time.Time        // at the latest
}

// why is how connections are counted that it closes.
func (d closing) why() string {
	switch {
	case d.breaks:
		return "break"
	case d.all:
		return "deadline"
	case d.isBack:
		return "back"
	}
	return "moved"
}

// NewCore returns a Core that executes nothing yet. Connections of lost portions are closed settle after a commit; until then
// the server goes on taking those that went to a server on another link, for routers still bring it their packets or do not:
// only on one link do both get them.
func NewCore(name string, serve []string, link netip.Prefix, settle time.Duration) *Core {
	return &Core{
		name: name, serve: serve, link: link, settle: settle,
		losses: map[string][]loss{}, held: map[string]alloc.Allocation{}, unread: map[string]epoch.Epoch{}, begins: map[string][]beginning{}, coming: map[string]coming{}, fresh: map[string]*fresh{}, ahead: map[string]alloc.Allocation{},
	}
}

// serves reports whether this server is in the service's pool.
func (c *Core) serves(name string) bool {
	return len(c.serve) == 0 || slices.Contains(c.serve, name)
}

// Restore gives back what Keep put on disk in an earlier run, before the first SetServices. The allocation counts unless a newer one is
// known. Connections that were to be closed then, or are by the newer one, are closed now; those that are kept end when they would have.
func (c *Core) Restore(now time.Time, name string, a alloc.Allocation, losses []store.Loss) {
	if !c.serves(name) {
		return
	}
	c.losses[name] = append(restored(now, losses), c.losses[name]...)
	if c.held[name].Epoch.Less(a.Epoch) {
		c.held[name] = a
	}
	c.closings = append(c.closings, closing{service: name, epoch: c.held[name].Epoch, at: now.Add(c.settle)})
}

// SetServices makes services all that there are.
func (c *Core) SetServices(now time.Time, services []service.Service) []Action {
	specs := map[string]service.Service{}
	for _, s := range services {
		if c.serves(s.Name) && (len(c.serve) > 0 || len(c.static(s).Permit) > 0) {
			specs[s.Name] = s
		}
	}
	if c.specs != nil && reflect.DeepEqual(specs, c.specs) {
		return nil
	}
	for name, s := range specs {
		if was, known := c.specs[name]; known && !slices.Equal(was.Split, s.Split) {
			c.closings = append(c.closings, closing{service: name, at: now.Add(c.settle)}) // other users are split: routers switch them
		}
	}
	before := c.specs
	c.specs = specs
	apply := c.apply()
	out := []Action{}
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		_, known := before[name]
		if !known && c.loseUnnoticed(now, name) {
			out = append(out, c.keep(name, c.held[name]))
		}
		if e := c.held[name].Epoch; !known && e != (epoch.Epoch{}) { // others may wait for that since it was committed, and this server away
			apply.Ceased = append(apply.Ceased, announce.Ceased{Service: name, Epoch: e, Server: c.name})
		}
		c.plan(name)
	}
	return append(append([]Action{apply}, out...), c.settleIn(now)...)
}

// SetHealthy tells how the application is. Static portions are joined while it is healthy, and not before that is known: after
// a restart the routers have the joins of the last run. Of allocated ones the leader takes care, and standbys before it where
// there is a control channel.
func (c *Core) SetHealthy(now time.Time, healthy bool) []Action {
	if c.judged && healthy == c.healthy {
		return nil
	}
	isNews := healthy != c.healthy
	c.judged, c.healthy = true, healthy
	if healthy {
		c.presence.starting = false
	}
	out := c.settleIn(now)
	for _, s := range c.specs {
		if isNews && len(out) == 0 && s.Static() {
			return []Action{c.apply()}
		}
	}
	return out
}

// Registers are the services that a leader allocates and that this server is known to be in, in order of names.
func (c *Core) Registers() []service.Service {
	var out []service.Service
	for _, name := range slices.Sorted(maps.Keys(c.specs)) {
		if s := c.specs[name]; !s.Static() {
			out = append(out, s)
		}
	}
	return out
}

// Announced prepares for an allocation and says so.
func (c *Core) Announced(now time.Time, name string, a, previous alloc.Allocation) []Action {
	s, ok := c.specs[name]
	if !ok || a.Epoch.Less(c.held[name].Epoch) {
		return nil
	}
	c.expect(now, name, a, previous)
	if !c.takes() {
		return nil // whoever is out is not to be counted on
	}
	then := *c
	then.held = maps.Clone(c.held)
	then.held[name] = a
	next := then.apply()
	at, _ := slices.BinarySearch(slices.Sorted(maps.Keys(c.specs)), name)
	next.Accept[at].Chains = c.chains(s)
	peers := slices.Concat(c.peers(), next.Peers)
	slices.SortFunc(peers, netip.Addr.Compare)
	prepared := announce.Prepared{Service: name, Epoch: a.Epoch, Server: c.name}
	out := []Action{Prepare{next.Accept, slices.Compact(peers)}, c.pinAhead(s, a, prepared)}
	if c.leaves(name) {
		return append([]Action{c.apply()}, out...)
	}
	return out
}

// Committed executes an allocation, told by the leader or found in the bucket: whatever comes first counts, the other and
// all older ones change nothing.
func (c *Core) Committed(now time.Time, name string, a alloc.Allocation) []Action {
	if !c.serves(name) || a.Zero() {
		return nil
	}
	if held := c.held[name]; !held.Epoch.Less(a.Epoch) || a.Epoch.Less(c.unread[name]) {
		return c.stale(name, held, a)
	}
	before := c.effective(c.current(name))
	c.held[name] = a
	c.fresh[name] = c.fresh[name].next(now, before, c.settle)
	if !a.Epoch.Less(c.ahead[name].Epoch) {
		delete(c.ahead, name)
	}
	if s, ok := c.specs[name]; !ok || s.Static() {
		return []Action{c.keep(name, a)}
	}
	loses := c.loses(before, a)
	if !loses {
		c.loseUnnoticed(now, name)
	}
	waits := c.begin(now, name, before, a)
	switch {
	case loses:
	case waits: // one step for all that is won, and no disk before it: the losers' word comes at once
		return nil
	default:
		return []Action{c.apply(), c.keep(name, a), c.done(name, a.Epoch, 0)}
	}
	c.closings = append(c.closings, closing{
		service: name, epoch: a.Epoch, before: before, winners: c.winners(before, a), at: now.Add(c.settle),
	})
	if keeps(c.specs[name], a) {
		c.lose(now, name, before.Epoch)
	}
	apply := c.apply()
	apply.Ceased = []announce.Ceased{{Service: name, Epoch: a.Epoch, Server: c.name}}
	return []Action{apply, c.keep(name, a)}
}

// stale warns of an allocation from a bus that has forgotten.
func (c *Core) stale(name string, held, a alloc.Allocation) []Action {
	if a.Epoch.Term >= held.Epoch.Term {
		return nil
	}
	return []Action{Warn{name, fmt.Sprintf("allocation %v is refused: its term is older than that of %v, which is executed", a.Epoch, held.Epoch)}}
}

// winners are those who get users of this server, where all of them are on its link; else there are none to wait for but the routers.
func (c *Core) winners(before, after alloc.Allocation) map[string]bool {
	winners := map[string]bool{}
	after = c.effective(after)
	for was, is := range alloc.Pairs(before, after) {
		winner := after.OwnerOf(is)
		if before.OwnerOf(was) != c.name || winner == c.name {
			continue
		}
		if c.elsewhere(after.Address(winner)) {
			return nil
		}
		winners[winner] = true
	}
	return winners
}

// DoneBy tells that a server takes what it won in that epoch. What was lost to it is closed when all have: a user who connects anew, at once,
// then finds somebody.
func (c *Core) DoneBy(now time.Time, name string, e epoch.Epoch, server string) {
	for i, d := range c.closings {
		if d.service != name || d.epoch != e || !d.winners[server] {
			continue
		}
		if delete(d.winners, server); len(d.winners) == 0 && now.Before(d.at) {
			c.closings[i].at = now
		}
	}
}

// loses reports whether users were this server's and are not any more.
func (c *Core) loses(before, after alloc.Allocation) bool {
	if before.Zero() {
		return false
	}
	after = c.effective(after)
	for was, is := range alloc.Pairs(before, after) {
		if before.OwnerOf(was) == c.name && after.OwnerOf(is) != c.name {
			return true
		}
	}
	return !alloc.Comparable(before, after)
}

// Tick lets time pass: connections are closed whose time has come, after the server has ceased to take their portions, and
// what no loser has answered for is taken.
func (c *Core) Tick(now time.Time) []Action {
	out := c.tickHearing(now)
	again := map[string]epoch.Epoch{} // what has breaks, by service
	out = append(out, c.tickBeginnings(now)...)
	lingering := c.giveUp(now)
	for _, f := range c.fresh {
		lingering = f.settle(now) || lingering
	}
	c.closings = slices.DeleteFunc(c.closings, func(d closing) bool {
		if now.Before(d.at) {
			return false
		}
		lingering = lingering || !d.before.Zero()
		if s, ok := c.specs[d.service]; ok {
			out = append(out, Close{Service: d.service, Epoch: d.epoch, VIPs: s.VIPs(), Ports: s.Ports, Lost: c.lost(d), How: ending(s, d), Why: d.why()})
		}
		if d.breaks && again[d.service].Less(d.until) && c.mayHold(d.service) {
			again[d.service] = d.until
		}
		return true
	})
	for name, until := range again {
		c.closings = append(c.closings, closing{service: name, all: true, until: until, breaks: true, at: now.Add(breakEvery)})
	}
	if lingering {
		out = slices.Insert(out, 0, Action(c.apply()))
	}
	return out
}

// lost says which users' connections are to end: those of users who are not this server's by the newest allocation, unless they are kept.
func (c *Core) lost(d closing) func(netip.AddrPort) bool {
	a, s := c.effective(c.current(d.service)), c.specs[d.service]
	return func(user netip.AddrPort) bool {
		if a.Zero() {
			return true
		}
		cell := cellOf(a, s.Split, user)
		if d.until != (epoch.Epoch{}) && d.until.Less(a.ChainOf(cell).Until(c.name)) {
			return false
		}
		return a.OwnerOf(cell) != c.name && (d.all || !c.holds(s, a, cell))
	}
}

// cellOf is the cell of a connection, as at the routers. One of IPv6, or of a user that is split, goes by the slot of what stands in for it:
// fixed portions are of IPv4 addresses.
func cellOf(a alloc.Allocation, split steer.Split, from netip.AddrPort) int {
	user, standin := split.User(from)
	if standin {
		return a.Slots.Index(user)
	}
	return a.CellOf(user)
}

// Next returns when Tick has something to do; zero: nothing is planned.
func (c *Core) Next() time.Time {
	var next time.Time
	for _, d := range c.closings {
		if next.IsZero() || d.at.Before(next) {
			next = d.at
		}
	}
	for _, begins := range c.begins {
		for _, b := range begins {
			if next.IsZero() || b.until.Before(next) {
				next = b.until
			}
		}
	}
	for _, k := range c.coming {
		if next.IsZero() || k.expires.Before(next) {
			next = k.expires
		}
	}
	for _, f := range c.fresh {
		if len(f.late) > 0 && (next.IsZero() || f.late[0].until.Before(next)) {
			next = f.late[0].until
		}
	}
	for _, at := range c.presenceTimes() {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// Closed tells that a Close has closed so many connections.
func (c *Core) Closed(name string, e epoch.Epoch, connections int) []Action {
	if e == (epoch.Epoch{}) {
		return nil
	}
	return []Action{c.done(name, e, connections)}
}

func (c *Core) done(name string, e epoch.Epoch, connections int) Action {
	return Send{announce.Done{Service: name, Epoch: e, Server: c.name, Closed: connections}}
}

// Owns reports whether the server owns anything that a leader could give to another one.
func (c *Core) Owns() bool {
	for _, s := range c.Registers() {
		if c.current(s.Name).Owns(c.name) {
			return true
		}
	}
	return len(c.closings) > 0
}

// apply is what all services together want of the data plane and the routers.
func (c *Core) apply() Apply {
	out := Apply{Known: c.specs != nil, Status: c.status(), Peers: c.peers()}
	for _, name := range slices.Sorted(maps.Keys(c.specs)) {
		s := c.specs[name]
		var e epoch.Epoch
		own, standby := c.static(s), portion.Set{}
		switch a := c.held[name]; {
		case s.Static() || a.Zero():
		case c.isUnread(name):
			e = c.unread[name]
		default:
			e, own, standby = a.Epoch, a.Users(c.name), a.StandbyUsers(c.name)
		}
		out.Accept = append(out.Accept, dataplane.AgentService{
			VIP: s.VIP, VIP6: s.VIP6, Group: s.Group, Tagged: s.Mode == service.Tags || pinsUsers(s) || s.Dynamic.On, Ports: s.Ports, Leased: !s.Static(),
			Accept: c.accept(s, own), InStead: c.inStead(s), Keeps: keeps(s, c.current(name)), Chains: c.chains(s),
		})
		if c.joins(s) {
			out.Join = append(out.Join, joiner.Membership{
				Group: s.Group, Epoch: e, Owner: own, Standby: standby,
			})
		}
	}
	return out
}

// accept are the users that the server takes of the service, where own are its own.
func (c *Core) accept(s service.Service, own portion.Set) portion.Union {
	switch {
	case s.Static():
		return portion.Union{own}
	case !c.takes() || c.isUnread(s.Name):
		return nil
	}
	return slices.Concat(c.lingering(s.Name), c.taken(s.Name, own), c.standing(s.Name))
}

// inStead are those of them whom it takes in the stead of silent servers of its link.
func (c *Core) inStead(s service.Service) portion.Union {
	if s.Static() || !c.takes() || c.isUnread(s.Name) {
		return nil
	}
	return c.standingFor(s.Name, func(owner string, isNear bool) bool { return isNear && c.hearing.gone[owner] })
}

// joins reports whether the server is to be a member of the service's group, if it has one: with mode tags, too, so that its users lose
// nothing when it moves to the other mode. One that is in the pool is, also without users:
// by its joins routers know its port, and snooping switches bring it the first packet of what it wins next.
func (c *Core) joins(s service.Service) bool {
	if s.Static() {
		return c.healthy && len(c.static(s).Permit) > 0
	}
	return s.Group.IsValid() && !c.held[s.Name].Zero()
}

// lingering are the users of the service that this server lost to servers on other links and still takes.
func (c *Core) lingering(name string) portion.Union {
	var out portion.Union
	after := c.held[name]
	for _, d := range c.closings {
		if d.service != name {
			continue
		}
		out = append(out, alloc.Between(d.before, after, func(was, is int) bool {
			winner := after.OwnerOf(is)
			return d.before.OwnerOf(was) == c.name && winner != c.name && c.elsewhere(after.Address(winner))
		})...)
	}
	return out
}

// static are the users that the service itself gives to this server.
func (c *Core) static(s service.Service) portion.Set {
	for _, server := range s.Servers {
		if server.Name == c.name {
			return server.Users()
		}
	}
	return portion.Set{}
}
