package alloc

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
)

var suffix8 = Slots{Suffix, 8}

func pool(weights ...int) []Server {
	var servers []Server
	for i, w := range weights {
		servers = append(servers, Server{Name: fmt.Sprintf("s%d", i+1), Weight: w, Alive: true})
	}
	return servers
}

func next(t *testing.T, prev Allocation, w Want) (Allocation, Move) {
	t.Helper()
	if w.Slots == (Slots{}) {
		w.Slots = suffix8
	}
	a, m, err := Next(prev, w)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Check(); err != nil {
		t.Fatal(err)
	}
	return a, m
}

func TestFirstAllocationIsInterleaved(t *testing.T) {
	a, m := next(t, Allocation{}, Want{Servers: pool(1, 1, 1), Epoch: epoch.Epoch{Term: 4, Number: 1}})
	if m.Moved != Space || m.Needed != Space || m.Slots != 256 || m.SlotsNeeded != 256 || a.Epoch.Term != 4 {
		t.Fatalf("move %+v, epoch %v", m, a.Epoch)
	}
	// 60 neighbouring users, as in Fig 10's active part of the space: each server gets its share of them.
	share := map[uint16]int{}
	for i := 11; i <= 70; i++ {
		share[a.Owner[i]]++
	}
	for o, n := range share {
		if n < 19 || n > 21 {
			t.Errorf("%s has %d of 60 neighbouring slots", a.Servers[o], n)
		}
	}
}

func TestWeights(t *testing.T) {
	servers := pool(5, 3, 0, 2)
	a, _ := next(t, Allocation{}, Want{Servers: servers, Slots: Slots{Prefix, 10}})
	got := a.Counts()
	for name, want := range map[string]int{"s1": 512, "s2": 307, "s4": 205} {
		if got[name] < want-1 || got[name] > want+1 {
			t.Errorf("%s owns %d of 1024 slots, want about %d", name, got[name], want)
		}
	}
	if a.Has("s3") {
		t.Error("s3 has weight 0 and something of the allocation")
	}
}

// TestStandbyTakesOver holds what an owner's death needs: its slots go to their standbys, so those who acted alone were right.
func TestStandbyTakesOver(t *testing.T) {
	servers := pool(1, 1, 1, 1)
	a, _ := next(t, Allocation{}, Want{Servers: servers})
	servers[1].Alive = false
	b, m := next(t, a, Want{Servers: servers})
	if m.FractionMoved() != 0.25 || m.Needed != m.Moved || m.Slots != 64 || m.SlotsNeeded != 64 {
		t.Fatalf("%+v, want 64 of s2's to move", m)
	}
	to := map[string]int{}
	other := 0
	for i := range b.Owner {
		if a.Servers[a.Owner[i]] != "s2" {
			continue
		}
		to[b.Servers[b.Owner[i]]]++
		if a.Servers[a.Standby[i]] != b.Servers[b.Owner[i]] {
			other++
		}
	}
	if other > 1 {
		t.Errorf("%d of the slots did not go to their standby; rounding excuses 1", other)
	}
	for name, n := range to {
		if n < 21 || n > 22 {
			t.Errorf("%s takes %d of the 64, want 21 or 22", name, n)
		}
	}
}

func TestNobodyEligible(t *testing.T) {
	servers := pool(1, 1)
	servers[0].Alive, servers[1].Drained = false, true
	if _, _, err := Next(Allocation{}, Want{Slots: suffix8, Servers: servers}); !errors.Is(err, ErrNoServer) {
		t.Fatalf("got %v, want ErrNoServer", err)
	}
}

func TestLoneServerHasNoStandby(t *testing.T) {
	a, _ := next(t, Allocation{}, Want{Servers: pool(1)})
	ans, err := a.Why(netip.MustParseAddr("10.0.0.7"))
	if err != nil || ans.Owner != "s1" || ans.Standby != "" || ans.Slot != 7 {
		t.Fatalf("%+v, %v", ans, err)
	}
	all := a.Users("s1").Permit
	if len(all) != 1 || all[0].String() != portion.MustParse("0.0.0.0/0").String() {
		t.Errorf("the only server's portions are %v, want everything in one", all)
	}
	if !a.StandbyUsers("s1").Empty() || !a.Users("s9").Empty() {
		t.Error("portions of nothing")
	}
}

