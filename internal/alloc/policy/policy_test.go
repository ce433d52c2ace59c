package policy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
)

var suffix8 = alloc.Slots{By: alloc.Suffix, Bits: 8}

// TestLiarsAreBounded: whatever one of two, or of ten, says, for as long as it likes, its share stays within 1/4 and 4 times that of its
// weight, and the honest ones stay near each other.
func TestLiarsAreBounded(t *testing.T) {
	for _, policy := range []alloc.Policy{Load, LeastConnections} {
		for _, pool := range []int{2, 10} {
			for name, lie := range map[string]alloc.Load{
				"idle": {CPU: 1e-300, Connections: 0, Bytes: 1}, "nothing": {}, "negative": {CPU: -5, Connections: -5}, "no number": {CPU: math.NaN(), Accepts: math.NaN(), Bytes: 1},
				"infinite": {CPU: math.Inf(1), Connections: math.MaxInt, Accepts: math.Inf(1)}, "far above": {Application: ptr(1e15), Connections: math.MaxInt},
				"application no number": {Application: ptr(math.NaN()), Bytes: 1}, "application negative": {Application: ptr(math.Inf(-1))},
			} {
				t.Run(fmt.Sprint(policy, " ", pool, " ", name), func(t *testing.T) {
					w := newWorld(t, policy, suffix8, nil, capacities(pool))
					for range 200 {
						in := Input{Rules: w.rules, Servers: w.servers, Current: w.current, Due: true, Loads: w.reports()}
						in.Loads["s001"] = lie
						w.take(in)
					}
					fair := 256 / pool
					got := w.current.Counts()["s001"]
					if got < max(1, fair/4) || got > min(4*fair+4, 255) {
						t.Errorf("s001 has %d of 256 slots, its weight gives it %d", got, fair)
					}
					low, high := math.Inf(1), 0.0
					for _, f := range w.loads()[1:] {
						low, high = min(low, f), max(high, f)
					}
					if high > 1.5*low {
						t.Errorf("the honest are between %.2f and %.2f", low, high)
					}
				})
			}
		}
	}
}

// TestLiarsTogetherAreBounded: k of n that say together that they idle, or that they are overwhelmed, move a step in a decision together (take
// holds them to it), and have or leave at most what Range lets k have. While less than half of them lie the honest ones stay near each other.
func TestLiarsTogetherAreBounded(t *testing.T) {
	const n, slots = 10, 1 << 10
	for _, policy := range []alloc.Policy{Load, LeastConnections} {
		for _, k := range []int{1, 2, 3, 4, 6, 9} {
			for name, lie := range map[string]alloc.Load{
				"idle": {CPU: 1e-300, Bytes: 1}, "overwhelmed": {Application: ptr(1e15), Connections: math.MaxInt},
			} {
				t.Run(fmt.Sprint(policy, " ", k, " ", name), func(t *testing.T) {
					w := newWorld(t, policy, alloc.Slots{By: alloc.Suffix, Bits: 10}, nil, slices.Repeat([]float64{1}, n))
					for range 300 {
						in := Input{Rules: w.rules, Servers: w.servers, Current: w.current, Due: true, Loads: w.reports()}
						for _, s := range w.servers[:k] {
							in.Loads[s.Name] = lie
						}
						w.take(in)
					}
					got, fair := 0, float64(k)/n*slots
					for _, s := range w.servers[:k] {
						got += w.current.Counts()[s.Name]
					}
					low, high := fair/4-float64(k), min(4*fair+float64(k), slots-float64(n-k)*slots/n/4+n)
					if float64(got) < low || float64(got) > high {
						t.Errorf("%d liars have %d of %d slots, want %.0f to %.0f", k, got, slots, low, high)
					}
					lowest, highest := math.Inf(1), 0.0
					for _, f := range w.loads()[k:] {
						lowest, highest = min(lowest, f), max(highest, f)
					}
					t.Logf("%d of %d liars have %d of %d slots, the honest are between %.2f and %.2f", k, n, got, slots, lowest, highest)
					if 2*k < n && highest > 1.5*lowest {
						t.Errorf("the honest are between %.2f and %.2f", lowest, highest)
					}
				})
			}
		}
	}
}

func ptr(f float64) *float64 { return &f }

