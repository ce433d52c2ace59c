package page

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestBehind: pages of any size, one after the other, are all there is, in order.
func TestBehind(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		all := r.Perm(r.IntN(100))
		for _, most := range []int{1, 2, 7, 100, 1000} {
			var got []int
			for last := -1; ; last = got[len(got)-1] {
				one := Behind(slices.Values(all), cmp.Compare[int], func(x int) bool { return x > last }, most)
				got = append(got, one...)
				if len(one) > most {
					t.Fatalf("%d on a page of %d", len(one), most)
				}
				if len(one) < most {
					break
				}
			}
			if len(got) != len(all) || !slices.IsSorted(got) {
				t.Fatalf("pages of %d of %v: %v", most, all, got)
			}
		}
	}
}
