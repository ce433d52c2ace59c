package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
)

// askers are a pool under policy wanted, with what they report each second.
type askers struct {
	t      *testing.T
	in     Input
	wishes map[string]*Wishes
	moved  float64 // of the space, by reports, in all
	most   float64 // by one decision
	grants int     // portions given or taken
}

func newAskers(t *testing.T, names ...string) *askers {
	a := &askers{t: t, wishes: map[string]*Wishes{}}
	a.in = Input{Rules: Rules{Policy: Wanted, Slots: suffix8, Balance: DefaultBalance()}, Servers: alive(names...), Loads: map[string]alloc.Load{}}
	a.decide(false)
	return a
}

func (a *askers) say(name string, wanted ...portion.Portion) {
	if a.wishes[name] == nil {
		a.wishes[name] = &Wishes{}
	}
	a.in.Loads[name] = alloc.Load{CPU: 0.5, Wanted: wanted}
	a.wishes[name].Hear(wanted)
}

func (a *askers) decide(due bool) Decision {
	a.t.Helper()
	a.in.Due, a.in.Wishes = due, map[string]Wishes{}
	for name, w := range a.wishes {
		a.in.Wishes[name] = *w
	}
	d := Decide(a.in)
	want := d.Want(a.in.Rules)
	want.Epoch = epoch.Epoch{Term: 1, Number: a.in.Current.Epoch.Number + 1}
	next, move, err := alloc.Next(a.in.Current, want)
	if err != nil {
		a.t.Fatal(err)
	}
	if due {
		a.moved, a.most = a.moved+move.FractionMoved(), max(a.most, move.FractionMoved())
		for _, w := range a.wishes {
			w.Begin()
		}
		for _, q := range slices.Concat(next.Fixed, a.in.Current.Fixed) {
			if ownerOf(next, q) != ownerOf(a.in.Current, q) {
				a.grants++
			}
		}
		if move.FractionMoved() > a.in.Rules.Balance.Step+1e-9 {
			a.t.Fatalf("one decision moved %.4f of the space: %v", move.FractionMoved(), d.Why)
		}
	}
	a.in.Current = next
	return d
}

func ownerOf(a alloc.Allocation, q portion.Portion) string {
	if i := slices.Index(a.Fixed, q); i >= 0 {
		return a.OwnerOf(a.Slots.Count() + i)
	}
	return ""
}

func (a *askers) wantOwner(q, want string) {
	a.t.Helper()
	if got := ownerOf(a.in.Current, portion.MustParse(q)); got != want {
		a.t.Errorf("%s is %q's, want %q", q, got, want)
	}
}

func portions(texts ...string) []portion.Portion {
	var out []portion.Portion
	for _, text := range texts {
		out = append(out, portion.MustParse(text))
	}
	return out
}

// TestFlippingWishesMoveNobody lets servers change their wishes each second for hours: a steady one has what it asks for and keeps it, and the
// others move nobody, be it that they ask for a thing each other second, for another one each second, or stop for a second to ask for what they have.
func TestFlippingWishesMoveNobody(t *testing.T) {
	a := newAskers(t, "s1", "s2", "s3", "s4")
	steady, held := portions("198.51.100.0/24", "10.0.0.0/8"), portions("192.168.0.0/16")
	r := rand.New(rand.NewPCG(1, 2))
	for second := range 3 * 3600 {
		a.say("s4", steady...)
		a.say("s3", held...)
		if second > 60 && second%3 == 0 {
			a.say("s3")
		}
		a.say("s1")
		if second%2 == 0 {
			a.say("s1", portions("11.0.0.0/8", "12.0.0.0/7", "64.0.0.0/5")...)
		}
		var random []portion.Portion
		for range 64 {
			random = append(random, portion.MustParse(fmt.Sprintf("172.%d.%d.0/24", r.IntN(256), r.IntN(256))))
		}
		a.say("s2", random...)
		if second%10 == 9 {
			a.decide(true)
		}
		if second == 60 {
			a.moved, a.grants = 0, 0
		}
	}
	if a.moved != 0 || a.grants != 0 {
		t.Errorf("in 3 h %.4f of the space moved, with %d portions given or taken", a.moved, a.grants)
	}
	a.wantOwner("198.51.100.0/24", "s4")
	a.wantOwner("10.0.0.0/8", "s4")
	a.wantOwner("192.168.0.0/16", "s3")
}

