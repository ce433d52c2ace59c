package alloc

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/internal/epoch"
)

// MaxHops is the most former owners of a cell that a trail names.
const MaxHops = 8

// Trail says who had each cell's users before, as far as connections of theirs may live there still (Fig 14). The zero Trail names nobody.
type Trail struct {
	Chains []Chain  // distinct
	Of     []uint32 // per cell 0, or 1 more than an index into Chains; nil: all are 0
}

// Chain are the former owners of a cell, the latest first, each once. Its owner may be among them, if it had the cell before: those who have
// the cell yet, until they execute the allocation, find it so.
type Chain struct {
	Hops []Hop       // at most MaxHops
	Cut  epoch.Epoch // others, who are not named, had it until then or before; zero: nobody
}

// Hop is a former owner, or who stood in for one.
type Hop struct {
	Server  string
	Address netip.Addr  // invalid: not known
	Until   epoch.Epoch // the last epoch in which it did
}

// Has reports whether a server is one of them.
func (c Chain) Has(server string) bool {
	return slices.ContainsFunc(c.Hops, func(h Hop) bool { return h.Server == server })
}

// Until is the last epoch in which a server owned the cell; where it is not named, it may have been any before those that are.
func (c Chain) Until(server string) epoch.Epoch {
	for _, h := range c.Hops {
		if h.Server == server {
			return h.Until
		}
	}
	return epoch.Epoch{}
}

// Kept is what a server holds of connections of users who are others' now.
type Kept struct {
	Epoch       epoch.Epoch // of the allocation by which it has counted
	Connections int
	Since       epoch.Epoch // the last epoch in which it owned the user of one of them, or stood by for its owner, the earliest of all
	Stood       bool        // some are of users whose owner it stands by for: it served them in its stead
}

// Holders are the servers that may hold connections of former users; a server that is not in it is dead, or holds none. The earliest epoch is that of
// Kept.Since; zero: nothing is known of what it holds.
type Holders map[string]epoch.Epoch

// Add adds a server by what it has said last; nil: nothing.
func (h Holders) Add(server string, k *Kept) {
	switch {
	case k == nil:
		h[server] = epoch.Epoch{}
	case k.Connections == 0:
		h[server] = k.Epoch // what it has lost since it counted it may hold
	default:
		h[server] = k.Since
	}
}

// Hold reports whether a server may hold connections of users whom it had until then.
func (h Holders) Hold(server string, until epoch.Epoch) bool {
	since, ok := h[server]
	return ok && !until.Less(since)
}

// anybody reports whether somebody may hold connections of users whom it had until then, or before.
func (h Holders) anybody(until epoch.Epoch) bool {
	for server := range h {
		if h.Hold(server, until) {
			return true
		}
	}
	return false
}

// ChainOf are the former owners of a cell's users.
func (a Allocation) ChainOf(cell int) Chain {
	if a.Trail.Of == nil || a.Trail.Of[cell] == 0 {
		return Chain{}
	}
	return a.Trail.Chains[a.Trail.Of[cell]-1]
}

// StoodIn says whether a standby may hold connections of an owner's users, as it served them in its stead.
type StoodIn func(owner, standby string) bool

// Follow is the trail of next, which replaces before: before's, those who lose by the change, and standbys that stood in for an owner, without those
// who hold nothing. A cell of next has the former owners of all cells of before that users come to it from, so that a chain may name a server that
// never had one of them. stood may be nil: nobody stood in.
func Follow(before, next Allocation, holders Holders, stood StoodIn) Trail {
	if before.Zero() || next.Zero() {
		return Trail{}
	}
	f := follower{before: before, next: next, holders: holders, stood: stood, chains: make([]chainSet, next.Cells())}
	if Comparable(before, next) {
		for was, is := range Pairs(before, next) {
			f.add(was, is)
		}
	} else { // who came from where cannot be told by cells
		for was := range before.Owner {
			f.former(was, 0)
			f.standby(was, 0)
			f.inherit(was, 0)
		}
		for is := range f.chains {
			f.chains[is] = f.chains[0]
		}
	}
	return f.trail()
}

// follower collects the former owners of next's cells.
type follower struct {
	before, next Allocation
	holders      Holders
	stood        StoodIn
	chains       []chainSet
}

