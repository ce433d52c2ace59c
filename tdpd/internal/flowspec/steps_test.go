package flowspec

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// At no moment, whatever part of a step has come, a user has another server than before or after, or the director.
func TestNobodyMatchesAWrongRuleMeanwhile(t *testing.T) {
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 7))
		c := Config{Most: 1000, Nested: r.IntN(2) == 0}
		of := func() ([]Bound, []bgp.FlowRule) {
			b := randomBounds(r, false)
			return b, Compile([]Users{{Service: "web", VIPs: []netip.Addr{vip4}, Four: b}}, c).Rules
		}
		boundsBefore, before := of()
		boundsAfter, after := of()
		most := 1000
		if r.IntN(3) == 0 {
			most = max(len(before), len(after)) + r.IntN(3)
		}
		users := probes(r, slices.Concat(boundsBefore, boundsAfter))
		now := before
		for _, step := range Steps(before, after, most) {
			if len(step) > most {
				t.Fatalf("seed %d: %d rules on the way, at most %d", seed, len(step), most)
			}
			for range 5 {
				checkBetween(t, users, before, after, partly(r, now, step), !c.Nested)
			}
			checkBetween(t, users, before, after, step, !c.Nested)
			now = step
		}
		if !slices.Equal(now, after) {
			t.Fatalf("seed %d: ends with %v, not with %v", seed, now, after)
		}
	}
}

// partly is what a router has that has taken only some of a step.
func partly(r *rand.Rand, now, step []bgp.FlowRule) []bgp.FlowRule {
	rules, want := byMatch(now), byMatch(step)
	for m := range byMatch(slices.Concat(now, step)) {
		if r.IntN(2) == 0 {
			continue
		}
		if action, ok := want[m]; ok {
			rules[m] = action
		} else {
			delete(rules, m)
		}
	}
	return ruleSet(rules)
}

func checkBetween(t *testing.T, users []netip.Addr, before, after, now []bgp.FlowRule, anyOrder bool) {
	t.Helper()
	for _, u := range users {
		a, b := Decide(before, u, vip4), Decide(after, u, vip4)
		is := []bgp.FlowAction{Decide(now, u, vip4)}
		if anyOrder { // all rules that match it: the router may look at any of them first
			for _, r := range now {
				if !r.Source.IsValid() || r.Source.Contains(u) {
					is = append(is, r.FlowAction)
				}
			}
		}
		for _, action := range is {
			if action != (bgp.FlowAction{}) && action != a && action != b {
				t.Fatalf("user %v goes to %v, before %v, after %v\nfrom %v\nto   %v\nhas  %v", u, action, a, b, before, after, now)
			}
		}
	}
}

func TestStepsAreFew(t *testing.T) {
	rules := func(texts ...string) (out []bgp.FlowRule) {
		for _, text := range texts {
			var source string
			var n int
			fmt.Sscan(text, &source, &n)
			r := bgp.FlowRule{FlowMatch: bgp.FlowMatch{Destination: netip.PrefixFrom(vip4, 32)}, FlowAction: bgp.FlowAction{RedirectIP: server(n)}}
			if source != "all" {
				r.Source = netip.MustParsePrefix(source)
			}
			out = append(out, r)
		}
		return out
	}
	for _, c := range []struct {
		name          string
		before, after []bgp.FlowRule
		most, steps   int
	}{
		{"nothing", rules("all 1"), rules("all 1"), 10, 0},
		{"a server in place of another", rules("10.0.0.0/8 1", "11.0.0.0/8 1"), rules("10.0.0.0/8 2", "11.0.0.0/8 2"), 10, 1},
		{"finer", rules("all 1"), rules("0.0.0.0/1 1", "128.0.0.0/1 2"), 10, 2},
		{"what is inside first", rules("all 1"), rules("all 2", "10.0.0.0/8 1"), 10, 2},
		{"the end", rules("all 2", "10.0.0.0/8 1"), nil, 10, 2},
		{"no room for both", rules("0.0.0.0/1 1"), rules("128.0.0.0/1 1"), 1, 2},
	} {
		if got := Steps(c.before, c.after, c.most); len(got) != c.steps {
			t.Errorf("%s: %d steps, want %d: %v", c.name, len(got), c.steps, got)
		}
	}
}

func TestChangeWaitsForNeighbors(t *testing.T) {
	now := time.Unix(1000, 0)
	rule := func(source string, n int) bgp.FlowRule {
		return bgp.FlowRule{FlowMatch: bgp.FlowMatch{Destination: netip.PrefixFrom(vip4, 32), Source: netip.MustParsePrefix(source)}, FlowAction: bgp.FlowAction{RedirectIP: server(n)}}
	}
	coarse := []bgp.FlowRule{rule("0.0.0.0/0", 1)}
	fine := []bgp.FlowRule{rule("0.0.0.0/1", 1), rule("128.0.0.0/1", 2)}
	c := NewChange(10, 5*time.Second)
	if !c.Want(now, coarse) || c.Done() || len(c.Rules()) != 1 {
		t.Fatal("the first rules are not begun with")
	}
	if c.Want(now, fine) {
		t.Fatal("another step is begun before neighbors have the first")
	}
	if !c.Told(now) || len(c.Rules()) != 3 {
		t.Fatalf("rules %v, want both beside each other", c.Rules())
	}
	if c.Tick(now.Add(4*time.Second)) || !c.Tick(now.Add(5*time.Second)) || c.Skipped() != 1 || len(c.Rules()) != 2 {
		t.Fatalf("rules %v after the patience, want the new ones alone", c.Rules())
	}
	if c.Done() || c.Told(now) || !c.Done() || !c.Next().IsZero() {
		t.Error("not done when all neighbors have what is wanted")
	}
	if c.Want(now, fine) || !c.Done() {
		t.Error("what is there already is begun with again")
	}
}
