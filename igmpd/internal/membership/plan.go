package membership

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
)

// dear is from how many portions on the plan of a group is made once for all that comes together, and not for each set: a thousand servers
// answer a new epoch within a moment.
const dear = 2048

// entriesMax is how many masked portions and single users a group's plan may need beside its slots. The kernel's maps have room
// for four times as many in all (STEER_MAX_ENTRIES), while old and new plans are both there: one group must not take it all.
const entriesMax = 32768

// untried is a set that was put in the place of another before it was known whether it can be steered.
type untried struct {
	requester netip.Addr
	old, next *member
}

// familiar says that a set is like those that have been steered already: of the same masks, and with room for entries.
func (g *privateGroup) familiar(m *member) bool {
	if g.size < dear {
		return false
	}
	known := func(ps []portion.Portion) bool {
		return !slices.ContainsFunc(ps, func(p portion.Portion) bool { return !g.masks[p.Mask] })
	}
	if !known(m.own.Permit) || !known(m.own.Deny) {
		return false
	}
	entries := g.plan.Entries()
	if entries > 0 {
		entries += len(m.own.Permit) + len(m.own.Deny)
		for _, u := range g.untried {
			entries += len(u.next.own.Permit) + len(u.next.own.Deny)
		}
	}
	return entries <= entriesMax
}

// outdate has the plan made anew. One that cannot be made leaves the one that is there: nobody fares worse than without the news.
func (t *Table) outdate(g *privateGroup) {
	if g.size >= dear {
		g.outdated = true
		t.act(Changed{})
		return
	}
	before := g.plan
	if err := g.renew(); err == nil && !g.plan.Equal(before) {
		t.act(Changed{})
	}
}

// Settle makes the plans of large groups that have changed, before Private is asked. Sets that turn out not to be steered with the others
// are taken back, each with an action Refused.
func (t *Table) Settle() []Action {
	for _, g := range t.private {
		t.settle(g)
	}
	return t.take()
}

func (t *Table) settle(g *privateGroup) {
	if !g.outdated || g.renew() == nil {
		return
	}
	var again []untried // in force until now: who has left since is not among them
	for _, u := range slices.Backward(g.untried) {
		if g.members[u.requester] == u.next {
			g.put(u.requester, u.next, u.old)
			again = append(again, u)
		}
	}
	if err := g.renew(); err != nil { // the plan stays
		g.outdated, g.untried = false, nil
	}
	for _, u := range slices.Backward(again) {
		old := g.members[u.requester]
		g.put(u.requester, old, u.next)
		if err := g.renew(); err != nil {
			g.put(u.requester, u.next, old)
			t.act(Refused{g.addr, u.requester, u.next.port, fmt.Errorf("%w: %w", ErrComplex, err)})
		}
	}
}

// renew makes the plan of the members' sets, and keeps the one that is there where that fails.
func (g *privateGroup) renew() error {
	plan, claims, err := g.compile()
	if err != nil {
		return err
	}
	g.plan, g.outdated, g.untried = plan, false, nil
	g.size, g.masks = 0, make(map[netip.Addr]bool)
	var last netip.Addr // most portions have the mask of the one before
	for _, c := range claims {
		for _, ps := range [][]portion.Portion{c.Set.Permit, c.Set.Deny} {
			g.size += len(ps)
			for _, p := range ps {
				if p.Mask != last {
					last = p.Mask
					g.masks[last] = true
				}
			}
		}
	}
	return nil
}

// compile makes the plan of what members claim, and of what they claimed before and stand by for, if that is not too much.
func (g *privateGroup) compile() (*steer.Plan, []steer.Claim, error) {
	more, needed := g.claims()
	if len(more) > 0 {
		if plan, all, err := compileClaims(slices.Concat(more, needed)); err == nil {
			return plan, all, nil
		}
	}
	return compileClaims(needed)
}

func compileClaims(claims []steer.Claim) (*steer.Plan, []steer.Claim, error) {
	plan, err := steer.Compile(claims)
	if err == nil && plan.Entries() > entriesMax {
		err = fmt.Errorf("%d entries, at most %d: use coarser portions", plan.Entries(), entriesMax)
	}
	return plan, claims, err
}
