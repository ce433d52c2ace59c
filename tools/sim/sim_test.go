package main

import (
	"encoding/xml"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/internal/portion"
)

// small is a day that takes seconds.
func small(policies string) options {
	return options{
		users: 100_000, servers: 50, bits: 12, seed: 1, chance: 1, hysteresis: policy.DefaultBalance().Hysteresis,
		only: regexp.MustCompile("^(" + policies + ")$"), log: io.Discard,
	}
}

func mustDays(t *testing.T, o options) map[alloc.Policy]*day {
	t.Helper()
	days, err := allDays(o)
	if err != nil {
		t.Fatal(err)
	}
	by := make(map[alloc.Policy]*day)
	for _, d := range days {
		by[d.Policy] = d
	}
	return by
}

// A day of skewed traffic, failures, surges: no share goes up and down, nothing moves that need not, and loads are nearer to each other than
// with any policy that does not look at them.
func TestNoOscillationInADay(t *testing.T) {
	days := mustDays(t, small("equal|weighted|load|least-connections"))
	for p, d := range days {
		t.Logf("%s: %+v", p, *d)
		if math.Abs(d.Moved-d.Needed) > 1e-9 {
			t.Errorf("%s moved %.6f of the space, %.6f had to", p, d.Moved, d.Needed)
		}
	}
	for p, most := range map[alloc.Policy]struct{ turns, followed float64 }{
		policy.Load:             {2, 0.5},
		policy.LeastConnections: {4, 0.8},
	} {
		d := days[p]
		if d.TurnsMean > most.turns || d.Followed > most.followed {
			t.Errorf("%s: %.2f turns a server, %.3f of the space moved by reports; want at most %v, %v", p, d.TurnsMean, d.Followed, most.turns, most.followed)
		}
		if d.Deviation >= days[alloc.Weighted].Deviation || d.P99 >= days[alloc.Weighted].P99 {
			t.Errorf("%s: loads are %.3f apart, %.3f under weighted", p, d.Deviation, days[alloc.Weighted].Deviation)
		}
	}
	if d := days[policy.Load]; d.Rack < 0 || d.RackBack < 0 || d.Surge < 0 || d.Step < 0 {
		t.Errorf("load does not settle: %+v", *d)
	}
}

// Without chance in who is active, what turns is the policy itself: it does not.
func TestNoTurnsWithoutChance(t *testing.T) {
	o := small("load|least-connections")
	o.chance = 0
	for p, d := range mustDays(t, o) {
		if d.TurnsMean > 0.5 || d.TurnsMost > 4 {
			t.Errorf("%s: %.2f turns a server, at most %d", p, d.TurnsMean, d.TurnsMost)
		}
	}
}

func TestSameSeedSameDay(t *testing.T) {
	o := small("geo|wanted")
	o.users, o.servers, o.bits = 5000, 10, 8
	if a, b := mustDays(t, o), mustDays(t, o); !reflect.DeepEqual(a, b) {
		t.Error("two days of one seed differ")
	}
}

func TestWorld(t *testing.T) {
	slots := alloc.Slots{By: alloc.Suffix, Bits: 8}
	w := newWorld(rand.New(rand.NewPCG(1, 1)), slots, 20_000, 300)
	w.findHosts(50)
	var all sum
	for s := range w.count {
		all.plus(w.count[s])
	}
	if n := all.all(); n != float64(len(w.users)) || len(w.users) < 19_000 {
		t.Errorf("%v users in slots, %d in all", n, len(w.users))
	}
	behind, most := 0.0, 0.0
	for _, h := range w.hosts {
		behind += h.users.all()
		most = max(most, h.users.all())
	}
	if behind < 0.03*20_000 || most < 100 {
		t.Errorf("%d addresses with many users have %v of them, at most %v", len(w.hosts), behind, most)
	}
	p := portion.FromPrefix(w.networks[0].prefix)
	n := 0.0
	for _, c := range w.pieces(p) {
		n += c.users.all()
	}
	if want := float64(w.networks[0].users); math.Abs(n-want) > 0.2*want {
		t.Errorf("the first network has %v users, made were %v", n, want)
	}
}

func TestTurns(t *testing.T) {
	for _, test := range []struct {
		shares []float64
		turns  int
	}{
		{[]float64{100, 104, 98, 103, 97}, 0},
		{[]float64{100, 120, 140, 180}, 0},
		{[]float64{100, 120, 100, 120}, 2},
		{[]float64{100, 80, 60, 50, 70}, 1},
		{[]float64{100, 111, 109, 111, 109, 130}, 0},
	} {
		p := peak{extreme: test.shares[0]}
		for _, s := range test.shares {
			p.follow(s)
		}
		if p.turns != test.turns {
			t.Errorf("%v: %d turns, want %d", test.shares, p.turns, test.turns)
		}
	}
}

// What an epoch says fits where it has to, and is told where it does not.
func TestCosts(t *testing.T) {
	c, err := measureCost(100, 12)
	if err != nil || c.TooLarge != "" || c.JoinParts == 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	// Two bytes at most a slot and owner or standby, in the announcement twice; names and addresses beside.
	if least := 4096 * 2 * 2; c.Announce < least || c.Announce > 2*least+100*2*40 || c.Bytes < 2*(c.Announce+c.Commit) || c.Frames < 2*2*99 {
		t.Errorf("%+v", c)
	}
	few, err := measureCost(3, 16)
	if err != nil || !strings.Contains(few.TooLarge, "portions") {
		t.Errorf("two servers' joins of 65,536 slots: %+v, %v", few, err)
	}
}

func TestChartsAreXML(t *testing.T) {
	days, costs := mustDaysList(t), []cost{{Servers: 3, SlotBits: 8, Frames: 1, Bytes: 500, Joins: 300, JoinParts: 1}, {Servers: 100, SlotBits: 8, Frames: 9, Bytes: 9000, Joins: 5000, JoinParts: 1}}
	for _, c := range []chart{imbalance(days), movement(days), convergence(days), epochs(costs)} {
		text := c.svg()
		if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") || !strings.Contains(text, "<path") {
			t.Errorf("%s: %.300s", c.title, text)
		}
		if err := xml.Unmarshal([]byte(text), new(struct{})); err != nil {
			t.Errorf("%s: %v", c.title, err)
		}
	}
}

func mustDaysList(t *testing.T) []*day {
	o := small("weighted")
	o.users, o.servers, o.bits = 2000, 10, 8
	return []*day{mustDays(t, o)[alloc.Weighted]}
}
