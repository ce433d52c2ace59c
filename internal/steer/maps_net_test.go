package steer

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/testnet"
)

var group = netip.MustParseAddr("239.0.0.1")

// load loads the test programs with the capabilities that units give; pins keeps their maps beyond them when not empty.
func load(t testing.TB, pins string, maxEntries uint32) (*lookupObjects, *Maps) {
	t.Helper()
	return loadBy(t, pins, maxEntries, func(f func() error) error {
		return testnet.WithCapabilities(f, unix.CAP_BPF, unix.CAP_NET_ADMIN)
	})
}

func loadBy(t testing.TB, pins string, maxEntries uint32, do func(func() error) error) (*lookupObjects, *Maps) {
	t.Helper()
	spec, err := loadLookup()
	if err != nil {
		t.Fatal(err)
	}
	spec.Maps["steer_entries"].MaxEntries = maxEntries
	if pins != "" {
		for _, n := range MapNames {
			spec.Maps[n].Pinning = ebpf.PinByName
		}
	}
	var o lookupObjects
	options := &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: pins}}
	if err := do(func() error { return spec.LoadAndAssign(&o, options) }); err != nil {
		t.Fatalf("load (as root?): %+v", err)
	}
	t.Cleanup(func() { o.Close() })
	m, err := NewMaps(map[string]*ebpf.Map{
		"steer_groups": o.SteerGroups, "steer_current": o.SteerCurrent, "steer_plans": o.SteerPlans,
		"steer_slots": o.SteerSlots, "steer_entries": o.SteerEntries, "steer_users": o.SteerUsers,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &o, m
}

const (
	users   = 256
	noGroup = ^Owner(0)
)

// owners runs the program's lookup for up to 256 users.
func owners(t testing.TB, o *lookupObjects, group netip.Addr, at []netip.Addr) []Owner {
	in := make([]byte, 4*(1+users))
	for i, a := range append([]netip.Addr{group}, at...) {
		b := a.As4()
		copy(in[4*i:], b[:])
	}
	out := make([]byte, len(in))
	if ret, err := o.LookupAll.Run(&ebpf.RunOptions{Data: in, DataOut: out}); err != nil || ret != 2 {
		t.Errorf("run: %d, %v", ret, err)
	}
	var os []Owner
	for i := range at {
		os = append(os, Owner(binary.BigEndian.Uint32(out[4*(i+1):])))
	}
	return os
}

func checkProgram(t *testing.T, o *lookupObjects, group netip.Addr, p *Plan, at []netip.Addr) {
	t.Helper()
	for len(at) > 0 {
		part := at[:min(users, len(at))]
		at = at[len(part):]
		for i, got := range owners(t, o, group, part) {
			if want := p.Lookup(part[i]); got != want {
				t.Fatalf("group %s: owner of %s is %d in the program, %d in the plan", group, part[i], got, want)
			}
		}
	}
}

func TestNetProgramAndPlanAgree(t *testing.T) {
	o, m := load(t, "", 1<<17)
	r := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		plans, at := map[netip.Addr]*Plan{}, map[netip.Addr][]netip.Addr{}
		for i := range 3 {
			g := netip.AddrFrom4([4]byte{239, 1, 1, byte(i)})
			if r.IntN(4) == 0 {
				continue // the group is removed
			}
			claims := random(r)
			if i == 0 {
				claims = slots(r, r.IntN(13), 4, 1)
			}
			p, err := Compile(claims)
			if errors.Is(err, ErrTooComplex) || err == nil && p.Entries() > 20000 {
				continue
			}
			plans[g], at[g] = p, probes(claims[:min(len(claims), 2)], r, 200)
			at[g] = at[g][:min(len(at[g]), 2000)]
		}
		if err := m.Set(plans); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			g := netip.AddrFrom4([4]byte{239, 1, 1, byte(i)})
			if p := plans[g]; p != nil {
				checkProgram(t, o, g, p, at[g])
			} else if got := owners(t, o, g, []netip.Addr{addr4(1)}); got[0] != noGroup {
				t.Fatalf("owner in a removed group: %d", got[0])
			}
		}
	}
	if err := m.Remove(); err != nil {
		t.Fatal(err)
	}
	if got := owners(t, o, netip.AddrFrom4([4]byte{239, 1, 1, 0}), []netip.Addr{addr4(1)}); got[0] != noGroup {
		t.Errorf("owner in a removed group: %d", got[0])
	}
	var key mapKey
	var owner uint32
	if m.entries.Iterate().Next(&key, &owner) {
		t.Errorf("entry %v is left", key)
	}
	if slices.Contains(m.numbers, true) || slices.Contains(m.generations[1:], true) || len(m.slots.made) > 12 || len(m.users.made) > 0 {
		t.Errorf("numbers, generations, %d slot tables or %d of users are left", len(m.slots.made), len(m.users.made))
	}
}

