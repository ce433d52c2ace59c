package steer

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

func TestNetReserveSparesTheSetANewTable(t *testing.T) {
	o, m := load(t, "", 1<<16)
	ps := moving(t)
	other := netip.MustParseAddr("239.0.0.2")
	if err := m.Set(map[netip.Addr]*Plan{group: ps[0]}); err != nil {
		t.Fatal(err)
	}
	next := map[netip.Addr]*Plan{group: ps[1], other: ps[0]}
	for range 2 { // again: nothing more to do
		if err := m.Reserve(next); err != nil {
			t.Fatal(err)
		}
	}
	at := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.16.0.99")}
	checkProgram(t, o, group, ps[0], at) // nothing is switched
	reserved := slices.Collect(maps.Values(m.slots.made))
	if err := m.Set(next); err != nil {
		t.Fatal(err)
	}
	for g, is := range m.installed {
		if !slices.Contains(reserved, m.slots.made[is.generation]) {
			t.Errorf("group %s got a new slot table", g)
		}
	}
	checkProgram(t, o, group, ps[1], at)
	checkProgram(t, o, other, ps[0], at)
}

func TestNetReserveWithoutRoomIsAnError(t *testing.T) {
	_, m := load(t, "", 1<<16)
	plans := map[netip.Addr]*Plan{}
	p := moving(t)[0]
	for i := range len(m.generations) {
		plans[netip.AddrFrom4([4]byte{239, 1, byte(i >> 8), byte(i)})] = p
	}
	if err := m.Reserve(plans); err == nil {
		t.Error("more plans than generations, and no error")
	}
	if err := m.Set(map[netip.Addr]*Plan{group: p}); err != nil {
		t.Errorf("Set afterwards: %v", err)
	}
}

// After Spare other owners of all users, in slots and single ones, find their tables where they are.
func TestNetSpareIsForTheNextChange(t *testing.T) {
	o, m := load(t, "", 1<<16)
	p := moving(t)[0]
	other, user := netip.MustParseAddr("239.0.0.2"), netip.MustParseAddr("10.3.0.3")
	more, err := p.WithUsers([]User{{user, 1}})
	if err != nil {
		t.Fatal(err)
	}
	at := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.16.0.99"), user}
	var slots, users []*ebpf.Map
	for i := range 6 {
		next := map[netip.Addr]*Plan{}
		for g, plan := range map[netip.Addr]*Plan{group: p, other: more} {
			next[g] = plan.Renumber(func(o Owner) Owner { return o + Owner(i) })
		}
		if err := m.Set(next); err != nil {
			t.Fatal(err)
		}
		for g, is := range m.installed {
			if i > 0 && (!slices.Contains(slots, m.slots.made[is.generation]) || !slices.Contains(users, m.users.made[is.generation])) {
				t.Errorf("change %d: group %s got a new table", i, g)
			}
			checkProgram(t, o, g, next[g], at)
		}
		if err := m.Spare(); err != nil {
			t.Fatal(err)
		}
		slots, users = slices.Collect(maps.Values(m.slots.made)), slices.Collect(maps.Values(m.users.made))
	}
}
