package alloc

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
)

// Policy says how shares are found.
type Policy string

// Equal gives every server the same share, Weighted one in proportion to its weight.
const (
	Equal    Policy = "equal"
	Weighted Policy = "weighted"
)

// MaxWeight bounds a server's weight.
const MaxWeight = 10000

// Server is a member of the pool as the allocator sees it.
type Server struct {
	Name    string
	Weight  int  // 0..MaxWeight; counts under Weighted
	Drained bool // gets nothing
	Alive   bool // a dead one gets nothing either
	Address netip.Addr
}

// MaxFixed bounds the portions that an allocation gives away beside its slots: each is in some server's join, and a probe of
// the classifier for each distinct mask.
const MaxFixed = 64

// Fixed is a portion that goes to a server of its own, whatever slots it lies in: a prefix that the operator gave to somebody, one
// that a server asked for, the half of a hot slot. Those of one Want are disjoint.
type Fixed struct {
	Portion portion.Portion // IPv4
	Owner   string
	Standby string // empty: the allocator chooses
}

// Want is what the next allocation is made from.
type Want struct {
	Epoch   epoch.Epoch
	Slots   Slots
	Policy  Policy
	Servers []Server
	Fixed   []Fixed // those of servers that may own nothing go with their slots
}

// Move says what changes from one allocation to the next.
type Move struct {
	Slots  int            // of the whole space
	Moved  int            // slots that got another owner
	Needed int            // the fewest slots that any allocation with the wanted shares moves
	Gained map[string]int // slots won less slots lost, per server whose share changes
}

// ErrNoServer is returned when no server may own anything: the last allocation is better than none.
var ErrNoServer = errors.New("no server is alive, undrained and of a weight above 0")

// Next returns the allocation that follows prev: exclusive, complete, each share within one slot of the exact one, and with
// as few slots moved as that allows. What has to move goes to its standby where shares allow, else interleaved.
func Next(prev Allocation, want Want) (Allocation, Move, error) {
	if err := want.Slots.Check(); err != nil {
		return Allocation{}, Move{}, err
	}
	names, weights, err := eligible(want)
	if err != nil {
		return Allocation{}, Move{}, err
	}
	n := want.Slots.Count()
	owner, standby := carry(prev, want.Slots, names)
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	before := slices.Clone(owner)
	place(all, owner, standby, weights)

	next := Allocation{
		Epoch: want.Epoch, Slots: want.Slots, Servers: names, Owner: owner, Standby: standby, Addresses: addresses(want, names),
	}
	next.placeStandbys(weights)
	return next, moveOf(before, next, weights), nil
}

// addresses returns what is known of the named servers; nil: nothing.
func addresses(want Want, names []string) []netip.Addr {
	out, known := make([]netip.Addr, len(names)), false
	for _, s := range want.Servers {
		if i, ok := slices.BinarySearch(names, s.Name); ok && s.Address.IsValid() {
			out[i], known = s.Address, true
		}
	}
	if !known {
		return nil
	}
	return out
}

// eligible returns the servers that may own something, sorted by name, and their weights.
func eligible(want Want) (names []string, weights []int, err error) {
	weight := map[string]int{}
	for _, s := range want.Servers {
		if _, twice := weight[s.Name]; twice {
			return nil, nil, fmt.Errorf("server %s is there twice", s.Name)
		}
		weight[s.Name] = 0
		w := 1
		if want.Policy == Weighted {
			w = s.Weight
		}
		if w < 0 || w > MaxWeight {
			return nil, nil, fmt.Errorf("server %s: weight %d: want 0 to %d", s.Name, w, MaxWeight)
		}
		if s.Name == "" || !s.Alive || s.Drained || w == 0 {
			continue
		}
		weight[s.Name] = w
		names = append(names, s.Name)
	}
	if len(names) == 0 {
		return nil, nil, ErrNoServer
	}
	if len(names) > MaxServers {
		return nil, nil, fmt.Errorf("%d servers: at most %d", len(names), MaxServers)
	}
	slices.Sort(names)
	for _, name := range names {
		weights = append(weights, weight[name])
	}
	return names, weights, nil
}

// carry brings prev's owners and standbys to the new slots and servers; None where they are gone. A finer cut of the same
// bits keeps the owners, any other change of the slots starts anew.
func carry(prev Allocation, to Slots, names []string) (owner, standby []uint16) {
	owner, standby = make([]uint16, to.Count()), make([]uint16, to.Count())
	keep := !prev.Zero() && prev.Slots.By == to.By && prev.Slots.Bits <= to.Bits
	renumber := make([]uint16, len(prev.Servers))
	for i, name := range prev.Servers {
		renumber[i] = None
		if j, ok := slices.BinarySearch(names, name); ok {
			renumber[i] = uint16(j)
		}
	}
	for i := range owner {
		owner[i], standby[i] = None, None
		if !keep {
			continue
		}
		old := i & (prev.Slots.Count() - 1)
		if to.By == Prefix {
			old = i >> (to.Bits - prev.Slots.Bits)
		}
		owner[i] = renumber[prev.Owner[old]]
		if s := prev.Standby[old]; s != None {
			standby[i] = renumber[s]
		}
	}
	return owner, standby
}

// placeStandbys gives each owner's slots standbys among the other servers by the same rule, so that an owner's death
// spreads its users over all others.
func (a *Allocation) placeStandbys(weights []int) {
	of := make([][]int, len(a.Servers))
	for i, o := range a.Owner {
		of[o] = append(of[o], i)
		if a.Standby[i] == o {
			a.Standby[i] = None
		}
	}
	if len(a.Servers) == 1 {
		for i := range a.Standby {
			a.Standby[i] = None
		}
		return
	}
	others := slices.Clone(weights)
	for o, slots := range of {
		others[o] = 0
		place(slots, a.Standby, nil, others)
		others[o] = weights[o]
	}
}

// moveOf counts what moved, and finds apart from how it was placed what had to.
func moveOf(before []uint16, next Allocation, weights []int) Move {
	m := Move{Slots: len(before), Gained: map[string]int{}}
	held := make([]int, len(weights))
	for i, b := range before {
		if b != None {
			held[b]++
		}
		if b == next.Owner[i] {
			continue
		}
		m.Moved++
		m.Gained[next.Servers[next.Owner[i]]]++
		if b != None {
			m.Gained[next.Servers[b]]--
		}
	}
	for name, n := range m.Gained {
		if n == 0 {
			delete(m.Gained, name)
		}
	}
	m.Needed = needed(len(before), held, weights)
	return m
}

// needed returns the fewest slots that must move: all of them, less the most that servers may keep. A server may keep what
// it has up to its exact share rounded down, and one more where the share has a rest, as long as rests are left to give.
func needed(n int, held, weights []int) int {
	total := 0
	for _, w := range weights {
		total += w
	}
	kept, over, rests := 0, 0, n
	for i, w := range weights {
		floor := n * w / total
		rests -= floor
		kept += min(held[i], floor)
		if held[i] > floor && n*w%total > 0 {
			over++
		}
	}
	return n - kept - min(over, rests)
}