func TestFinerSlotsMoveNothing(t *testing.T) {
	for _, by := range []By{Suffix, Prefix} {
		a, _ := next(t, Allocation{}, Want{Servers: pool(1, 1), Slots: Slots{by, 4}})
		b, m := next(t, a, Want{Servers: pool(1, 1), Slots: Slots{by, 9}})
		if m.Moved != 0 || m.Needed != 0 {
			t.Errorf("%s: moved %d, needed %d", by, m.Moved, m.Needed)
		}
		user := netip.MustParseAddr("203.0.113.77")
		was, _ := a.Why(user)
		is, _ := b.Why(user)
		if was.Owner != is.Owner {
			t.Errorf("%s: %v went from %s to %s", by, user, was.Owner, is.Owner)
		}
	}
}

// TestMovesAreMinimal walks random pools and fixed portions and holds every step to what an allocation must be.
func TestMovesAreMinimal(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		slots := Slots{Suffix, 1 + r.IntN(8)}
		if r.IntN(4) == 0 {
			slots = Slots{Prefix, 1 + r.IntN(4)}
		}
		var a Allocation
		var fixed []Fixed
		servers := pool(make([]int, 1+r.IntN(7))...)
		for step := range 8 {
			change(r, servers)
			fixed = changeFixed(r, fixed, len(servers))
			w := Want{Slots: slots, Servers: servers, Epoch: epoch.Epoch{Number: uint64(step)}, Fixed: fixed}
			b, m, err := Next(a, w)
			if errors.Is(err, ErrNoServer) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			checkStep(t, a, b, m, servers, w.Fixed)
			if t.Failed() {
				t.Fatalf("seed %d step %d: %+v", seed, step, servers)
			}
			a = b
		}
	}
}

func change(r *rand.Rand, servers []Server) {
	for i := range servers {
		if r.IntN(3) == 0 {
			servers[i].Weight = r.IntN(6)
			servers[i].Alive = r.IntN(5) > 0
			servers[i].Drained = r.IntN(6) == 0
		}
	}
}

// changeFixed lets fixed portions come, go and change hands; the masks need not be prefixes. Every other pool has none.
func changeFixed(r *rand.Rand, fixed []Fixed, servers int) []Fixed {
	name := func() string { return fmt.Sprintf("s%d", 1+r.IntN(servers)) }
	fixed = slices.DeleteFunc(slices.Clone(fixed), func(Fixed) bool { return r.IntN(4) == 0 })
	for i := range fixed {
		if r.IntN(4) == 0 {
			fixed[i].Owner = name()
		}
	}
	for range r.IntN(5) {
		p, err := portion.New(addr4(r.Uint32()), addr4(sampleMask&r.Uint32()))
		if err != nil {
			panic(err)
		}
		if !slices.ContainsFunc(fixed, func(f Fixed) bool { return f.Portion.Overlaps(p) }) {
			fixed = append(fixed, Fixed{Portion: p, Owner: name(), Standby: name()})
		}
	}
	r.Shuffle(len(fixed), func(i, j int) { fixed[i], fixed[j] = fixed[j], fixed[i] })
	return fixed
}

func checkStep(t *testing.T, a, b Allocation, m Move, servers []Server, fixed []Fixed) {
	t.Helper()
	if err := b.Check(); err != nil {
		t.Error(err)
	}
	total := 0
	weight := map[string]int{}
	for _, s := range servers {
		if s.Alive && !s.Drained {
			weight[s.Name] = s.Weight
			total += s.Weight
		}
	}
	n := b.Slots.Count()
	for name, count := range b.Counts() {
		if d := count*total - n*weight[name]; d >= total || d <= -total {
			t.Errorf("%s owns %d of %d with weight %d of %d", name, count, n, weight[name], total)
		}
	}
	for cell := range b.Owner {
		if len(b.Servers) > 1 && b.Standby[cell] == None {
			t.Errorf("%s has no standby among %v", b.cellName(cell), b.Servers)
		}
	}
	checkFixed(t, b, fixed)
	checkUsers(t, b)
	checkMove(t, a, b, m, total, weight)
	again, m2, err := Next(b, Want{Slots: b.Slots, Servers: servers, Fixed: fixed, Epoch: b.Epoch})
	if err != nil || m2.Moved != 0 || m2.Needed != 0 || !again.Same(b) {
		t.Errorf("nothing changed and yet: %+v %v", m2, err)
	}
}

