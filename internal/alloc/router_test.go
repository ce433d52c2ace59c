package alloc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
)

// TestRoutersHoldEveryAllocation: whatever fixed portions pass CheckFixed, a router can compile the joins of any step of a move, of
// some servers or all, and of standbys where one is silent; and a server what it takes. They answer as the allocations do.
func TestRoutersHoldEveryAllocation(t *testing.T) {
	const seeds = 16
	masks, entries := 0, 0
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(seed, 5))
		slots := Slots{By: []By{Suffix, Prefix}[r.IntN(2)], Bits: 1 + r.IntN(12)}
		n := []int{2, 4, 9, 40}[r.IntN(4)]
		servers := pool(make([]int, n)...)
		var prev Allocation
		var was []Fixed
		for step := range 4 {
			for i := range servers {
				servers[i].Weight = 1 + r.IntN(4)
			}
			want := Want{Slots: slots, Servers: servers, Fixed: manyFixed(r, slots, was, n), Epoch: epoch.Epoch{Number: uint64(step + 1)}}
			a, _ := next(t, prev, want)
			was = want.Fixed
			if prev.Zero() {
				prev = a
			}
			for _, claims := range [][]steer.Claim{joins(r, prev, a, n), joins(r, prev, a, n/2), joins(r, a, a, 1), standbys(a, r.IntN(n)), taken(prev, a, "s1")} {
				plan, err := steer.Compile(claims)
				if err != nil {
					t.Fatalf("seed %d, step %d: %v by %d servers, fixed %v after %v: %v", seed, step, slots, n, a.Fixed, prev.Fixed, err)
				}
				masks, entries = max(masks, plan.Masks()), max(entries, plan.Entries())
				checkPlan(t, r, plan, claims)
			}
			prev = a
		}
	}
	if masks > routerMasks || entries > routerEntries {
		t.Errorf("%d masks and %d entries", masks, entries)
	}
	t.Logf("at most %d masks, %d entries", masks, entries)
}

// manyFixed keeps some fixed portions and adds as many as may be, of one sort or several.
func manyFixed(r *rand.Rand, slots Slots, was []Fixed, servers int) []Fixed {
	out := slices.DeleteFunc(slices.Clone(was), func(Fixed) bool { return r.IntN(3) == 0 })
	sort := r.IntN(4)
	for range 300 {
		mask := ^uint32(0) << r.IntN(32)
		switch {
		case sort == 1 || sort == 2 && r.IntN(2) == 0:
			mask = Slots{slots.By, slots.Bits + r.IntN(17-slots.Bits)}.mask()
		case sort == 3:
			mask = r.Uint32() | r.Uint32()
		}
		p := cube{r.Uint32() & mask, mask}.portion()
		if CheckFixed(slots, append(portionsOf(out), p)) == nil {
			out = append(out, Fixed{Portion: p, Owner: fmt.Sprintf("s%d", 1+r.IntN(servers))})
		}
	}
	return out
}

// joins are what n servers say, some of them still of the allocation before.
func joins(r *rand.Rand, prev, a Allocation, n int) (out []steer.Claim) {
	for _, i := range r.Perm(len(a.Servers))[:max(n, 1)] {
		of := a
		if r.IntN(2) == 0 {
			of = prev
		}
		out = append(out, steer.Claim{Owner: steer.Owner(i + 1), Epoch: of.Epoch, Set: of.Users(a.Servers[i])})
	}
	return out
}

// standbys are what routers go by when a server is silent.
func standbys(a Allocation, silent int) (out []steer.Claim) {
	for i, name := range a.Servers {
		if i != silent {
			out = append(out, steer.Claim{Owner: steer.Owner(i + 1), Epoch: a.Epoch, Set: a.Users(name)},
				steer.Claim{Owner: steer.Owner(i + 1), Rank: -1, Epoch: a.Epoch, Set: a.StandbyUsers(name)})
		}
	}
	return out
}

// taken is what a server takes in the midst of a move: its own users, those it stands by for, and those it has lost.
func taken(prev, a Allocation, name string) (out []steer.Claim) {
	lost := Between(prev, a, func(was, is int) bool { return prev.OwnerOf(was) == name && a.OwnerOf(is) != name })
	for _, set := range append(lost, a.Users(name), a.StandbyUsers(name)) {
		out = append(out, steer.Claim{Owner: 1, Set: set})
	}
	return out
}

func checkPlan(t *testing.T, r *rand.Rand, plan *steer.Plan, claims []steer.Claim) {
	t.Helper()
	for range 200 {
		var at portion.Portion
		if c := claims[r.IntN(len(claims))].Set; len(c.Permit) > 0 {
			at = slices.Concat(c.Permit, c.Deny)[r.IntN(len(c.Permit)+len(c.Deny))]
		} else {
			at = portion.All4()
		}
		c := cubeOf(at)
		user := addr4(c.addr | r.Uint32()&^c.mask)
		var best *steer.Claim
		for i, c := range claims {
			if c.Set.Contains(user) && (best == nil || c.Rank > best.Rank || c.Rank == best.Rank && best.Epoch.Less(c.Epoch)) {
				best = &claims[i]
			}
		}
		if got := plan.Lookup(user); best == nil && got != 0 || best != nil && got != best.Owner {
			t.Fatalf("%v goes to %d", user, got)
		}
	}
}
