package policy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
)

// world is servers of some capacity that serve slots of some demand, and say with a lag and with noise how it is.
type world struct {
	t        testing.TB
	r        *rand.Rand
	rules    Rules
	servers  []alloc.Server
	capacity []float64 // demand that is load 1
	demand   []float64 // per slot
	lag      float64   // how much of the last report is in the next one: 0..1
	noise    float64   // standard deviation, part of the load
	reported []float64
	current  alloc.Allocation

	moved   int       // slots that reports moved
	turns   []int     // per server: times that its share changed its direction
	sign    []float64 // of its last change
	decided int
}

func newWorld(t testing.TB, policy alloc.Policy, slots alloc.Slots, weights, capacity []float64) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(1, uint64(len(capacity)))), rules: Rules{Policy: policy, Slots: slots}, capacity: capacity}
	for i := range capacity {
		weight := 1
		if weights != nil {
			weight = int(weights[i])
		}
		w.servers = append(w.servers, alloc.Server{Name: fmt.Sprintf("s%03d", i+1), Weight: weight, Alive: true})
	}
	w.demand = make([]float64, slots.Count())
	for i := range w.demand {
		for _, c := range capacity {
			w.demand[i] += 0.5 * c / float64(slots.Count())
		}
	}
	w.reported, w.turns, w.sign = make([]float64, len(capacity)), make([]int, len(capacity)), make([]float64, len(capacity))
	w.decide(false)
	copy(w.reported, w.loads())
	return w
}

// loads are the true ones.
func (w *world) loads() []float64 {
	out := make([]float64, len(w.servers))
	at := map[string]int{}
	for i, s := range w.servers {
		at[s.Name] = i
	}
	for slot, demand := range w.demand {
		i := at[w.current.OwnerOf(slot)]
		out[i] += demand / w.capacity[i]
	}
	return out
}

func (w *world) reports() map[string]alloc.Load {
	loads := map[string]alloc.Load{}
	for i, f := range w.loads() {
		w.reported[i] = w.lag*w.reported[i] + (1-w.lag)*f
		said := max(w.reported[i]*(1+w.noise*w.r.NormFloat64()), 1e-6)
		if w.servers[i].Alive {
			loads[w.servers[i].Name] = alloc.Load{CPU: said, Connections: int(1e5 * said)}
		}
	}
	return loads
}

// decide takes one decision, and holds it to what every decision must be.
func (w *world) decide(due bool) Decision {
	w.t.Helper()
	in := Input{Rules: w.rules, Servers: w.servers, Current: w.current, Due: due}
	if due {
		in.Loads = w.reports()
	}
	return w.take(in)
}

func (w *world) take(in Input) Decision {
	w.t.Helper()
	d := Decide(in)
	want := d.Want(w.rules)
	want.Epoch = epoch.Epoch{Term: 1, Number: w.current.Epoch.Number + 1}
	next, move, err := alloc.Next(w.current, want)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := next.Check(); err != nil {
		w.t.Fatal(err)
	}
	if move.Moved != move.Needed || move.Slots != move.SlotsNeeded {
		w.t.Errorf("more moved than had to: %+v", move)
	}
	before, after := w.current.Counts(), next.Counts()
	for i, s := range w.servers {
		if !s.Alive || s.Drained {
			if after[s.Name] > 0 {
				w.t.Errorf("%s is out and has %d slots", s.Name, after[s.Name])
			}
			continue
		}
		change := float64(after[s.Name] - before[s.Name])
		if in.Due && change != 0 {
			if w.sign[i]*change < 0 {
				w.turns[i]++
			}
			w.sign[i] = change
		}
	}
	if in.Due {
		w.moved += move.Slots
		if most := max(1, int(w.rules.Balance.OrDefault().Step*float64(w.rules.Slots.Count()))); move.Slots > most {
			w.t.Errorf("one decision moved %d slots, at most %d", move.Slots, most)
		}
	}
	w.current, w.decided = next, w.decided+1
	return d
}

// spread is how far the highest and the lowest load are from the mean, in parts of it.
func (w *world) spread() float64 {
	loads := w.loads()
	mean, far := 0.0, 0.0
	for _, f := range loads {
		mean += f / float64(len(loads))
	}
	for _, f := range loads {
		far = max(far, math.Abs(f-mean)/mean)
	}
	return far
}

func (w *world) allTurns() int {
	n := 0
	for _, t := range w.turns {
		n += t
	}
	return n
}

// TestLoadsConvergeWithoutOscillation runs closed loops: servers of different capacity, reports that lag and are noisy. Loads come near
// each other, stay there, no server's share goes up and down, and little more moves than a balancer would that knew everything.
func TestLoadsConvergeWithoutOscillation(t *testing.T) {
	for _, policy := range []alloc.Policy{Load, LeastConnections} {
		for name, test := range map[string]struct {
			capacity   []float64
			slots      alloc.Slots
			lag, noise float64
			steps      int
			near       float64 // of the mean, after steps
			turns      int     // of all servers, in 500 decisions after
			moved      float64 // part of the space, in these
		}{
			"two":                {[]float64{1, 2}, alloc.Slots{By: alloc.Suffix, Bits: 8}, 0.2, 0.02, 40, 0.12, 0, 0.02},
			"four":               {[]float64{1, 1, 1, 3}, alloc.Slots{By: alloc.Suffix, Bits: 8}, 0.2, 0.02, 40, 0.12, 0, 0.02},
			"a whole old one":    {[]float64{1, 2, 4, 4}, alloc.Slots{By: alloc.Suffix, Bits: 8}, 0.5, 0.02, 60, 0.13, 0, 0.02},
			"noisy":              {[]float64{1, 1, 2, 2, 3, 3}, alloc.Slots{By: alloc.Suffix, Bits: 10}, 0.2, 0.033, 60, 0.12, 60, 0.12},
			"hundred":            {capacities(100), alloc.Slots{By: alloc.Suffix, Bits: 12}, 0.2, 0.02, 100, 0.15, 10, 0.02},
			"few slots a server": {capacities(60), alloc.Slots{By: alloc.Suffix, Bits: 8}, 0.2, 0.02, 60, 0.4, 0, 0.01},
		} {
			t.Run(string(policy)+" "+name, func(t *testing.T) {
				w := newWorld(t, policy, test.slots, nil, test.capacity)
				w.lag, w.noise = test.lag, test.noise
				began := w.spread()
				for range test.steps {
					w.decide(true)
				}
				first, firstTurns := w.moved, w.allTurns()
				if got := w.spread(); got > test.near {
					t.Errorf("after %d decisions loads are within %.2f of the mean, from %.2f: want %.2f", test.steps, got, began, test.near)
				}
				w.moved, w.turns = 0, make([]int, len(w.servers))
				for range 500 {
					w.decide(true)
				}
				later := float64(w.moved) / float64(test.slots.Count())
				t.Logf("spread %.2f to %.3f, %d slots moved with %d turns; then in 500 decisions %.3f of the space with %d turns",
					began, w.spread(), first, firstTurns, later, w.allTurns())
				if w.allTurns() > test.turns || later > test.moved {
					t.Errorf("%d turns, %.3f moved: want %d, %.3f", w.allTurns(), later, test.turns, test.moved)
				}
			})
		}
	}
}

func capacities(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = 1 + float64(i%4)*0.5
	}
	return out
}
