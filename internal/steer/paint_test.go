package steer

import (
	"math/rand/v2"
	"testing"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
)

// Claims of whole slots alone, coarse and fine, over each other: every slot has the owner that the rules give it.
func TestPaintAgainstBruteForce(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	for range 500 {
		var claims []Claim
		for range 1 + r.IntN(8) {
			c := Claim{Owner: Owner(1 + r.IntN(6)), Rank: -r.IntN(2), Epoch: epoch.Epoch{Term: 1, Number: uint64(r.IntN(3))}}
			for range r.IntN(8) {
				c.Set.Permit = append(c.Set.Permit, cut(r.Uint32(), r.Uint32()&0x00c0003f|1))
			}
			claims = append(claims, c)
		}
		p := mustCompile(t, claims)
		if p.Entries() != 0 {
			t.Fatalf("%d entries of %v", p.Entries(), claims)
		}
		for v := range uint32(256) {
			if a := addr4(v&0x3f | v>>6<<22 | r.Uint32()&^0x00c0003f); p.Lookup(a) != wanted(claims, a) {
				t.Fatalf("owner of %v is %d, want %d; %v", a, p.Lookup(a), wanted(claims, a), claims)
			}
		}
	}
}

// BenchmarkCompileLarge is a large group's plan: 1,000 servers' sets of 65,536 slots, and who stands by for them.
func BenchmarkCompileLarge(b *testing.B) {
	claims := make([]Claim, 2000)
	for slot := range uint32(65536) {
		own, by := &claims[slot%1000], &claims[1000+slot*7%1000]
		own.Set.Permit = append(own.Set.Permit, cut(slot, 0xffff))
		by.Set.Permit = append(by.Set.Permit, cut(slot, 0xffff))
	}
	for i := range claims {
		claims[i].Owner, claims[i].Rank = Owner(1+i%1000), -(i / 1000)
	}
	b.Run("slots", func(b *testing.B) {
		for b.Loop() {
			mustCompile(b, claims)
		}
	})
	prefix := portion.Set{Permit: []portion.Portion{cut(0x0a000000, 0xff000000)}}
	b.Run("slots and a prefix", func(b *testing.B) {
		for b.Loop() {
			mustCompile(b, append(claims[:len(claims):len(claims)], Claim{Owner: 1, Rank: 1, Set: prefix}))
		}
	})
}