// checkFixed holds that everybody has what is fixed for it.
func checkFixed(t *testing.T, b Allocation, fixed []Fixed) {
	t.Helper()
	placed := 0
	for _, f := range fixed {
		if !slices.Contains(b.Servers, f.Owner) {
			continue
		}
		placed++
		i := slices.Index(b.Fixed, f.Portion)
		if i < 0 {
			t.Errorf("%v is not given to %s", f.Portion, f.Owner)
			continue
		}
		cell := b.Slots.Count() + i
		if b.OwnerOf(cell) != f.Owner {
			t.Errorf("%v is %s's, want %s", f.Portion, b.OwnerOf(cell), f.Owner)
		}
		if f.Standby != f.Owner && slices.Contains(b.Servers, f.Standby) && b.StandbyOf(cell) != f.Standby {
			t.Errorf("%s stands by for %v, want %s", b.StandbyOf(cell), f.Portion, f.Standby)
		}
	}
	if placed != len(b.Fixed) {
		t.Errorf("fixed are %v, wanted %v", b.Fixed, fixed)
	}
}

// checkUsers holds that the sets of all servers are one partition, and that of their standbys.
func checkUsers(t *testing.T, b Allocation) {
	t.Helper()
	owned, standby := map[string]portion.Set{}, map[string]portion.Set{}
	sizes := b.Sizes()
	for _, name := range b.Servers {
		owned[name], standby[name] = b.Users(name), b.StandbyUsers(name)
		if share := owned[name].Share(); share != float64(sizes[name])/Space {
			t.Errorf("%s has %d addresses, its set %v", name, sizes[name], share*Space)
		}
	}
	if err := portion.CheckPartition(owned); err != nil {
		t.Errorf("owned: %v", err)
	}
	if len(b.Servers) == 1 {
		return
	}
	if err := portion.CheckPartition(standby); err != nil {
		t.Errorf("standby: %v", err)
	}
	for user := range sample {
		ans, err := b.Why(user)
		if err != nil || !ans.Portion.Contains(user) || !owned[ans.Owner].Contains(user) || !standby[ans.Standby].Contains(user) {
			t.Fatalf("why %v says %+v, %v", user, ans, err)
		}
	}
}

// checkMove counts what moves address by address, of a space of which all portions fix only bits of sampleMask, and finds the lower bound by trying every
// way to round the shares.
func checkMove(t *testing.T, a, b Allocation, m Move, total int, weight map[string]int) {
	t.Helper()
	n := b.Slots.Count()
	moved, stay := uint64(0), uint64(0) // stay: whatever becomes of slots
	held := map[string][]uint64{}
	kept, owners := make([]uint64, n), make([]string, n)
	for user := range sample {
		is := b.CellOf(user)
		if a.Zero() {
			moved++
			continue
		}
		was, slot := a.CellOf(user), a.OwnerOf(a.Slots.Index(user))
		before, after := a.OwnerOf(was), b.OwnerOf(is)
		if before != after {
			moved++
		}
		switch wasFixed := was >= a.Slots.Count(); {
		case is >= n:
			if before == after {
				stay++
			}
		case wasFixed && before == after && slot != before:
			stay++ // its slot happened to come to whom it was fixed for
		case !wasFixed || before == slot:
			kept[is]++
		}
		owners[b.Slots.Index(user)] = slot
	}
	for slot, name := range owners {
		if name != "" && weight[name] > 0 {
			held[name] = append(held[name], kept[slot])
		}
	}
	bound := sampled - stay - mostKept(n, total, b.Servers, weight, held)
	const scale = Space / sampled
	if moved != bound || m.Moved != moved*scale || m.Needed != bound*scale {
		t.Errorf("moved %d (said %d), needed %d (said %d)", moved*scale, m.Moved, bound*scale, m.Needed)
	}
}

// mostKept tries every way to round the shares.
func mostKept(n, total int, names []string, weight map[string]int, held map[string][]uint64) (best uint64) {
	for _, sizes := range held {
		slices.SortFunc(sizes, func(a, b uint64) int { return cmp.Compare(b, a) })
	}
	for up := range 1 << len(names) {
		sum, kept, possible := 0, uint64(0), true
		for i, name := range names {
			share := n * weight[name] / total
			if up>>i&1 == 1 {
				share++
				possible = possible && n*weight[name]%total > 0
			}
			sum += share
			for _, size := range held[name][:min(share, len(held[name]))] {
				kept += size
			}
		}
		if possible && sum == n {
			best = max(best, kept)
		}
	}
	return best
}

