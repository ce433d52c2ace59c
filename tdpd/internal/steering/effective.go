package steering

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
)

// Health is how a server is, as far as is heard on the control channel; without a word everybody is available.
type Health uint8

// Unwell ones keep what no available standby takes. Silent ones get nothing while anybody else is there, were it neither owner nor standby.
const (
	Available Health = iota
	Unwell
	Silent
)

// Steering is what a binding's users are steered by, however its servers are. It is compiled once; what a change of their health makes of it
// costs no more than a look at each slot.
type Steering struct {
	allocation alloc.Allocation
	servers    []string    // the allocation's, then those of exceptions alone
	used       []uint16    // of the allocation's, those that are some cell's
	four, six  *steer.Plan // of classes: owner n is classes[n-1]
	cells      *steer.Plan // four without exceptions
	classes    []class
	numbers    map[class]steer.Owner
}

// class are users whom the same servers take: indexes into the allocation's, in their turn; alloc.None is nobody.
type class [3]uint16

// pick is who takes them: the first that is available, else the first that is unwell, else one of the others that are available: every router
// has the same one.
func (c class) pick(at []Health, others []uint16) uint16 {
	for _, want := range []Health{Available, Unwell} {
		for _, server := range c {
			if server != alloc.None && at[server] == want {
				return server
			}
		}
	}
	if len(others) == 0 {
		return alloc.None
	}
	return others[int(c[0])%len(others)]
}

// Compile makes a binding's Steering. A cell's users are its owner's, then its standby's; an exception's are its server's before. Users of
// IPv6 go by their stand-ins (steer.Standin) and the slots alone, for fixed portions and exceptions are of IPv4.
func Compile(b Binding) (*Steering, error) {
	c := compiler{&Steering{allocation: b.Allocation, numbers: map[class]steer.Owner{}}}
	var slots []steer.Claim
	if !b.Nobody {
		slots = c.slots()
	}
	var err error
	if c.cells, err = steer.Compile(append(c.fixed(), slots...)); err == nil {
		c.six = c.cells
	}
	if err == nil && len(b.Allocation.Fixed) > 0 {
		c.six, err = steer.Compile(slots)
	}
	if err != nil {
		return nil, fmt.Errorf("plan of %q: %w", b.Service, err)
	}
	c.used = usedBy(c.classes)
	return c.WithUsers(b)
}

// WithUsers is a Steering of a binding of the same allocation with other exceptions: nothing else of it is compiled again.
func (s *Steering) WithUsers(b Binding) (*Steering, error) {
	t := *s
	t.classes, t.numbers, t.four, t.servers = slices.Clone(s.classes), maps.Clone(s.numbers), s.cells, b.servers()
	if len(b.Users) > 0 {
		var err error
		if t.four, err = s.cells.WithUsers(compiler{&t}.users(b.Users)); err != nil {
			return nil, fmt.Errorf("plan of %q: %w", b.Service, err)
		}
	}
	return &t, nil
}

// Compiled says whether WithUsers can be had of what was compiled for another binding.
func (b Binding) Compiled(of Binding) bool {
	return b.Nobody == of.Nobody && b.Allocation.Epoch == of.Allocation.Epoch && b.Allocation.Same(of.Allocation)
}

// usedBy are the servers of classes, each once, in order.
func usedBy(classes []class) []uint16 {
	var used []uint16
	for _, c := range classes {
		used = append(used, c[:]...)
	}
	slices.Sort(used)
	return slices.DeleteFunc(slices.Compact(used), func(server uint16) bool { return server == alloc.None })
}

// Plans are what users of IPv4 and of IPv6 are steered by while the servers are so. owner says servers' numbers; 0: it has none here, and its
// users go to nobody. When all are silent it is as likely the channel that has failed, and everybody keeps what it had.
func (s *Steering) Plans(health func(server string) Health, owner func(server string) steer.Owner) (four, six *steer.Plan) {
	at, owners := s.healths(health), make([]steer.Owner, len(s.servers))
	for i, name := range s.servers {
		owners[i] = owner(name)
	}
	var others []uint16 // that are available, of those that have users
	for _, i := range s.used {
		if at[i] == Available {
			others = append(others, i)
		}
	}
	takes := make([]steer.Owner, len(s.classes))
	for i, c := range s.classes {
		if server := c.pick(at, others); server != alloc.None {
			takes[i] = owners[server]
		}
	}
	of := func(o steer.Owner) steer.Owner { return takes[o-1] }
	if four = s.four.Renumber(of); s.six == s.four {
		return four, four
	}
	return four, s.six.Renumber(of)
}

// healths are how the servers are. When all of the allocation's are silent it is as likely the channel that has failed.
func (s *Steering) healths(health func(server string) Health) []Health {
	at := make([]Health, len(s.servers))
	silent := 0
	for i, name := range s.servers {
		if at[i] = health(name); at[i] == Silent && i < len(s.allocation.Servers) {
			silent++
		}
	}
	if silent == len(s.allocation.Servers) {
		clear(at)
	}
	return at
}

// servers are all that a binding names.
func (b Binding) servers() []string {
	out := slices.Clone(b.Allocation.Servers)
	for _, o := range b.Others {
		out = append(out, o.Name)
	}
	return out
}

