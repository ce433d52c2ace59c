package portion

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Whatever the sets are, and come and go: each set that shares a permitted address is found.
func TestIndexFindsAllThatMeet(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		x, sets := NewIndex[int](), map[int]Set{}
		for range 150 {
			key := r.IntN(40)
			switch s := smallSet(r, 6, 3); {
			case r.IntN(4) == 0:
				x.Remove(key)
				delete(sets, key)
			default:
				if r.IntN(20) == 0 {
					s.Permit = append(s.Permit, MustParse([]string{"0.0.0.0/0", "2001:db8::/32"}[r.IntN(2)]))
				}
				x.Put(key, s)
				sets[key] = s
			}
			if x.Len() != len(sets) {
				t.Fatalf("%d sets, want %d", x.Len(), len(sets))
			}
			asked := smallSet(r, 6, 3)
			found := x.Meeting(asked)
			slices.Sort(found)
			if len(slices.Compact(slices.Clone(found))) != len(found) {
				t.Fatalf("found twice: %v", found)
			}
			for key, s := range sets {
				if _, meets := (Set{Permit: s.Permit}).Overlap(Set{Permit: asked.Permit}); meets && !slices.Contains(found, key) {
					t.Fatalf("seed %d: %v meets %v, and is not found", seed, s, asked)
				}
			}
		}
	}
}

// Slots of different servers do not meet, however many there are; that is what the index is for.
func TestIndexOfSlots(t *testing.T) {
	const servers, slots = 300, 1 << 14
	x, sets := NewIndex[int](), make([]Set, servers)
	for i := range uint32(slots) {
		p, err := New(addr4(i), addr4(slots-1))
		if err != nil {
			t.Fatal(err)
		}
		sets[i%servers].Permit = append(sets[i%servers].Permit, p)
	}
	for i, s := range sets {
		if found := x.Meeting(s); len(found) != 0 {
			t.Fatalf("%d meets %v", i, found)
		}
		x.Put(i, s)
	}
	if len(x.wide) != 0 || len(x.buckets) != 1<<indexBits {
		t.Errorf("%d wide sets, %d buckets", len(x.wide), len(x.buckets))
	}
	if found := x.Meeting(Set{Permit: []Portion{sets[7].Permit[3], sets[9].Permit[0]}}); len(found) != 2 {
		t.Errorf("found %v, want 7 and 9", found)
	}
	for i := range sets {
		x.Remove(i)
	}
	if x.Len() != 0 || len(x.buckets) != 0 {
		t.Errorf("%d sets and %d buckets are left", x.Len(), len(x.buckets))
	}
}

// A hostile set in every bucket, or with all it has in one, takes no more room and time than any other.
func TestIndexIsBounded(t *testing.T) {
	x := NewIndex[int]()
	for key := range 3 { // these choose the bits
		x.Put(key, Set{Permit: []Portion{{Addr: addr4(uint32(key)), Mask: addr4(0xffff)}}})
	}
	var everywhere, one Set
	for i := range uint32(16384) {
		everywhere.Permit = append(everywhere.Permit, Portion{Addr: addr4(i << 16), Mask: addr4(0xffff0000)})
		one.Permit = append(one.Permit, Portion{Addr: addr4(i << 16), Mask: addr4(0xffffffff)})
	}
	x.Put(10, everywhere)
	x.Put(11, one)
	n := 0
	for _, b := range x.buckets {
		n += len(b)
	}
	if !x.wide[10] || n > 2*len(one.Permit) {
		t.Errorf("wide: %v; %d portions in buckets", x.wide, n)
	}
	if found := x.Meeting(one); len(found) != x.Len() {
		t.Errorf("%d of %d found after %d looks", len(found), x.Len(), indexLooks)
	}
}
