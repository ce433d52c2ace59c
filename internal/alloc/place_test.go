package alloc

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestFirstIsWhatSortingPutsFirst(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		s := random.Perm(1 + random.IntN(200))
		k := random.IntN(len(s) + 1)
		compare := func(a, b int) int { return cmp.Or(cmp.Compare(a%7, b%7), cmp.Compare(a, b)) }
		if random.IntN(2) == 0 {
			compare = func(a, b int) int { return b - a }
		}
		want := slices.SortedFunc(slices.Values(s), compare)[:k]
		if got := first(slices.Clone(s), k, compare); !slices.Equal(got, want) {
			t.Fatalf("first %d of %v: %v, want %v", k, s, got, want)
		}
	}
}
