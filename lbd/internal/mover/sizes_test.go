package mover

import (
	"math/rand/v2"
	"testing"
)

// TestSizesFit: each size is in the step that has just room for it.
func TestSizesFit(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 100_000 {
		bytes := uint64(i)
		if i > 4096 {
			bytes = r.Uint64N(1 << (6 + i%21))
		}
		k := sizeIndex(bytes)
		if bytes > upTo(k) || k > 0 && bytes <= upTo(k-1) {
			t.Fatalf("%d bytes are in step %d, up to %d", bytes, k, upTo(k))
		}
		if over := upTo(k) - bytes; bytes > 64 && over > bytes/steps {
			t.Fatalf("%d bytes are told as %d", bytes, upTo(k))
		}
	}
	if k := sizeIndex(1 << 40); k != steps*octaves-1 {
		t.Errorf("what is too large is in step %d", k)
	}
}

func TestSizesAddUp(t *testing.T) {
	var s Sizes
	for _, bytes := range []uint64{0, 70, 72, 300, 300, 5000} {
		s.Add(bytes)
	}
	want := []Size{{72, 3}, {320, 2}, {5120, 1}}
	got := s.Steps()
	if len(got) != len(want) || s.Max != 5000 || s.Count() != 6 {
		t.Fatalf("%v, at most %d, %d all in all", got, s.Max, s.Count())
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%v, want %v", got[i], want[i])
		}
	}
	for bound, n := range map[float64]uint64{128: 3, 256: 3, 512: 5, 8192: 6, 64 << 20: 6} {
		if got := s.Octaves()[bound]; got != n {
			t.Errorf("%d states of at most %v bytes, want %d", got, bound, n)
		}
	}
}
