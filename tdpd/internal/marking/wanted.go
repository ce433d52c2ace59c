package marking

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/rtnl"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

// table is a server's routing table of one family.
type table struct {
	family uint8 // AF_INET or AF_INET6
	number uint32
}

// wanted is what is to be in the kernel.
type wanted struct {
	rules  map[rtnl.Rule]bool
	tables map[table][]kernel.Hop // the default route's, canonical; none: users are told that their server is unreachable
}

// want is what leads marked packets along trees. Rules are walked one by one: what has no mark of ours goes past those of servers by the
// first one, whose jump ends at the last one; a family without VIPs has none at all. A tree that is the kernel's matter has no rule: its
// users go as the route says. So do users of servers in left: the kernel has no routes like their trees.
func want(c Config, u vips.Users) (w wanted, left []steer.Owner, err error) {
	w = wanted{map[rtnl.Rule]bool{}, map[table][]kernel.Hop{}}
	trees := map[steer.Owner][]kernel.Hop{}
	maps.Copy(trees, u.Trees)
	if refuses(u) {
		trees[nobody] = nil
	}
	var errs []error
	for _, family := range families(u) {
		for owner, tree := range trees {
			hops, ok := hopsOf(family, tree)
			switch {
			case owner > c.Owners():
				errs = append(errs, fmt.Errorf("%w: number %d, of %d", ErrFull, owner, c.Owners()))
			case ok:
				w.lead(c, family, owner, hops)
			case slices.ContainsFunc(tree, func(h kernel.Hop) bool { return h.Via.IsValid() }):
				left = append(left, owner)
			}
		}
	}
	slices.Sort(left)
	return w, slices.Compact(left), errors.Join(errs...)
}

// nobody is the owner of users whom nobody serves.
const nobody steer.Owner = 0

func refuses(u vips.Users) bool {
	for _, r := range u.Refuse {
		if r != vips.Drop {
			return true
		}
	}
	return false
}

// lead leads an owner's packets of a family by hops.
func (w wanted) lead(c Config, family uint8, owner steer.Owner, hops []kernel.Hop) {
	t := table{family, c.Table + uint32(owner)}
	ours := c.Mask &^ uint32(c.Owners())
	w.tables[t] = hops
	for _, r := range []rtnl.Rule{
		{Priority: c.Priority, Action: rtnl.ActGoto, Not: true, Mark: c.Mark & ours, Mask: ours, Goto: c.Priority + 2},
		{Priority: c.Priority + 1, Action: rtnl.ActTable, Mark: c.Mark | uint32(owner), Mask: c.Mask, Table: t.number},
		{Priority: c.Priority + 2, Action: rtnl.ActNop},
	} {
		r.Family, r.Protocol = family, kernel.Protocol
		w.rules[r] = true
	}
}

// families are those that there are VIPs of.
func families(u vips.Users) (all []uint8) {
	for family, is := range map[uint8]func(netip.Addr) bool{unix.AF_INET: netip.Addr.Is4, unix.AF_INET6: netip.Addr.Is6} {
		for vip := range u.VIPs {
			if is(vip) {
				all = append(all, family)
				break
			}
		}
	}
	slices.Sort(all)
	return all
}

// hopsOf are a tree's in a route of that family; false: there is to be none.
func hopsOf(family uint8, tree []kernel.Hop) ([]kernel.Hop, bool) {
	hops := kernel.Canonical(slices.DeleteFunc(slices.Clone(tree), func(h kernel.Hop) bool {
		return !h.Via.IsValid() || h.Tunnel.IsValid() || family == unix.AF_INET6 && h.Via.Is4() && len(h.Labels) == 0
	}))
	return hops, len(hops) > 0 || len(tree) == 0
}
