package alloc

import (
	"errors"
	"fmt"
	"slices"
)

// ErrLarge is wrapped by errors about servers whose joins would have too many portions.
var ErrLarge = errors.New("joins of too many portions")

// CheckJoins returns an error, which wraps ErrLarge, where a server needs more than most portions to say whom it owns and stands by for:
// its join cannot be said then, or routers do not take it, and its users reach nobody. Few servers with many slots are such. It takes some tenths of a
// second where that is near, for then portions are counted.
func (a Allocation) CheckJoins(most int) error {
	if name, portions := a.tooLarge(most); name != "" {
		return large(a.Slots, name+" needs", portions, most)
	}
	return nil
}

// CheckPools tries pools of servers alike, from two on, with slots of this cut, and returns an error, which wraps ErrLarge, about the largest
// for which CheckJoins fails.
func CheckPools(slots Slots, most int) error {
	var err error
	for n := 2; 2*slots.Count()/n > most; n++ {
		want := Want{Slots: slots}
		for i := range n {
			want.Servers = append(want.Servers, Server{Name: fmt.Sprintf("s%03d", i+1), Weight: 1, Alive: true})
		}
		a, _, failed := Next(Allocation{}, want)
		if failed != nil {
			return failed
		}
		if name, portions := a.tooLarge(most); name != "" {
			err = large(slots, fmt.Sprintf("one of %d servers needs", n), portions, most)
		}
	}
	return err
}

func large(slots Slots, who string, portions, most int) error {
	fewer := slots
	for n := portions; n > most && fewer.Bits > 1; n /= 2 {
		fewer.Bits--
	}
	return fmt.Errorf("%w: with %d slots %s %d, and routers, which take %d of a server, would refuse them: have slots: %v, or more servers",
		ErrLarge, slots.Count(), who, portions, most, fewer)
}

// tooLarge finds a server with more than most portions, first among those with the most cells; empty: there is none.
func (a Allocation) tooLarge(most int) (name string, portions int) {
	bounds := a.mostPortions()
	order := make([]int, len(bounds))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return bounds[j] - bounds[i] })
	for _, i := range order {
		if bounds[i] <= most {
			break
		}
		own, standby := a.Users(a.Servers[i]), a.StandbyUsers(a.Servers[i])
		if n := len(own.Permit) + len(own.Deny) + len(standby.Permit) + len(standby.Deny); n > most {
			return a.Servers[i], n
		}
	}
	return "", 0
}

// mostPortions is the most that each server's sets can have, cheaply: a portion a cell, and each fixed one permitted or denied.
func (a Allocation) mostPortions() []int {
	out := make([]int, len(a.Servers))
	for i := range out {
		out[i] = 2 * len(a.Fixed)
	}
	for _, of := range [][]uint16{a.slotsOf(a.Owner), a.slotsOf(a.Standby)} {
		for _, i := range of {
			if i != None {
				out[i]++
			}
		}
	}
	return out
}