// TestDecisionsHold throws anything at Decide: no weight out of range, none for the dead and drained, fixed portions disjoint and of
// servers that are there, the same again for the same input, and alloc.Next takes it.
func TestDecisionsHold(t *testing.T) {
	policies := []alloc.Policy{alloc.Equal, alloc.Weighted, Load, LeastConnections, Wanted, Geo}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		w := &world{t: t, rules: Rules{Policy: policies[r.IntN(len(policies))], Slots: alloc.Slots{By: alloc.Suffix, Bits: 1 + r.IntN(9)}}}
		if r.IntN(2) == 0 {
			w.rules.Slots.By = alloc.Prefix
		}
		w.rules.Prefixes = []Prefix{prefix("10.0.0.0/8", "s1", "s2"), prefix("10.2.0.0/16", "s3", "s4")}
		for i := range 1 + r.IntN(8) {
			w.servers = append(w.servers, alloc.Server{Name: fmt.Sprintf("s%d", i+1)})
		}
		w.turns, w.sign = make([]int, len(w.servers)), make([]float64, len(w.servers))
		for step := range 12 {
			someone := false
			for i := range w.servers {
				s := &w.servers[i]
				s.Weight, s.Alive, s.Drained = r.IntN(4), r.IntN(5) > 0, r.IntN(8) == 0
				someone = someone || s.Alive && !s.Drained && (s.Weight > 0 || w.rules.Policy == alloc.Equal)
			}
			in := Input{Rules: w.rules, Servers: w.servers, Current: w.current, Due: r.IntN(2) == 0, Loads: map[string]alloc.Load{}}
			for _, s := range w.servers {
				if r.IntN(4) > 0 {
					in.Loads[s.Name] = anyLoad(r, w.rules.Slots)
				}
			}
			if someone {
				checkDecision(t, in)
				d := Decide(in)
				next, move, err := alloc.Next(w.current, d.Want(w.rules))
				if err != nil || move.Moved != move.Needed {
					t.Fatalf("seed %d step %d: %v, %+v", seed, step, err, move)
				}
				w.current = next
			}
		}
	}
}

func checkDecision(t *testing.T, in Input) {
	t.Helper()
	d := Decide(in)
	if again := Decide(in); !reflect.DeepEqual(d, again) {
		t.Fatalf("%+v, and then %+v", d, again)
	}
	for i, s := range d.Servers {
		was := in.Servers[i]
		if s.Weight < 0 || s.Weight > 1<<16 || s.Name != was.Name || s.Alive != was.Alive || s.Drained != was.Drained {
			t.Errorf("%+v became %+v", was, s)
		}
		if was.Weight == 0 && s.Weight > 0 && in.Rules.Policy != alloc.Equal {
			t.Errorf("%s has weight 0 and gets %d", s.Name, s.Weight)
		}
	}
	if len(d.Fixed) > alloc.MaxFixed {
		t.Errorf("%d fixed portions", len(d.Fixed))
	}
	for i, f := range d.Fixed {
		at := slices.IndexFunc(in.Servers, func(s alloc.Server) bool { return s.Name == f.Owner })
		if at < 0 || !in.Servers[at].Alive || in.Servers[at].Drained || f.Standby == f.Owner {
			t.Errorf("%v goes to %q, %q stands by", f.Portion, f.Owner, f.Standby)
		}
		for _, g := range d.Fixed[:i] {
			if f.Portion.Overlaps(g.Portion) {
				t.Errorf("%v and %v overlap", f.Portion, g.Portion)
			}
		}
	}
}

func anyLoad(r *rand.Rand, slots alloc.Slots) alloc.Load {
	figures := []float64{0, 1, 0.5, -1, 1e300, math.NaN(), math.Inf(1), r.Float64(), r.Float64()}
	figure := func() float64 { return figures[r.IntN(len(figures))] }
	l := alloc.Load{Connections: r.IntN(1000) - 10, CPU: figure(), Memory: figure(), Accepts: figure(), Queue: r.IntN(50)}
	if r.IntN(4) == 0 {
		l.Application = ptr(figure())
	}
	for range r.IntN(6) {
		q := slots.Portion(r.IntN(slots.Count()))
		for range r.IntN(3) {
			q, _, _ = q.Halves(slots.By == alloc.Prefix)
		}
		if r.IntN(4) == 0 {
			q = portion.Host(netip.AddrFrom4([4]byte{10, 1, byte(r.IntN(3)), byte(r.IntN(256))}))
		}
		l.Hot = append(l.Hot, alloc.Hot{Portion: q, Share: figure()})
		l.Wanted = append(l.Wanted, q, portion.Portion{}, portion.All6())
	}
	return l
}

