package steer

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
)

// User has an owner of its own, whatever the portions say.
type User struct {
	Addr  netip.Addr // IPv4
	Owner Owner      // 0: nobody
}

// override is a user as steer.h has it: its address in the upper half, flags and owner in the lower one.
type override uint64

const (
	userMore = 1 << 31
	userHere = 1 << 30
)

func newOverride(addr uint32, o Owner) override {
	return override(uint64(addr)<<32 | userHere | uint64(o))
}

func (o override) addr() uint32 { return uint32(o >> 32) }
func (o override) owner() Owner { return Owner(o & slotOwner) }

func compareUser(o override, addr uint32) int { return cmp.Compare(o.addr(), addr) }

func overrides(owners map[uint32]Owner) []override {
	out := make([]override, 0, len(owners))
	for addr, o := range owners {
		out = append(out, newOverride(addr, o))
	}
	slices.Sort(out)
	return out
}

// WithUsers is the plan with the owners of single users replaced; of several for one user the last one holds. It fails on addresses that
// are not IPv4 and on owners above MaxOwner. A million users are a matter of a tenth of a second.
func (p *Plan) WithUsers(users []User) (*Plan, error) {
	added := make([]override, 0, len(users))
	for _, u := range users {
		a := u.Addr.Unmap()
		if !a.Is4() || u.Owner > MaxOwner {
			return nil, fmt.Errorf("override of %s by owner %d: want an IPv4 address and an owner up to %d", u.Addr, u.Owner, MaxOwner)
		}
		added = append(added, newOverride(toUint32(a), u.Owner))
	}
	q := *p
	q.slots = slices.Clone(p.slots)
	for _, u := range added {
		q.slots[q.index(u.addr())] |= slotExact
	}
	slices.SortStableFunc(added, func(a, b override) int { return cmp.Compare(a.addr(), b.addr()) })
	q.users = mergeUsers(p.users, added)
	return &q, nil
}

// mergeUsers joins two sorted lists; of those with one address the last one of b holds, else a's.
func mergeUsers(a, b []override) []override {
	out := make([]override, 0, len(a)+len(b))
	for len(a)+len(b) > 0 {
		next := &a
		if len(a) == 0 || len(b) > 0 && b[0].addr() <= a[0].addr() {
			next = &b
		}
		u := (*next)[0]
		*next = (*next)[1:]
		switch n := len(out); {
		case n == 0 || out[n-1].addr() != u.addr():
			out = append(out, u)
		case next == &b:
			out[n-1] = u
		}
	}
	return out
}

// Users returns how many overrides of one address there are.
func (p *Plan) Users() int { return len(p.users) }

const (
	lineUsers = 8
	usersFull = 5  // users a line on average: 13 bytes a user, and one line in fourteen sends some to their second lines
	maxKicks  = 64 // users that one may drive to their second lines, each the next
)

// usersAt is how a table of users is read.
type usersAt struct{ Len, Seed uint32 }

// lines are the two that a user may be in, the same as in steer.h.
func (t usersAt) lines(addr uint32) (first, second uint32) {
	h := (addr ^ t.Seed) * 0x9e3779b1
	h = (h ^ h>>15) * 0x85ebca77
	first = uint32(uint64(h) * uint64(t.Len) >> 32)
	h = (h ^ h>>13) * 0xc2b2ae3d
	return first, uint32(uint64(h) * uint64(t.Len) >> 32)
}

// userLine is a line of a table.
type userLine [lineUsers]uint64

// put puts a user into an empty place; false: there is none.
func (l *userLine) put(u override) bool {
	for i, w := range l {
		if w&userHere == 0 {
			l[i] = w&userMore | uint64(u)
			return true
		}
	}
	return false
}

// lay puts a user into its first line, or its second; where both are full it takes the place of one that is at home in the second, and so on.
// False: there was no end to it.
func (t usersAt) lay(table []userLine, u override) bool {
	for kicks := range maxKicks {
		first, second := t.lines(u.addr())
		if table[first].put(u) {
			return true
		}
		table[first][0] |= userMore
		l := &table[second]
		if l.put(u) {
			return true
		}
		i := kicks % lineUsers
		was := override(l[i] &^ userMore)
		l[i] = l[i]&userMore | uint64(u)
		u = was
	}
	return false
}

// layUsers makes a table that all users have a place in: another seed where one does not do. The seed is not known to anybody, so that nobody
// makes users meet in one line.
func layUsers(users []override) ([]userLine, usersAt) {
	at := usersAt{Len: uint32(max(1, (len(users)+usersFull-1)/usersFull))}
	for tries := 1; ; tries++ {
		at.Seed = rand.Uint32()
		table := make([]userLine, at.Len)
		if !slices.ContainsFunc(users, func(u override) bool { return !at.lay(table, u) }) {
			return table, at
		}
		if tries%4 == 0 {
			at.Len += at.Len/8 + 1
		}
	}
}