// chainSet is a Chain that is being made.
type chainSet struct {
	hops map[string]Hop
	cut  epoch.Epoch
}

// add tells that users come from one cell to another.
func (f *follower) add(was, is int) {
	if f.before.OwnerOf(was) != f.next.OwnerOf(is) {
		f.former(was, is)
	}
	if f.before.StandbyOf(was) != f.next.OwnerOf(is) {
		f.standby(was, is)
	}
	f.inherit(was, is)
}

// former adds who owned the cell just now, unless it is dead.
func (f *follower) former(was, is int) {
	owner := f.before.OwnerOf(was)
	if _, lives := f.holders[owner]; !lives {
		return
	}
	f.chains[is].add(Hop{owner, f.before.Address(owner), f.before.Epoch})
}

// standby adds who stood by for the owner, where it may have served in its stead and lives.
func (f *follower) standby(was, is int) {
	standby := f.before.StandbyOf(was)
	if _, lives := f.holders[standby]; lives && f.stood != nil && f.stood(f.before.OwnerOf(was), standby) {
		f.chains[is].add(Hop{standby, f.before.Address(standby), f.before.Epoch})
	}
}

// inherit adds its former owners that may hold anything still.
func (f *follower) inherit(was, is int) {
	c, old := &f.chains[is], f.before.ChainOf(was)
	for _, hop := range old.Hops {
		if f.holders.Hold(hop.Server, hop.Until) {
			c.add(hop)
		}
	}
	if f.holders.anybody(old.Cut) && c.cut.Less(old.Cut) {
		c.cut = old.Cut
	}
}

func (c *chainSet) add(h Hop) {
	if c.hops == nil {
		c.hops = map[string]Hop{}
	}
	if was, known := c.hops[h.Server]; !known || was.Until.Less(h.Until) {
		c.hops[h.Server] = h
	}
}

func (c chainSet) chain() Chain {
	out := Chain{Hops: slices.Collect(maps.Values(c.hops)), Cut: c.cut}
	slices.SortFunc(out.Hops, func(a, b Hop) int { return cmp.Or(b.Until.Compare(a.Until), cmp.Compare(a.Server, b.Server)) })
	if len(out.Hops) > MaxHops {
		if cut := out.Hops[MaxHops].Until; out.Cut.Less(cut) {
			out.Cut = cut
		}
		out.Hops = out.Hops[:MaxHops]
	}
	return out
}

// trail numbers the chains.
func (f *follower) trail() Trail {
	var t Trail
	numbers := map[string]uint32{}
	of := make([]uint32, len(f.chains))
	for cell, set := range f.chains {
		c := set.chain()
		if len(c.Hops) == 0 && c.Cut == (epoch.Epoch{}) {
			continue
		}
		key := fmt.Sprint(c)
		if numbers[key] == 0 {
			t.Chains = append(t.Chains, c)
			numbers[key] = uint32(len(t.Chains))
		}
		of[cell] = numbers[key]
	}
	if len(t.Chains) > 0 {
		t.Of = of
	}
	return t
}

// check is Allocation.Check's part.
func (t Trail) check(a Allocation) error {
	if len(t.Of) != 0 && len(t.Of) != a.Cells() || len(t.Of) == 0 && len(t.Chains) != 0 {
		return fmt.Errorf("allocation %v: trails of %d cells, of %d", a.Epoch, len(t.Of), a.Cells())
	}
	for cell, i := range t.Of {
		if int(i) > len(t.Chains) {
			return fmt.Errorf("allocation %v: %s has trail %d of %d", a.Epoch, a.cellName(cell), i, len(t.Chains))
		}
	}
	for _, c := range t.Chains {
		if len(c.Hops) > MaxHops {
			return fmt.Errorf("allocation %v: a trail of %d servers, at most %d", a.Epoch, len(c.Hops), MaxHops)
		}
		for i, h := range c.Hops {
			if h.Server == "" || !h.Until.Less(a.Epoch) || i > 0 && c.Hops[i-1].Until.Less(h.Until) {
				return fmt.Errorf("allocation %v: server %q had users until %v, which is no trail", a.Epoch, h.Server, h.Until)
			}
		}
	}
	return nil
}
