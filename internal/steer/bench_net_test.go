package steer

import (
	"math"
	"math/rand/v2"
	"net/netip"
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
	return mustCompile(b, append(slots(r, 12, 3, 1), Claim{Owner: 4, Epoch: epoch.Epoch{Term: 2}, Set: mine}))
}

// BenchmarkNetLookup measures the lookup of a million random users in the kernel, less the same program without it: the least
// time of seven, all plans in turns of one run. It is loaded with all capabilities: the barriers that the verifier adds without
// CAP_PERFMON are a matter of the kernel and the CPU.
func BenchmarkNetLookup(b *testing.B) {
	o, m := loadBy(b, "", 1<<21, func(f func() error) error { return f() })
	plans := []struct {
		metric string
		plan   *Plan
		least  time.Duration
	}{
		{"ns/slots", benchPlan(b, 0), math.MaxInt64},
		{"ns/overrides", benchPlan(b, 10_000), math.MaxInt64}, // of 1 % of the users
		{"ns/prefix", benchPlan(b, 0, "11.0.0.0/13"), math.MaxInt64},
	}
	none := time.Duration(math.MaxInt64)
	for b.Loop() {
		for i := range plans {
			p := &plans[i]
			if err := m.Set(map[netip.Addr]*Plan{group: p.plan}); err != nil {
				b.Fatal(err)
			}
			p.least, none = min(p.least, fastest(b, o.LookupOne)), min(none, fastest(b, o.LookupNone))
		}
	}
	for _, p := range plans {
		b.ReportMetric(float64(p.least-none), p.metric)
	}
	b.ReportMetric(float64(none), "ns/empty")
	b.ReportMetric(0, "ns/op")
}

// fastest returns the least time that one run of the program took.
func fastest(b *testing.B, p *ebpf.Program) time.Duration {
	least := time.Duration(math.MaxInt64)
	for range 7 {
		_, took, err := p.Benchmark(make([]byte, 64), 1_000_000, nil)
		if err != nil {
			b.Fatal(err)
		}
		least = min(least, took)
	}
	return least
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
