package membership

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
)

// privateGroup is a group of extended joins. It stays known without members: its highest term must not be forgotten.
type privateGroup struct {
	addr    netip.Addr
	term    uint64
	members map[netip.Addr]*member                     // by requester
	retired map[netip.Addr]*member                     // what requesters had before a move, until expires
	health  map[netip.Addr]Health                      // the Table's
	served  map[netip.Addr][]netip.Addr                // likewise
	sets    map[epoch.Epoch]*portion.Index[netip.Addr] // what members own, for overlap
	emptied time.Time

	plan     *steer.Plan
	outdated bool                // the plan is of what was before
	untried  []untried           // accepted since the plan was made
	size     int                 // portions in the plan
	masks    map[netip.Addr]bool // and their masks
}

// member is one requester's complete set.
type member struct {
	owner   steer.Owner
	port    string
	epoch   epoch.Epoch
	keyID   uint32
	own     portion.Set
	standby portion.Set
	signed  []join.Signed // its last joins, to pass on; none after a restart
	since   time.Time
	expires time.Time
}

// retirement is how long the set that a higher epoch replaced goes on where nobody else has claimed it: in a move the loser's
// joins may come before the winner's, and packets between them would be lost.
const retirement = time.Second

// Join takes one admitted part of a requester's set. When the set is complete it is accepted as a whole, and relayed, or
// refused with an error that wraps ErrStale, ErrOverlap, ErrComplex or ErrFull, or one of the assembler's.
func (t *Table) Join(now time.Time, portName string, s join.Signed) ([]Action, error) {
	g := t.private[s.Group]
	if g != nil && g.stale(s.Join) {
		return t.take(), fmt.Errorf("%w %v", ErrStale, s.Epoch)
	}
	set, complete, err := t.assembler.Add(now, s)
	if err != nil || !complete {
		t.arm(now.Add(t.cfg.Membership())) // what stays incomplete is dropped then
		return t.take(), err
	}
	if g == nil {
		if g, err = t.newPrivate(s.Group); err != nil {
			return t.take(), err
		}
	}
	if err := t.accept(now, g, portName, set); err != nil {
		return t.take(), err
	}
	g.term = max(g.term, set.Epoch.Term)
	t.act(Relay{portName, set.Signed})
	return t.take(), nil
}

// stale holds for lower terms than the group has seen, and for lower epochs than the requester's set has.
func (g *privateGroup) stale(j join.Join) bool {
	m := g.members[j.Requester]
	return j.Epoch.Term < g.term || m != nil && j.Epoch.Less(m.epoch)
}

func (t *Table) accept(now time.Time, g *privateGroup, portName string, set join.Set) error {
	if set.Leave {
		t.remove(now, g, set.Requester)
		return nil
	}
	m := g.members[set.Requester]
	next := member{
		port: portName, epoch: set.Epoch, keyID: set.KeyID, own: set.Owner, standby: set.Standby,
		signed: set.Signed, since: now, expires: now.Add(t.cfg.Membership()),
	}
	if m != nil && m.sameForwarding(next) { // a refresh
		m.keyID, m.signed, m.expires = next.keyID, next.signed, next.expires
		return nil
	}
	if err := g.overlap(set.Requester, next); err != nil {
		return err
	}
	if m != nil && m.epoch.Less(next.epoch) {
		g.retire(now, set.Requester, m)
		t.arm(now.Add(retirement))
	}
	if m == nil && len(g.members) >= t.cfg.Limits.Requesters {
		return fmt.Errorf("%w: %d requesters", ErrFull, len(g.members))
	}
	var ok bool
	if next.owner, ok = t.owners.get(set.Requester, t.inUse); !ok {
		return fmt.Errorf("%w: %d owners", ErrFull, t.cfg.Limits.Owners)
	}
	return t.replace(g, set.Requester, m, &next)
}

// replace puts a set in place, if what all members then have can be steered. Where finding out is dear and hardly in doubt, Settle
// does it for all that have come together.
func (t *Table) replace(g *privateGroup, requester netip.Addr, old, next *member) error {
	if !g.familiar(next) {
		t.settle(g)
		old = g.members[requester]
	}
	g.put(requester, old, next)
	if g.familiar(next) {
		g.outdated = true
		g.untried = append(g.untried, untried{requester, old, next})
	} else if err := g.renew(); err != nil {
		g.put(requester, next, old)
		return fmt.Errorf("%w: %w", ErrComplex, err)
	}
	t.arm(next.expires)
	t.act(Changed{})
	return nil
}

// put puts a set in the place of another; nil: none.
func (g *privateGroup) put(requester netip.Addr, old, next *member) {
	g.unindex(requester, old)
	if next == nil {
		delete(g.members, requester)
		return
	}
	g.members[requester] = next
	g.index(requester, next)
}

func (g *privateGroup) index(requester netip.Addr, m *member) {
	sets := g.sets[m.epoch]
	if sets == nil {
		sets = portion.NewIndex[netip.Addr]()
		g.sets[m.epoch] = sets
	}
	sets.Put(requester, m.own)
}