func TestNetNobodyIsNotNoGroup(t *testing.T) {
	o, m := load(t, "", 64)
	if got := owners(t, o, group, []netip.Addr{addr4(1)}); got[0] != noGroup {
		t.Errorf("owner in an unknown group: %d", got[0])
	}
	if err := m.Set(map[netip.Addr]*Plan{group: mustCompile(t, nil)}); err != nil {
		t.Fatal(err)
	}
	if got := owners(t, o, group, []netip.Addr{addr4(1)}); got[0] != 0 {
		t.Errorf("owner in a group without claims: %d", got[0])
	}
}

// moving returns two plans in which every user has an owner, never the same, in slots, masks and overrides alike.
func moving(t testing.TB) [2]*Plan {
	r := rand.New(rand.NewPCG(3, 4))
	var ps [2]*Plan
	for i := range ps {
		base := Owner(1 + 10*i)
		claims := slots(r, 10, 3, 1)
		for j := range claims {
			claims[j].Owner += base
		}
		mine := portion.Set{Permit: []portion.Portion{cut(uint32(0xa000000+i<<20), 0xfff00000), cut(0x50, 0xf0), cut(0xb0000000, 0xf00ff000)}}
		for range 100 {
			mine.Permit = append(mine.Permit, cut(r.Uint32(), hostMask))
		}
		ps[i] = mustCompile(t, append(claims, Claim{Owner: base, Epoch: epoch.Epoch{Term: 2}, Set: mine}))
	}
	return ps
}

func TestNetLookupsDuringSwitchesSeeOnePlan(t *testing.T) {
	o, m := load(t, "", 1<<16)
	ps := moving(t)
	set := func(i int) {
		other := netip.MustParseAddr("239.0.0.2")
		if err := m.Set(map[netip.Addr]*Plan{group: ps[i%2], other: ps[(i+1)%2]}); err != nil {
			t.Fatal(err)
		}
	}
	set(0)
	var stop atomic.Bool
	var seen [2]atomic.Int64
	var wg sync.WaitGroup
	for n := range 2 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(5, uint64(n)))
			for !stop.Load() {
				at := make([]netip.Addr, users)
				for i := range at {
					at[i] = addr4(r.Uint32() & []uint32{hostMask, 0xbfffffff, 0xff0f0fff}[r.IntN(3)])
				}
				for i, got := range owners(t, o, group, at) {
					switch got {
					case ps[0].Lookup(at[i]):
						seen[0].Add(1)
					case ps[1].Lookup(at[i]):
						seen[1].Add(1)
					default:
						t.Errorf("owner of %s is %d, in neither plan", at[i], got)
						return
					}
				}
			}
		})
	}
	for i := range 100 {
		set(i)
	}
	stop.Store(true)
	wg.Wait()
	if seen[0].Load() == 0 || seen[1].Load() == 0 {
		t.Errorf("%d and %d lookups saw the plans", seen[0].Load(), seen[1].Load())
	}
}

func TestNetFullMapKeepsTheOldPlan(t *testing.T) {
	ps := moving(t)
	o, m := load(t, "", uint32(len(ps[0].entries)+len(ps[1].entries)-1))
	if err := m.Set(map[netip.Addr]*Plan{group: ps[0]}); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(7, 8))
	at := probes(nil, r, 500)
	for range 3 {
		if err := m.Set(map[netip.Addr]*Plan{group: ps[1]}); !errors.Is(err, unix.E2BIG) {
			t.Fatalf("more entries than the map takes: %v", err)
		}
		checkProgram(t, o, group, ps[0], at)
	}
	claims := slots(r, 4, 2, 1)
	p := mustCompile(t, claims)
	if err := m.Set(map[netip.Addr]*Plan{group: p}); err != nil {
		t.Fatal(err)
	}
	checkProgram(t, o, group, p, at)
	if err := m.Set(map[netip.Addr]*Plan{group: ps[1]}); err != nil {
		t.Fatalf("after the old entries are gone: %v", err)
	}
}

