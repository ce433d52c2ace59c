package membership

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
)

// TestJoinsSayWhatAllocationsDo: the router knows joins alone, and brings every user to the server that the allocation names, fixed
// portions of many lengths included; in a move to one of the two, and to the standby of one that is silent.
func TestJoinsSayWhatAllocationsDo(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	table, now := newTable(t)
	prev := allocated(t, alloc.Allocation{}, 1, r)
	joined := func(a alloc.Allocation, name string) {
		t.Helper()
		now = now.Add(time.Millisecond)
		for _, s := range wire(t, now, a, name) {
			if _, err := table.Join(now, name, s); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range prev.Servers {
		joined(prev, name)
	}
	goes := func(user netip.Addr) string {
		p := table.Private()[private]
		return p.Owners[p.Plan.Lookup(user)]
	}
	a := allocated(t, prev, 2, r)
	users := people(r, append(prev.Fixed, a.Fixed...))
	for _, user := range users {
		if want, err := prev.Why(user); err != nil || goes(user) != want.Owner {
			t.Fatalf("%v goes to %s, want %+v", user, goes(user), want)
		}
	}
	if masks := table.Private()[private].Plan.Masks(); masks > 32 {
		t.Errorf("%d masks", masks)
	}
	for _, name := range a.Servers {
		joined(a, name)
		for _, user := range users {
			was, is := prev.OwnerOf(prev.CellOf(user)), a.OwnerOf(a.CellOf(user))
			if got := goes(user); got != was && got != is {
				t.Fatalf("%v goes to %q after %s has moved, want %s or %s", user, got, name, was, is)
			}
		}
	}
	run(table, start, now.Add(2*retirement))
	table.SetHealth(now, address("s2"), Silent)
	for _, user := range users {
		want, err := a.Why(user)
		if want.Owner == "s2" {
			want.Owner = want.Standby
		}
		if err != nil || goes(user) != want.Owner {
			t.Fatalf("%v goes to %s, want %+v", user, goes(user), want)
		}
	}
}

func address(name string) netip.Addr { return netip.AddrFrom4([4]byte{10, 3, 0, name[1] - '0'}) }

// allocated has four servers and 64 fixed portions of eight lengths; a third of them are prev's, perhaps with another owner.
func allocated(t *testing.T, prev alloc.Allocation, number uint64, r *rand.Rand) alloc.Allocation {
	t.Helper()
	want := alloc.Want{Epoch: epoch.Epoch{Term: 1, Number: number}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 8}}
	name := func() string { return fmt.Sprintf("s%d", 1+r.IntN(4)) }
	for i := range 4 {
		s := alloc.Server{Name: fmt.Sprintf("s%d", i+1), Weight: 1 + r.IntN(4), Alive: true}
		s.Address = address(s.Name)
		want.Servers = append(want.Servers, s)
	}
	all := prev.Fixed[:min(len(prev.Fixed), alloc.MaxFixed/3)]
	for len(all) < alloc.MaxFixed {
		p := portion.FromPrefix(netip.PrefixFrom(random4(r), 8+3*r.IntN(8)))
		if alloc.CheckFixed(want.Slots, append(all[:len(all):len(all)], p)) == nil {
			all = append(all[:len(all):len(all)], p)
		}
	}
	for _, p := range all {
		want.Fixed = append(want.Fixed, alloc.Fixed{Portion: p, Owner: name()})
	}
	a, _, err := alloc.Next(prev, want)
	if err != nil || len(a.Fixed) != alloc.MaxFixed {
		t.Fatalf("%d fixed portions, %v", len(a.Fixed), err)
	}
	return a
}

// wire are a server's joins as a router reads them.
func wire(t *testing.T, at time.Time, a alloc.Allocation, name string) (out []join.Signed) {
	t.Helper()
	parts, err := join.Split(join.Join{
		Group: private, Requester: address(name), Link: netip.MustParsePrefix("10.3.0.0/24"),
		Epoch: a.Epoch, Owner: a.Users(name), Standby: a.StandbyUsers(name),
	}, join.Room(1500))
	if err == nil {
		err = join.Stamp(parts, at, rand.NewChaCha8([32]byte{1}))
	}
	for _, p := range parts {
		s, failed := join.Unsigned(p)
		if err == nil {
			err = failed
		}
		if err == nil {
			s, err = join.Decode(s.Raw)
		}
		out = append(out, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// people are 10,000 users: half of them in or beside the portions.
func people(r *rand.Rand, portions []portion.Portion) (out []netip.Addr) {
	for len(out) < 10_000 {
		p := portions[r.IntN(len(portions))]
		user, at, mask := random4(r).As4(), p.Addr.As4(), p.Mask.As4()
		out = append(out, netip.AddrFrom4(user))
		for i := range user {
			user[i] = at[i] | user[i]&^mask[i]
		}
		out = append(out, netip.AddrFrom4(user))
	}
	return out
}

func random4(r *rand.Rand) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], r.Uint32())
	return netip.AddrFrom4(b)
}