// TestSlowlyChangingWishesAreBoundedByStep: wishes that change with the decisions move no more than a step each, given and taken back together; and
// who asks for the same all the time gets it, and keeps it.
func TestSlowlyChangingWishesAreBoundedByStep(t *testing.T) {
	for _, step := range []float64{0.01, 0.05, 0.2} {
		a := newAskers(t, "s1", "s2", "s3", "s4", "s5", "s6")
		a.in.Rules.Balance.Step = step
		r := rand.New(rand.NewPCG(1, 3))
		steady := portions("198.51.100.0/24", "203.0.113.0/24", "192.0.2.0/24")
		granted := 0
		for decision := range 500 {
			for _, name := range []string{"s1", "s2", "s3", "s4", "s5"} {
				var all []portion.Portion
				for range r.IntN(65) {
					bits := 3 + r.IntN(14)
					all = append(all, portion.MustParse(fmt.Sprintf("%d.0.0.0/%d", r.IntN(1<<min(bits, 8))<<(8-min(bits, 8)), bits)))
				}
				a.say(name, all...)
			}
			a.say("s6", steady...)
			a.decide(true)
			has := 0
			for _, q := range steady {
				if ownerOf(a.in.Current, q) == "s6" {
					has++
				}
			}
			if has < granted {
				t.Fatalf("step %v, decision %d: of what s6 had it has %d of %d", step, decision, has, granted)
			}
			granted = has
			for name, size := range sizesOfFixed(a.in.Current) {
				if size > 0.5 || name != "s6" && size > 4.0/6 {
					t.Fatalf("%s has %.3f of the space in portions", name, size)
				}
			}
		}
		if granted != len(steady) {
			t.Errorf("step %v: s6 has %d of the %d portions that it asked for all the time", step, granted, len(steady))
		}
		if a.moved == 0 {
			t.Errorf("step %v: nothing moved at all", step)
		}
		t.Logf("step %v: at most %.4f by one decision, %.4f by the mean one", step, a.most, a.moved/500)
	}
}

func sizesOfFixed(a alloc.Allocation) map[string]float64 {
	out := map[string]float64{}
	for i, q := range a.Fixed {
		out[a.OwnerOf(a.Slots.Count()+i)] += q.Size()
	}
	return out
}

// TestPortionIsHandedOverAtOnce: what one gives back and another has asked for moves once, though twice its size is more than a step.
func TestPortionIsHandedOverAtOnce(t *testing.T) {
	a := newAskers(t, "s1", "s2", "s3")
	big := portions("64.0.0.0/5") // 3.1 % of the space
	a.say("s1", big...)
	a.decide(true)
	a.wantOwner("64.0.0.0/5", "s1")
	a.say("s1")
	a.say("s2", big...)
	a.decide(true)
	a.wantOwner("64.0.0.0/5", "s1") // it asked for it within the interval, and s2 not all the time
	a.decide(true)
	a.wantOwner("64.0.0.0/5", "s2")
	if a.most > 1.0/32 {
		t.Errorf("%.4f of the space moved at a time", a.most)
	}
}

