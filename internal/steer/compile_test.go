package steer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
)

func addr4(v uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return netip.AddrFrom4(b)
}

func cut(addr, mask uint32) portion.Portion {
	p, err := portion.New(addr4(addr), addr4(mask))
	if err != nil {
		panic(err)
	}
	return p
}

func mustCompile(t testing.TB, claims []Claim) *Plan {
	t.Helper()
	p, err := Compile(claims)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// wanted is what the documentation of Compile says, word for word.
func (c Claim) beats(o Claim) bool {
	if c.Rank != o.Rank {
		return c.Rank > o.Rank
	}
	return o.Epoch.Less(c.Epoch) || o.Epoch == c.Epoch && c.Owner < o.Owner
}

func wanted(claims []Claim, user netip.Addr) Owner {
	var best *Claim
	for i, c := range claims {
		if c.Set.Contains(user) && (best == nil || c.beats(*best)) {
			best = &claims[i]
		}
	}
	if best == nil {
		return 0
	}
	return best.Owner
}

// probes yields addresses at, inside and beside every portion, and some at random.
func probes(claims []Claim, r *rand.Rand, random int) (as []netip.Addr) {
	for _, c := range claims {
		for _, ps := range [][]portion.Portion{c.Set.Permit, c.Set.Deny} {
			for _, p := range ps {
				a, m := toUint32(p.Addr), toUint32(p.Mask)
				as = append(as, addr4(a), addr4(a|^m), addr4(a|r.Uint32()&^m), addr4(a^1<<r.IntN(32)|r.Uint32()&^m))
			}
		}
	}
	for range random {
		as = append(as, addr4(r.Uint32()))
	}
	return as
}

func check(t *testing.T, p *Plan, claims []Claim, at []netip.Addr) {
	t.Helper()
	for _, a := range at {
		if got, want := p.Lookup(a), wanted(claims, a); got != want {
			t.Fatalf("owner of %s is %d, want %d; claims %v, plan %+v", a, got, want, claims, p)
		}
	}
}

// random makes claims whose portions are of every sort: slots, prefixes, hosts, odd masks.
func random(r *rand.Rand) []Claim {
	one := func() portion.Portion {
		switch a := r.Uint32(); r.IntN(5) {
		case 0:
			return cut(a, 0xf)
		case 1:
			return cut(a&0x30ffffff, ^uint32(0)<<r.IntN(33))
		case 2:
			return cut(a&0x0000000f, hostMask)
		case 3:
			return cut(a, 0x80000000>>r.IntN(32)|1<<r.IntN(32))
		default:
			return cut(a, 0xff0000)
		}
	}
	some := func(n int) (ps []portion.Portion) {
		for range r.IntN(n + 1) {
			ps = append(ps, one())
		}
		return ps
	}
	var claims []Claim
	for range r.IntN(6) {
		claims = append(claims, Claim{
			Owner: Owner(1 + r.IntN(5)),
			Rank:  -r.IntN(2),
			Epoch: epoch.Epoch{Term: 1, Number: uint64(r.IntN(3))},
			Set:   portion.Set{Permit: some(6), Deny: some(4)},
		})
	}
	return claims
}

func TestCompileAgainstBruteForce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for range 120 {
		claims := random(r)
		p, err := Compile(claims)
		if errors.Is(err, ErrTooComplex) {
			refused++
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		check(t, p, claims, probes(claims, r, 50))
	}
	if refused > 20 {
		t.Errorf("%d of 120 random plans are refused as too complex", refused)
	}
	t.Logf("%d refused", refused)
}

// slots gives 2^k slots of the low bits to owners at random, in as few portions as possible.
func slots(r *rand.Rand, k, owners int, number uint64) []Claim {
	all := make([][]portion.Portion, owners)
	for i := range uint32(1 << k) {
		o := r.IntN(owners)
		all[o] = append(all[o], cut(i, 1<<k-1))
	}
	var claims []Claim
	for o, ps := range all {
		claims = append(claims, Claim{Owner: Owner(o + 1), Epoch: epoch.Epoch{Term: 1, Number: number}, Set: portion.Set{Permit: portion.Minimize(ps)}})
	}
	return claims
}

func TestSlotsArePure(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, k := range []int{0, 1, 8, 12, 16} {
		claims := append(slots(r, k, 3, 1), slots(r, k, 5, 2)[:2]...) // in the midst of a move
		p := mustCompile(t, claims)
		if p.Slots() > 1<<k || p.Entries() != 0 {
			t.Errorf("%d bits: %d slots, %d entries", k, p.Slots(), p.Entries())
		}
		check(t, p, claims, probes(nil, r, 2000/(1+k)))
	}
}

func TestOverridesAreSpread(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	claims := slots(r, 8, 3, 1)
	for range 4000 {
		claims[0].Set.Deny = append(claims[0].Set.Deny, cut(r.Uint32(), hostMask))
	}
	p := mustCompile(t, claims)
	flagged := 0
	for _, s := range p.slots {
		if s&slotExact != 0 {
			flagged++
		}
	}
	if p.Slots() < 1<<12 || flagged > 4000 || p.Masks() != 0 {
		t.Errorf("%d slots, %d with overrides, %d masks", p.Slots(), flagged, p.Masks())
	}
	check(t, p, claims, probes(claims[:1], r, 100)[:300])
}

func TestMaskNeedsOnlyTheIndexBitsThatDiffer(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	claims := append(slots(r, 16, 3, 1), Claim{Owner: 4, Epoch: epoch.Epoch{Term: 2}, Set: portion.Set{
		Permit: []portion.Portion{portion.MustParse("10.0.0.0/8")},
		Deny:   []portion.Portion{portion.MustParse("10.64.0.0/10")},
	}})
	p := mustCompile(t, claims)
	if p.Masks() > 2 || p.Entries() > 1+1<<16 {
		t.Errorf("%d masks, %d entries", p.Masks(), p.Entries())
	}
	claims = append(slots(r, 16, 3, 1), Claim{Owner: 4, Epoch: epoch.Epoch{Term: 2}, Set: portion.Set{Permit: []portion.Portion{portion.MustParse("10.0.0.0/8")}}})
	if p = mustCompile(t, claims); p.Entries() != 1 {
		t.Errorf("%d entries for one prefix over all slots, want 1", p.Entries())
	}
	check(t, p, claims, probes(claims[3:], r, 100))
}

func TestCompileRefuses(t *testing.T) {
	all := portion.Set{Permit: []portion.Portion{portion.All4()}}
	for _, c := range []Claim{
		{Owner: 0, Set: all},
		{Owner: MaxOwner + 1, Set: all},
		{Owner: 1, Set: portion.Set{Permit: []portion.Portion{portion.All6()}}},
		{Owner: 1, Set: portion.Set{Permit: all.Permit, Deny: []portion.Portion{{}}}},
	} {
		if _, err := Compile([]Claim{c}); err == nil {
			t.Errorf("%v is compiled", c)
		}
	}
	r := rand.New(rand.NewPCG(9, 10))
	var odd portion.Set
	for range 200 {
		odd.Permit = append(odd.Permit, cut(r.Uint32(), r.Uint32()))
	}
	if _, err := Compile([]Claim{{Owner: 1, Set: odd}, {Owner: 2, Set: all}}); !errors.Is(err, ErrTooComplex) {
		t.Errorf("200 masks at random: %v", err)
	}
}

func TestNobodyWithoutClaims(t *testing.T) {
	p := mustCompile(t, nil)
	if o := p.Lookup(addr4(1)); o != 0 || p.Slots() != 1 {
		t.Errorf("owner %d, %d slots", o, p.Slots())
	}
	if o := p.Lookup(netip.MustParseAddr("::1")); o != 0 {
		t.Errorf("owner of an IPv6 user: %d", o)
	}
	a, b := mustCompile(t, []Claim{{Owner: 1, Set: portion.Set{Permit: []portion.Portion{portion.All4()}}}}), mustCompile(t, nil)
	if a.Equal(b) || !a.Equal(a) || !b.Equal(p) {
		t.Error("Equal is wrong")
	}
	if o := a.Lookup(netip.MustParseAddr("::ffff:1.2.3.4")); o != 1 {
		t.Errorf("owner of a mapped user: %d", o)
	}
}

func TestRuns(t *testing.T) {
	for _, c := range []struct {
		mask uint32
		runs []run
	}{
		{0, nil},
		{hostMask, []run{{0, hostMask}}},
		{0xff, []run{{0, 0xff}}},
		{0xff000000, []run{{24, 0xff}}},
		{0x80000103, []run{{0, 3}, {6, 4}, {28, 8}}},
	} {
		if got := runsOf(c.mask); fmt.Sprint(got) != fmt.Sprint(c.runs) {
			t.Errorf("runs of %x: %v, want %v", c.mask, got, c.runs)
		}
	}
	if got := joinRuns(0x10111103); len(runsOf(got)) != 4 || got&0x10111103 != 0x10111103 {
		t.Errorf("joined: %x", got)
	}
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0, 10, 0, 0, 0, 255, 0, 0, 0, 2, 1, 10, 0, 0, 3, 255, 0, 0, 255, 1, 9, 10, 0, 0, 3, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		var claims []Claim
		for ; len(b) >= 10 && len(claims) < 64; b = b[10:] {
			p := cut(binary.BigEndian.Uint32(b[2:]), binary.BigEndian.Uint32(b[6:]))
			// Bits 0-1 of the second byte are the epoch, bit 2 goes on with the last claim, bit 3 denies.
			if b[1]&4 == 0 || len(claims) == 0 {
				claims = append(claims, Claim{Owner: 1 + Owner(b[0]%8), Epoch: epoch.Epoch{Number: uint64(b[1] & 3)}})
			}
			if s := &claims[len(claims)-1].Set; b[1]&8 != 0 {
				s.Deny = append(s.Deny, p)
			} else {
				s.Permit = append(s.Permit, p)
			}
		}
		p, err := Compile(claims)
		if errors.Is(err, ErrTooComplex) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		check(t, p, claims, probes(claims, rand.New(rand.NewPCG(1, 1)), 20))
	})
}

// TestRenumber: other owners, and the same users.
func TestRenumber(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 60 {
		claims := random(r)
		p, err := Compile(claims)
		if errors.Is(err, ErrTooComplex) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		user := addr4(r.Uint32())
		if p, err = p.WithUsers([]User{{user, 5}, {addr4(7), 0}}); err != nil {
			t.Fatal(err)
		}
		of := map[Owner]Owner{0: 0, 1: 11, 2: 0, 3: 11, 4: 13, 5: MaxOwner}
		was := p.digest()
		q := p.Renumber(func(o Owner) Owner { return of[o] })
		for _, a := range append(probes(claims, r, 50), user, addr4(7)) {
			if got, want := q.Lookup(a), of[p.Lookup(a)]; got != want {
				t.Fatalf("%s is owner %d's, want %d", a, got, want)
			}
		}
		if p.digest() != was {
			t.Fatal("the plan itself has changed")
		}
	}
}