func TestNetRestartTakesOver(t *testing.T) {
	dir := bpffs(t)
	_, m := load(t, dir, 1<<12)
	ps := moving(t)
	other := netip.MustParseAddr("239.0.0.2")
	if err := m.Set(map[netip.Addr]*Plan{group: ps[0], other: ps[0]}); err != nil {
		t.Fatal(err)
	}
	// A process that dies in the middle leaves a generation that is not in force.
	if err := m.writeEntries(77, ps[1]); err != nil {
		t.Fatal(err)
	}
	before := m.installed[group]

	o, again := load(t, dir, 1<<12)
	if err := again.Set(map[netip.Addr]*Plan{group: ps[0], other: ps[1]}); err != nil {
		t.Fatal(err)
	}
	if after := again.installed[group]; after != before {
		t.Errorf("an unchanged plan went from %+v to %+v", before, after)
	}
	if err := again.settle(); err != nil {
		t.Fatal(err)
	}
	at := probes(nil, rand.New(rand.NewPCG(9, 10)), 500)
	checkProgram(t, o, group, ps[0], at)
	checkProgram(t, o, other, ps[1], at)
	entries := 0
	var key mapKey
	var owner uint32
	for it := again.entries.Iterate(); it.Next(&key, &owner); {
		entries++
	}
	if want := len(ps[0].entries) + len(ps[1].entries); entries != want {
		t.Errorf("%d entries, want %d", entries, want)
	}
}

func bpffs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpffs (as root?): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
		os.Remove(dir)
	})
	return dir
}

// All groups that there is room for are there; others come in their place in one Set.
func TestNetGroupsChangeWhereThereIsNoRoomForMore(t *testing.T) {
	o, m := load(t, "", 1<<10)
	plan, err := Compile([]Claim{{Owner: 7, Set: portion.Set{Permit: []portion.Portion{portion.All4()}}}})
	if err != nil {
		t.Fatal(err)
	}
	plans := map[netip.Addr]*Plan{}
	add := func(i int) { plans[netip.AddrFrom4([4]byte{239, 2, byte(i >> 8), byte(i)})] = plan }
	for i := range MaxGroups {
		add(i)
	}
	if err := m.Set(plans); err != nil {
		t.Fatal(err)
	}
	for g := range plans {
		delete(plans, g)
		if len(plans) == MaxGroups-3 {
			break
		}
	}
	for i := range 3 {
		add(MaxGroups + i)
	}
	if err := m.Set(plans); err != nil {
		t.Fatal(err)
	}
	user := netip.MustParseAddr("192.0.2.1")
	for g := range plans {
		if got := owners(t, o, g, []netip.Addr{user}); got[0] != 7 {
			t.Fatalf("group %v: owner %d", g, got[0])
		}
	}
}

// A group whose plan does not fit is its own trouble.
func TestNetPlanThatDoesNotFitKeepsNoOtherBack(t *testing.T) {
	ps := moving(t)
	o, m := load(t, "", uint32(len(ps[1].entries)-1))
	r := rand.New(rand.NewPCG(9, 10))
	for number := range uint64(3) {
		small := mustCompile(t, slots(r, 4, 2, number))
		plans := map[netip.Addr]*Plan{group: ps[1], netip.MustParseAddr("239.0.0.0"): small, netip.MustParseAddr("239.0.0.2"): small}
		if err := m.Set(plans); !errors.Is(err, unix.E2BIG) {
			t.Fatalf("more entries than the map takes: %v", err)
		}
		at := probes(nil, r, 200)
		for _, g := range []string{"239.0.0.0", "239.0.0.2"} {
			checkProgram(t, o, netip.MustParseAddr(g), small, at)
		}
		if got := owners(t, o, group, at[:1]); got[0] != noGroup {
			t.Fatalf("a plan that does not fit is in force: owner %d", got[0])
		}
	}
}
