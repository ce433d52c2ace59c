package portion

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// small returns a portion that fixes only bits of 0xc00003f0, so that 1,024 addresses tell everything about it.
func small(r *rand.Rand) Portion {
	mask := uint32(0xc00003f0) & r.Uint32() & (r.Uint32() | r.Uint32())
	p, err := New(addr4(r.Uint32()), addr4(mask))
	if err != nil {
		panic(err)
	}
	return p
}

func smallSet(r *rand.Rand, permit, deny int) Set {
	var s Set
	for range r.IntN(permit + 1) {
		s.Permit = append(s.Permit, small(r))
	}
	for range r.IntN(deny + 1) {
		s.Deny = append(s.Deny, small(r))
	}
	return s
}

func addr4(v uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return netip.AddrFrom4(b)
}

// everyone yields one address for each value of the bits that small fixes.
func everyone(yield func(netip.Addr) bool) {
	for v := range uint32(1 << 8) {
		if !yield(addr4(v>>6<<30 | v&0x3f<<4)) {
			return
		}
	}
}

func TestShareAgainstBruteForce(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 3000 {
		s, n := smallSet(r, 6, 5), 0
		for at := range everyone {
			if s.Contains(at) {
				n++
			}
		}
		if got, want := s.Share(), float64(n)/256; got != want {
			t.Fatalf("%v: share %v, want %v", s, got, want)
		}
	}
}

func TestSetAgainstBruteForce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		a, b := smallSet(r, 6, 5), smallSet(r, 6, 5)
		empty, equal, overlap := true, true, false
		for at := range everyone {
			inA, inB := a.Contains(at), b.Contains(at)
			empty = empty && !inA
			equal = equal && inA == inB
			overlap = overlap || inA && inB
		}
		if a.Empty() != empty {
			t.Fatalf("Empty(%s) = %v", a, !empty)
		}
		if a.Equal(b) != equal {
			t.Fatalf("Equal(%s, %s) = %v", a, b, !equal)
		}
		w, ok := a.Overlap(b)
		if ok != overlap || ok && (!a.Contains(w) || !b.Contains(w)) {
			t.Fatalf("Overlap(%s, %s) = %s, %v, want %v", a, b, w, ok, overlap)
		}
	}
}

func TestMinimize(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		var in []Portion
		for range r.IntN(20) {
			in = append(in, small(r))
		}
		out := Minimize(in)
		if !(Set{Permit: in}).Equal(Set{Permit: out}) || len(out) > len(in) {
			t.Fatalf("Minimize(%v) = %v", in, out)
		}
	}
	var slots []Portion
	for i := range 1 << 12 {
		if i%4 != 3 {
			slots = append(slots, MustParse(fmt.Sprintf("%s/0.0.15.255", addr4(uint32(i)))))
		}
	}
	if out := Minimize(slots); len(out) != 2 {
		t.Errorf("three quarters of 4,096 slots take %d portions, want 2: %v", len(out), out)
	}
	if out := Minimize([]Portion{MustParse("::/1"), MustParse("8000::/1"), MustParse("0.0.0.0/0")}); len(out) != 2 || out[1] != All6() {
		t.Errorf("halves of the IPv6 space give %v", out)
	}
}

func TestSetOfBothFamilies(t *testing.T) {
	s := Set{Permit: []Portion{All4(), All6()}, Deny: []Portion{MustParse("10.0.0.0/8"), MustParse("2001:db8::/32")}}
	for a, want := range map[string]bool{"10.1.1.1": false, "11.1.1.1": true, "2001:db8::1": false, "2001:db9::1": true} {
		if s.Contains(netip.MustParseAddr(a)) != want {
			t.Errorf("Contains(%s) = %v", a, !want)
		}
	}
	if _, ok := s.Overlap(Set{Permit: []Portion{MustParse("10.0.0.0/9"), MustParse("2001:db8:1::/48")}}); ok {
		t.Error("overlaps what it denies")
	}
	if w, ok := s.Overlap(Set{Permit: []Portion{MustParse("2001:db8::/31")}}); !ok || w != netip.MustParseAddr("2001:db9::") {
		t.Errorf("witness %v, %v", w, ok)
	}
}

func TestCheckPartition(t *testing.T) {
	set := func(ps ...string) (s Set) {
		for _, p := range ps {
			s.Permit = append(s.Permit, MustParse(p))
		}
		return s
	}
	owners := map[string]Set{
		"s1": set("0.0.0.0/0.0.0.3"), "s2": set("0.0.0.1/0.0.0.3"), "s3": set("0.0.0.2/0.0.0.2"),
	}
	if err := CheckPartition(owners); err != nil {
		t.Errorf("a partition is refused: %v", err)
	}
	owners["s2"] = set("0.0.0.1/0.0.0.1")
	var overlap *OverlapError
	if err := CheckPartition(owners); !errors.As(err, &overlap) || overlap.First != "s2" || overlap.Second != "s3" || overlap.Addr != addr4(3) {
		t.Errorf("overlap of s2 and s3: %v", err)
	}
	owners["s2"] = Set{Permit: []Portion{MustParse("0.0.0.1/0.0.0.3")}, Deny: []Portion{MustParse("10.0.0.5")}}
	var gap *GapError
	if err := CheckPartition(owners); !errors.As(err, &gap) || gap.Addr.String() != "10.0.0.5" {
		t.Errorf("gap at 10.0.0.5: %v", err)
	}
	if err := CheckPartition(nil); !errors.As(err, &gap) {
		t.Errorf("nobody owns anything: %v", err)
	}
	if err := CheckPartition(map[string]Set{"s1": set("::/0"), "s2": set("0.0.0.0/0")}); err != nil {
		t.Errorf("a partition of both families is refused: %v", err)
	}
}

// TestWorkIsBounded: a hostile but signed set must not stop a router. The denied cubes leave some ten addresses of four
// billion, or none.
func TestWorkIsBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	s := Set{Permit: []Portion{All4()}}
	for range 20_000 {
		var mask uint32
		for range 10 {
			mask |= 1 << r.IntN(32)
		}
		p, _ := New(addr4(r.Uint32()), addr4(mask))
		s.Deny = append(s.Deny, p)
	}
	began := time.Now()
	w, overlaps := s.Overlap(Set{Permit: []Portion{All4()}})
	if w.IsValid() && !s.Contains(w) || !overlaps && w.IsValid() {
		t.Errorf("witness %v, %v", w, overlaps)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	t.Logf("witness %v, overlaps %v, %v", w, overlaps, time.Since(began))
}

func TestLargePartition(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	owners := map[string]Set{}
	for i := range uint32(1 << 14) {
		name := fmt.Sprintf("s%d", r.IntN(8))
		p, _ := New(addr4(i), addr4(1<<14-1))
		owners[name] = Set{Permit: append(owners[name].Permit, p)}
	}
	for n, s := range owners {
		owners[n] = Set{Permit: Minimize(s.Permit)}
	}
	if err := CheckPartition(owners); err != nil {
		t.Error(err)
	}
	if w, ok := owners["s1"].Overlap(owners["s2"]); ok {
		t.Errorf("s1 and s2 overlap at %v", w)
	}
}