// OnlyUsers are plans, of IPv4 and of IPv6, by which a binding's exceptions have their servers, and all others one owner. So have those of a
// server that is silent.
func OnlyUsers(b Binding, health func(server string) Health, owner func(server string) steer.Owner, others steer.Owner) (four, six *steer.Plan, err error) {
	owners, s := map[string]steer.Owner{}, Steering{allocation: b.Allocation, servers: b.servers()}
	for i, at := range s.healths(health) {
		name := s.servers[i]
		if owners[name] = others; at != Silent {
			owners[name] = owner(name)
		}
	}
	users := make([]steer.User, len(b.Users))
	for i, u := range b.Users {
		users[i] = steer.User{Addr: u.Address, Owner: owners[u.Server]}
	}
	if four, err = allBut(users, others); err == nil {
		six, err = allBut(nil, others)
	}
	return four, six, err
}

// Taken says who takes users while servers are as they are, by name; empty: nobody, and of exceptions that are bound alone: by the route.
type Taken struct {
	Cells []string // of the allocation's cells
	Users []string // of exceptions, in their order
}

// Takes is what Plans and OnlyUsers say, for whoever steers by other means than plans.
func Takes(b Binding, health func(server string) Health) Taken {
	s := Steering{allocation: b.Allocation, servers: b.servers()}
	at, index := s.healths(health), map[string]uint16{}
	for i, name := range s.servers {
		index[name] = uint16(i)
	}
	out := Taken{Users: make([]string, len(b.Users))}
	if b.UsersOnly {
		for i, u := range b.Users {
			if at[index[u.Server]] != Silent {
				out.Users[i] = u.Server
			}
		}
		return out
	}
	var others []uint16
	for _, name := range b.Allocation.Used() {
		if i := index[name]; at[i] == Available {
			others = append(others, i)
		}
	}
	name := func(k class) string {
		if server := k.pick(at, others); server != alloc.None {
			return s.servers[server]
		}
		return ""
	}
	c := compiler{&s}
	out.Cells = make([]string, len(b.Allocation.Owner))
	for cell := range out.Cells {
		out.Cells[cell] = name(c.cell(cell))
	}
	for i, u := range b.Users {
		k := class{index[u.Server], alloc.None, alloc.None}
		if !b.Allocation.Zero() {
			of := c.cell(b.Allocation.CellOf(u.Address))
			k = class{k[0], of[0], of[1]}
		}
		out.Users[i] = name(k)
	}
	return out
}

// OnlyActive is a plan by which users that are active have the owners that they have by p, and all others one owner. Users are as plans know
// them: of IPv6 what stands in for them.
func OnlyActive(p *steer.Plan, active []netip.Addr, others steer.Owner) (*steer.Plan, error) {
	users := make([]steer.User, len(active))
	for i, a := range active {
		users[i] = steer.User{Addr: a, Owner: p.Lookup(a)}
	}
	return allBut(users, others)
}

// allBut is a plan by which all but some users are one owner's.
func allBut(users []steer.User, others steer.Owner) (*steer.Plan, error) {
	everybody := portion.Set{Permit: []portion.Portion{portion.All4()}}
	out, err := steer.Compile([]steer.Claim{{Owner: others, Set: everybody}})
	if err != nil || len(users) == 0 {
		return out, err
	}
	return out.WithUsers(users)
}

// compiler numbers the classes of an allocation.
type compiler struct{ *Steering }

func (c compiler) number(k class) steer.Owner {
	n, known := c.numbers[k]
	if !known {
		c.classes = append(c.classes, k)
		n = steer.Owner(len(c.classes))
		c.numbers[k] = n
	}
	return n
}

// cell is the class of a cell's users.
func (c compiler) cell(cell int) class {
	return class{c.allocation.Owner[cell], c.allocation.Standby[cell], alloc.None}
}

// slots are the claims of the slots' users.
func (c compiler) slots() []steer.Claim {
	var out []steer.Claim
	at := map[steer.Owner]int{}
	for slot := range c.allocation.Slots.Count() {
		n := c.number(c.cell(slot))
		i, known := at[n]
		if !known {
			i, at[n] = len(out), len(out)
			out = append(out, steer.Claim{Owner: n, Epoch: c.allocation.Epoch})
		}
		out[i].Set.Permit = append(out[i].Set.Permit, c.allocation.Slots.Portion(slot))
	}
	for i, claim := range out {
		if len(claim.Set.Permit) > 1 {
			out[i].Set.Permit = portion.Minimize(claim.Set.Permit)
		}
	}
	return out
}

// fixed are those of the fixed portions', which go before slots.
func (c compiler) fixed() []steer.Claim {
	var out []steer.Claim
	for i, p := range c.allocation.Fixed {
		n := c.number(c.cell(c.allocation.Slots.Count() + i))
		out = append(out, steer.Claim{Owner: n, Rank: 1, Epoch: c.allocation.Epoch, Set: portion.Set{Permit: []portion.Portion{p}}})
	}
	return out
}

// users are those of exceptions.
func (c compiler) users(users []User) []steer.User {
	index := map[string]uint16{}
	for i, name := range c.servers {
		index[name] = uint16(i)
	}
	out := make([]steer.User, len(users))
	for i, u := range users {
		k := c.cell(c.allocation.CellOf(u.Address))
		out[i] = steer.User{Addr: u.Address, Owner: c.number(class{index[u.Server], k[0], k[1]})}
	}
	return out
}
