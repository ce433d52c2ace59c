package due

import (
	"math/rand/v2"
	"testing"
	"time"
)

type thing struct {
	Place
	when time.Time // zero: in no queue
}

// TestQueue compares with looking through all there is.
func TestQueue(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var q Queue[*thing]
		things := make([]thing, 20)
		for range 200 {
			x := &things[r.IntN(len(things))]
			if r.IntN(3) == 0 {
				q.Remove(x)
				x.when = time.Time{}
			} else {
				x.when = start.Add(time.Duration(r.IntN(50)) * time.Second)
				q.Set(x, x.when)
			}
			var next time.Time
			for i := range things {
				if w := things[i].when; !w.IsZero() && (next.IsZero() || w.Before(next)) {
					next = w
				}
			}
			if got := q.Next(); !got.Equal(next) {
				t.Fatalf("seed %d: next %v, want %v", seed, got, next)
			}
			if _, early := q.First(next.Add(-1)); early {
				t.Fatalf("seed %d: there is something before %v", seed, next)
			}
			if first, ok := q.First(next); ok == next.IsZero() || ok && !first.when.Equal(next) {
				t.Fatalf("seed %d: first %+v, %t, want one of %v", seed, first, ok, next)
			}
		}
	}
}