// TestDeathMovesUsersToStandbys: whatever the policy would like, only the dead server's slots move, and each to its standby.
func TestDeathMovesUsersToStandbys(t *testing.T) {
	for _, policy := range []alloc.Policy{Load, LeastConnections} {
		w := newWorld(t, policy, suffix8, nil, []float64{1, 2, 3, 4})
		for range 30 {
			w.decide(true)
		}
		before := w.current
		w.servers[3].Alive = false
		w.decide(false)
		for slot := range before.Owner {
			was, is := before.OwnerOf(slot), w.current.OwnerOf(slot)
			if was != is && (was != "s004" || is != before.Servers[before.Standby[slot]]) {
				t.Errorf("%s: slot %d went from %s to %s", policy, slot, was, is)
			}
		}
		w.servers[3].Alive = true
		w.decide(false)
		if got := w.current.Counts()["s004"]; got != 64 {
			t.Errorf("%s: back again s004 has %d slots, want what its weight gives it", policy, got)
		}
	}
}

// TestNothingMovesBetweenDecisions: reports alone move nobody before the interval has passed.
func TestNothingMovesBetweenDecisions(t *testing.T) {
	for _, policy := range []alloc.Policy{Load, LeastConnections, Wanted} {
		w := newWorld(t, policy, suffix8, nil, []float64{1, 4})
		before := w.current
		in := Input{Rules: w.rules, Servers: w.servers, Current: w.current, Loads: w.reports()}
		w.take(in)
		if !before.Same(w.current) {
			t.Errorf("%s moved users", policy)
		}
	}
}

// TestStepRangeAndHysteresisBind turns each knob alone.
func TestStepRangeAndHysteresisBind(t *testing.T) {
	w := newWorld(t, Load, suffix8, nil, []float64{1, 1, 1, 30})
	w.rules.Balance = DefaultBalance()
	w.rules.Balance.Range = 1.5
	for range 100 {
		w.decide(true) // checks step
	}
	if got := w.current.Counts()["s004"]; got != 96 {
		t.Errorf("with range 1.5 the strong server has %d slots, want 96", got)
	}
	w.rules.Balance.Range, w.rules.Balance.Hysteresis = 4, 0.5
	w.capacity = []float64{1, 1, 1, 2.4}
	for range 100 {
		w.decide(true)
	}
	if got := w.current.Counts()["s004"]; got != 96 {
		t.Errorf("within hysteresis the share of s004 went to %d slots", got)
	}
}

func TestReasons(t *testing.T) {
	w := newWorld(t, Load, suffix8, nil, []float64{1, 1, 1})
	in := Input{Rules: w.rules, Servers: w.servers, Current: w.current, Due: true, Loads: map[string]alloc.Load{
		"s001": {CPU: 0.93}, "s002": {CPU: 0.45, Queue: 3, Accepts: 20}, "s003": {Application: ptr(0.45), CPU: 1},
	}}
	d := Decide(in)
	if len(d.Why) == 0 || d.Why[0].String() != "s001 is at 0.93, mean 0.61" {
		t.Errorf("%v", d.Why)
	}
	in.Rules.Policy = LeastConnections
	in.Loads = map[string]alloc.Load{"s001": {Connections: 9000}, "s002": {Connections: 2000, Accepts: 1000}}
	if d = Decide(in); !strings.Contains(fmt.Sprint(d.Why), "s001 has 9000 connections, mean 5732 for its weight") {
		t.Errorf("%v", d.Why)
	}
}

func TestMeasure(t *testing.T) {
	for want, l := range map[float64]alloc.Load{
		0.7: {CPU: 0.2, Memory: 0.7}, 0.3: {Application: ptr(0.3), CPU: 1}, 4: {Application: ptr(99)}, 1: {CPU: 0.1, Queue: 500, Accepts: 90}, 0.5: {Queue: 50, Accepts: 90, CPU: 0.1},
	} {
		if got := Measure(l); got != want {
			t.Errorf("%+v is %v, want %v", l, got, want)
		}
	}
	if !math.IsNaN(Measure(alloc.Load{})) {
		t.Error("nothing said is a load")
	}
}

func TestFewerSlotsThanServersGoByWeight(t *testing.T) {
	w := newWorld(t, Load, alloc.Slots{By: alloc.Suffix, Bits: 2}, nil, capacities(6))
	for range 5 {
		w.decide(true)
	}
	if w.moved > 0 {
		t.Errorf("%d slots moved", w.moved)
	}
}

// BenchmarkDecide is one decision of a large pool.
func BenchmarkDecide(b *testing.B) {
	w := newWorld(b, Load, alloc.Slots{By: alloc.Suffix, Bits: 16}, nil, capacities(1000))
	in := Input{Rules: w.rules, Servers: w.servers, Current: w.current, Due: true, Loads: w.reports()}
	for b.Loop() {
		Decide(in)
	}
}
