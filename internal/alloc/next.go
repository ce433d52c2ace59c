package alloc

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/internal/epoch"
)

// Policy says how shares are found.
type Policy string

// Equal gives every server the same share, Weighted one in proportion to its weight.
const (
	Equal    Policy = "equal"
	Weighted Policy = "weighted"
)

// MaxWeight bounds a server's weight. A policy may give weights in slots, of which there can be more.
const (
	MaxWeight = 10000
	maxWeight = 1 << MaxBits
)

// Server is a member of the pool as the allocator sees it.
type Server struct {
	Name    string
	Weight  int  // 0..MaxWeight, or a number of slots; its share is in proportion
	Drained bool // gets nothing
	Alive   bool // a dead one gets nothing either
	Address netip.Addr
}

// Want is what the next allocation is made from.
type Want struct {
	Epoch   epoch.Epoch
	Slots   Slots
	Servers []Server
	Fixed   []Fixed // in any order; those of servers that may own nothing go with their slots
}

// ErrNoServer is returned when no server may own anything: the last allocation is better than none.
var ErrNoServer = errors.New("no server is alive, undrained and of a weight above 0")

// Next returns the allocation that follows prev: exclusive, complete, each share of the slots within one of the exact one, and with
// as few users moved as that and the fixed portions allow. A slot that has to move goes to its standby where shares allow, else they
// are interleaved. What a fixed portion took comes back with its slots when it is not wanted any more. Errors wrap ErrNoServer or
// ErrFixed, or are about the servers.
func Next(prev Allocation, want Want) (Allocation, Move, error) {
	if err := want.Slots.Check(); err != nil {
		return Allocation{}, Move{}, err
	}
	names, weights, err := eligible(want)
	if err != nil {
		return Allocation{}, Move{}, err
	}
	fixed, waiting, err := allowed(prev, want, names)
	if err != nil {
		return Allocation{}, Move{}, err
	}
	c := carry(prev, want, names, fixed)
	all := make([]int, want.Slots.Count())
	for i := range all {
		all[i] = i
	}
	next := Allocation{
		Epoch: want.Epoch, Slots: want.Slots, Servers: names, Owner: slices.Clone(c.owner), Standby: c.standby, Addresses: addresses(want, names),
	}
	p := newPlacer(len(names))
	p.place(all, next.Owner, next.Standby, weights, c.kept)
	next.placeStandbys(p, weights)
	next.fix(prev, fixed, weights)
	m := moveOf(prev, next, c, weights)
	m.Waiting = waiting
	return next, m, nil
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
		if s.Weight < 0 || s.Weight > maxWeight {
			return nil, nil, fmt.Errorf("server %s: weight %d: want 0 to %d", s.Name, s.Weight, maxWeight)
		}
		weight[s.Name] = s.Weight
		if s.Name == "" || !s.Alive || s.Drained || s.Weight == 0 {
			continue
		}
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

// placeStandbys gives each owner's slots standbys among the other servers by the same rule, so that an owner's death
// spreads its users over all others.
func (a *Allocation) placeStandbys(p *placer, weights []int) {
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
		p.place(slots, a.Standby, nil, others, nil)
		others[o] = weights[o]
	}
}