// TestPortionsOfTheDeadWait: users of a dead server's portion move to its standby, and then nowhere until it is back, or has left.
func TestPortionsOfTheDeadWait(t *testing.T) {
	const q = "10.1.0.0/16"
	for what, out := range map[string]func(s *alloc.Server, out bool){
		"dead":    func(s *alloc.Server, out bool) { s.Alive = !out },
		"drained": func(s *alloc.Server, out bool) { s.Drained = out },
	} {
		a := newAskers(t, "s1", "s2", "s3")
		a.say("s1", portions(q)...)
		a.say("s2")
		a.say("s3")
		a.decide(true)
		a.wantOwner(q, "s1")
		cell := a.in.Current.Slots.Count()
		standby := a.in.Current.StandbyOf(cell)
		out(&a.in.Servers[0], true)
		a.decide(false)
		a.wantOwner(q, standby)
		a.moved = 0
		other := map[string]string{"s2": "s3", "s3": "s2"}[standby]
		a.say(other, portions(q)...)
		for range 20 {
			a.decide(true)
			a.wantOwner(q, standby)
		}
		if a.moved != 0 {
			t.Errorf("%s: %.5f of the space moved while it was away", what, a.moved)
		}
		a.say(other)
		out(&a.in.Servers[0], false)
		a.decide(false)
		a.wantOwner(q, standby)
		d := a.decide(true)
		a.wantOwner(q, "s1")
		if why := fmt.Sprint(d.Why); !strings.Contains(why, "s1 asked for") {
			t.Errorf("%s: %s", what, why)
		}

		out(&a.in.Servers[0], true)
		a.decide(false)
		standby = a.in.Current.OwnerOf(cell)
		a.in.Servers = a.in.Servers[1:] // it has left for good
		delete(a.in.Loads, "s1")
		delete(a.wishes, "s1")
		a.decide(true)
		if standby == "s1" || len(a.in.Current.Fixed) != 0 {
			t.Errorf("%s: what s1 left is still %s's: %v", what, standby, a.in.Current.Fixed)
		}
	}
}

// TestLiarsTogetherWant lets k of n ask for as much as they can, and for something else each interval: together they move no more than a step
// (decide holds them to it), none has more than its part, and the honest ones get what they ask for.
func TestLiarsTogetherWant(t *testing.T) {
	const n = 10
	for _, k := range []int{1, 4, 9} {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("s%d", i))
		}
		a := newAskers(t, names...)
		for decision := range 60 {
			for i, name := range names {
				if i >= k {
					a.say(name, portions(fmt.Sprintf("198.51.%d.0/24", i))...)
					continue
				}
				var all []portion.Portion
				for bit := range 16 {
					all = append(all, portion.MustParse(fmt.Sprintf("%d.0.0.0/8", (i*16+bit+decision/2%2*n*16/2)%190)))
				}
				a.say(name, all...)
			}
			a.decide(true)
			for name, size := range sizesOfFixed(a.in.Current) {
				if size > 4.0/n {
					t.Fatalf("%d of %d: %s has %.3f of the space", k, n, name, size)
				}
			}
		}
		for i := k; i < n; i++ {
			a.wantOwner(fmt.Sprintf("198.51.%d.0/24", i), names[i])
		}
	}
}

func TestWishesRememberAnInterval(t *testing.T) {
	var w Wishes
	in := func() Input { return Input{Wishes: map[string]Wishes{"s1": w}} }
	want := func(wanted, asked string) {
		t.Helper()
		any, said := in().asked("s1")
		if got := fmt.Sprint(in().wanted("s1")); got != wanted || fmt.Sprint(any) != asked || !said {
			t.Errorf("wanted %s, asked %v: want %s and %s", got, any, wanted, asked)
		}
	}
	if _, said := in().asked("s1"); said {
		t.Error("who was not heard says something")
	}
	w.Hear(portions("10.0.0.0/8", "11.0.0.0/8"))
	want("[10.0.0.0/8 11.0.0.0/8]", "[10.0.0.0/8 11.0.0.0/8]")
	w.Hear(portions("11.0.0.0/8", "12.0.0.0/8"))
	want("[11.0.0.0/8]", "[10.0.0.0/8 11.0.0.0/8 12.0.0.0/8]")
	w.Hear(nil)
	want("[]", "[10.0.0.0/8 11.0.0.0/8 12.0.0.0/8]")
	w.Hear(portions("12.0.0.0/8"))
	w.Begin()
	want("[12.0.0.0/8]", "[12.0.0.0/8]")
	for i := range 1000 {
		w.Hear([]portion.Portion{portion.MustParse(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))})
	}
	if len(w.any) > maxAsked || len(w.all) != 0 {
		t.Errorf("%d and %d are remembered", len(w.any), len(w.all))
	}
}
