package steering

import (
	"fmt"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/steer"
)

// Health is how a server is, as far as is heard on the control channel; without a word everybody is available.
type Health uint8

// Unwell ones keep what no available standby takes. Silent ones get nothing while anybody else is there.
const (
	Available Health = iota
	Unwell
	Silent
)

// Claims are those of the servers whose numbers owner says; 0: it has none here, and its users go to nobody. A cell is its owner's; where
// that is not available its standby's; where that is not either the owner's still, unless it is silent. When all are silent it is as likely
// the channel that has failed, and everybody keeps what it had.
func Claims(a alloc.Allocation, health func(server string) Health, owner func(server string) steer.Owner) []steer.Claim {
	at := make([]Health, len(a.Servers))
	silent := 0
	for i, name := range a.Servers {
		if at[i] = health(name); at[i] == Silent {
			silent++
		}
	}
	if silent == len(a.Servers) {
		clear(at)
	}
	takes := make([]uint16, len(a.Owner))
	for cell, o := range a.Owner {
		s := a.Standby[cell]
		switch {
		case at[o] == Available:
			takes[cell] = o
		case s != alloc.None && at[s] == Available:
			takes[cell] = s
		case at[o] == Unwell:
			takes[cell] = o
		case s != alloc.None && at[s] == Unwell:
			takes[cell] = s
		default:
			takes[cell] = alloc.None
		}
	}
	var out []steer.Claim
	for i, name := range a.Servers {
		number := owner(name)
		if number == 0 {
			continue
		}
		if set := a.Select(func(cell int) bool { return takes[cell] == uint16(i) }); len(set.Permit) > 0 {
			out = append(out, steer.Claim{Owner: number, Epoch: a.Epoch, Set: set})
		}
	}
	return out
}

// Plan6 is what a binding's users of IPv6 are steered by, as stand-ins (steer.Standin): by the slots alone, for fixed portions and exceptions
// are of IPv4.
func Plan6(b Binding, health func(server string) Health, owner func(server string) steer.Owner) (*steer.Plan, error) {
	a := b.Allocation
	a.Fixed, a.Owner, a.Standby = nil, a.Owner[:a.Slots.Count()], a.Standby[:a.Slots.Count()]
	p, err := steer.Compile(Claims(a, health, owner))
	if err != nil {
		return nil, fmt.Errorf("plan of %q for IPv6: %w", b.Service, err)
	}
	return p, nil
}

// Plan is what a binding's users of IPv4 are steered by.
func Plan(b Binding, health func(server string) Health, owner func(server string) steer.Owner) (*steer.Plan, error) {
	p, err := steer.Compile(Claims(b.Allocation, health, owner))
	if err == nil && len(b.Users) > 0 {
		users := make([]steer.User, len(b.Users))
		for i, u := range b.Users {
			users[i] = steer.User{Addr: u.Address, Owner: owner(u.Server)}
		}
		p, err = p.WithUsers(users)
	}
	if err != nil {
		return nil, fmt.Errorf("plan of %q: %w", b.Service, err)
	}
	return p, nil
}