func (g *privateGroup) unindex(requester netip.Addr, m *member) {
	if m == nil {
		return
	}
	sets := g.sets[m.epoch]
	if sets.Remove(requester); sets.Len() == 0 {
		delete(g.sets, m.epoch)
	}
}

// retire keeps a set for a while below all newer ones.
func (g *privateGroup) retire(now time.Time, requester netip.Addr, m *member) {
	old := *m
	old.signed = nil
	old.expires = now.Add(retirement)
	g.retired[requester] = &old
}

func (m *member) sameForwarding(o member) bool {
	return m.port == o.port && m.epoch == o.epoch && m.own.Equal(o.own) && m.standby.Equal(o.standby)
}

// overlap looks for another owner of the same portions in the same epoch; over different epochs the higher one has them.
func (g *privateGroup) overlap(requester netip.Addr, next member) error {
	sets := g.sets[next.epoch]
	if sets == nil {
		return nil
	}
	for _, other := range sets.Meeting(next.own) {
		if other == requester {
			continue
		}
		if user, both := g.members[other].own.Overlap(next.own); both {
			return fmt.Errorf("%w: %v has %v at %v", ErrOverlap, other, user, next.epoch)
		}
	}
	return nil
}

// newPrivate makes room by forgetting the group that has been empty for longest.
func (t *Table) newPrivate(addr netip.Addr) (*privateGroup, error) {
	if len(t.private) >= t.cfg.Limits.Private {
		var oldest netip.Addr
		for a, g := range t.private {
			if len(g.members) == 0 && (!oldest.IsValid() || g.emptied.Before(t.private[oldest].emptied)) {
				oldest = a
			}
		}
		if !oldest.IsValid() {
			return nil, fmt.Errorf("%w: %d private groups", ErrFull, len(t.private))
		}
		delete(t.private, oldest)
		t.act(Changed{})
	}
	g := &privateGroup{
		addr: addr, members: make(map[netip.Addr]*member), retired: make(map[netip.Addr]*member), health: t.health, served: t.served,
		sets: make(map[epoch.Epoch]*portion.Index[netip.Addr]),
	}
	if err := g.renew(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrComplex, err)
	}
	t.private[addr] = g
	return g, nil
}

// Kept returns the sets whose joins were all signed after since, to be passed on by another way than before, and the ports of the
// other members, sorted.
func (t *Table) Kept(since time.Time) (relays []Relay, late []string) {
	for _, g := range t.private {
		for _, m := range g.members {
			isLate := len(m.signed) == 0 || slices.ContainsFunc(m.signed, func(s join.Signed) bool { return !s.Time.After(since) })
			switch {
			case !isLate:
				relays = append(relays, Relay{m.port, m.signed})
			case !slices.Contains(late, m.port):
				late = append(late, m.port)
			}
		}
	}
	slices.Sort(late)
	return relays, late
}

// AskMembers asks the members of a port for fresh joins, where this router is to ask.
func (t *Table) AskMembers(now time.Time, name string) []Action {
	if p := t.ports[name]; p != nil && p.Members && p.querier.is(now) {
		t.ask(p, igmp.Query{})
	}
	return t.take()
}

func (t *Table) inUse(requester netip.Addr) bool {
	for _, g := range t.private {
		if g.members[requester] != nil {
			return true
		}
	}
	return false
}

// remove takes a member out. What it had goes to nobody, or to whom an older epoch gives it.
func (t *Table) remove(now time.Time, g *privateGroup, requester netip.Addr) {
	m := g.members[requester]
	if m == nil {
		return
	}
	g.put(requester, m, nil)
	delete(g.retired, requester)
	if len(g.members) == 0 {
		g.emptied = now
	}
	t.assembler.Forget(requester, g.addr)
	t.act(Changed{})
	t.outdate(g) // a plan that is kept has no port for the owner that is gone, so its users are dropped
}

func (t *Table) tickPrivate(now time.Time) {
	t.assembler.Expire(now)
	if t.assembler.Pending() > 0 {
		t.arm(now.Add(t.cfg.Membership()))
	}
	for _, g := range t.private {
		for requester, m := range g.members {
			if m.expires.After(now) {
				t.arm(m.expires)
				continue
			}
			t.remove(now, g, requester)
		}
		t.endRetirement(now, g)
	}
}

func (t *Table) endRetirement(now time.Time, g *privateGroup) {
	ended := false
	for requester, m := range g.retired {
		if m.expires.After(now) {
			t.arm(m.expires)
			continue
		}
		delete(g.retired, requester)
		ended = true
	}
	if ended {
		t.outdate(g)
	}
}

// Private is the forwarding state of a private group.
type Private struct {
	Plan   *steer.Plan
	Owners map[steer.Owner]string // the port of each owner
}

// Private returns the forwarding state of all private groups that are known, those without members included; of large groups as it
// was at the last Settle.
func (t *Table) Private() map[netip.Addr]Private {
	all := make(map[netip.Addr]Private, len(t.private))
	for addr, g := range t.private {
		owners := make(map[steer.Owner]string, len(g.members))
		for _, m := range g.members {
			owners[m.owner] = m.port
		}
		all[addr] = Private{g.plan, owners}
	}
	return all
}
