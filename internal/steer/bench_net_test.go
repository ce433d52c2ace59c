package steer

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
)

// benchPlan gives 4,096 slots to three owners, and overrides to n of the million users that the test program draws.
func benchPlan(b testing.TB, n int, masks ...string) *Plan {
	r := rand.New(rand.NewPCG(1, 2))
	mine := portion.Set{}
	for range n {
		mine.Permit = append(mine.Permit, cut(0x0b000000+r.Uint32N(1e6), hostMask))
	}
	for _, m := range masks {
		mine.Permit = append(mine.Permit, portion.MustParse(m))
	}
	return mustCompile(b, append(slots(r, 12, 3, 1), Claim{4, epoch.Epoch{Term: 2}, mine}))
}

// BenchmarkNetLookup measures the lookup of a million random users in the kernel, less the same program without it.
func BenchmarkNetLookup(b *testing.B) {
	o, m := load(b, "", 1<<21)
	for name, p := range map[string]*Plan{
		"slots":                    benchPlan(b, 0),
		"overrides of 1% of users": benchPlan(b, 10_000),
		"one prefix":               benchPlan(b, 0, "11.0.0.0/13"),
	} {
		b.Run(name, func(b *testing.B) {
			if err := m.Set(map[netip.Addr]*Plan{group: p}); err != nil {
				b.Fatal(err)
			}
			for range b.N {
				one, none := fastest(b, o.LookupOne), fastest(b, o.LookupNone)
				b.ReportMetric(float64(one-none), "ns/lookup")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// fastest returns the least time that one run of the program took.
func fastest(b *testing.B, p *ebpf.Program) time.Duration {
	var took []time.Duration
	for range 7 {
		_, d, err := p.Benchmark(make([]byte, 64), 1_000_000, nil)
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, d)
	}
	return slices.Min(took)
}

// BenchmarkNetSet measures a move of 4,096 slots, from the new claims to the switch and the end of the grace period.
func BenchmarkNetSet(b *testing.B) {
	_, m := load(b, "", 1<<16)
	ps := [2]*Plan{benchPlan(b, 0), benchPlan(b, 100)}
	for i := 0; b.Loop(); i++ {
		if err := m.Set(map[netip.Addr]*Plan{group: ps[i%2]}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, claims := range map[string][]Claim{
		"4096 slots": slots(r, 12, 3, 1), "65536 slots": slots(r, 16, 3, 1),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				mustCompile(b, claims)
			}
		})
	}
}