// All portions of random pools fix only bits of sampleMask, so that one address for each of their values tells everything.
const (
	sampleMask = 0xf00000ff
	sampled    = 1 << 12
)

func sample(yield func(netip.Addr) bool) {
	for v := range uint32(sampled) {
		if !yield(addr4(v>>8<<28 | v&0xff)) {
			return
		}
	}
}

// TestMovedSlotsAreSpread: what a leaving server leaves is dealt out in turns, not in clusters.
func TestMovedSlotsAreSpread(t *testing.T) {
	servers := pool(1, 1)
	a, _ := next(t, Allocation{}, Want{Servers: servers})
	b, m := next(t, a, Want{Servers: pool(1, 1, 1)})
	if m.Gained["s3"] != m.Slots {
		t.Fatalf("gained %v of %d moved", m.Gained, m.Slots)
	}
	run, longest := 0, 0
	for i := range b.Owner {
		if b.Servers[b.Owner[i]] == "s3" {
			run++
		} else {
			run = 0
		}
		longest = max(longest, run)
	}
	if longest > 2 {
		t.Errorf("s3 has %d slots in a row", longest)
	}
}

func TestPortionsPartitionTheSpace(t *testing.T) {
	for _, slots := range []Slots{{Suffix, 8}, {Prefix, 6}} {
		a, _ := next(t, Allocation{}, Want{Servers: pool(3, 2, 2), Slots: slots})
		owned, standby := map[string]portion.Set{}, map[string]portion.Set{}
		for _, name := range a.Servers {
			owned[name], standby[name] = a.Users(name), a.StandbyUsers(name)
		}
		for what, sets := range map[string]map[string]portion.Set{"owned": owned, "standby": standby} {
			if err := portion.CheckPartition(sets); err != nil {
				t.Errorf("%v %s: %v", slots, what, err)
			}
		}
		user := netip.MustParseAddr("198.51.100.200")
		ans, err := a.Why(user)
		if err != nil || !owned[ans.Owner].Contains(user) || !standby[ans.Standby].Contains(user) || !ans.Portion.Contains(user) {
			t.Errorf("%v: why %v says %+v, %v", slots, user, ans, err)
		}
	}
}

func TestSlots(t *testing.T) {
	for text, want := range map[string]Slots{"suffix": {Suffix, 8}, "prefix/1": {Prefix, 1}, "suffix/16": {Suffix, 16}} {
		if got, err := ParseSlots(text); err != nil || got != want {
			t.Errorf("ParseSlots(%q) = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "middle", "suffix/0", "suffix/17", "prefix/", "suffix/x"} {
		if got, err := ParseSlots(text); err == nil {
			t.Errorf("ParseSlots(%q) = %v, want an error", text, got)
		}
	}
	user := netip.MustParseAddr("10.1.2.3")
	for _, s := range []Slots{{Suffix, 8}, {Prefix, 8}, {Suffix, 16}, {Prefix, 3}} {
		if p := s.Portion(s.Index(user)); !p.Contains(user) {
			t.Errorf("%v: %v lies outside its own slot %v", s, user, p)
		}
	}
}

func FuzzNext(f *testing.F) {
	f.Add([]byte{3, 1, 1, 1, 0, 2, 1, 1, 1}, uint8(4))
	f.Fuzz(func(t *testing.T, steps []byte, k uint8) {
		slots := Slots{Prefix, 1 + int(k%4)}
		servers := pool(1, 1, 1, 1, 1)
		var a Allocation
		for _, b := range steps[:min(len(steps), 32)] {
			s := &servers[int(b)%len(servers)]
			s.Alive, s.Drained, s.Weight = b&0x80 == 0, b&0x40 != 0, int(b>>3&7)
			next, m, err := Next(a, Want{Slots: slots, Servers: servers})
			if errors.Is(err, ErrNoServer) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			checkStep(t, a, next, m, servers, nil)
			a = next
		}
	})
}

func TestUsed(t *testing.T) {
	a := Allocation{
		Slots: Slots{Suffix, 1}, Servers: []string{"a", "b", "c", "d"},
		Owner: []uint16{1, 1}, Standby: []uint16{3, None},
	}
	if got := a.Used(); !slices.Equal(got, []string{"b", "d"}) {
		t.Errorf("used are %v, want b and d", got)
	}
	if got := (Allocation{}).Used(); len(got) != 0 {
		t.Errorf("before the first allocation %v", got)
	}
}
