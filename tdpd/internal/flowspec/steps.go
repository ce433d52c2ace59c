package flowspec

import (
	"maps"
	"slices"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// Steps are the sets of rules between two, the last one being after: each is to be at the neighbors before the next one is begun; rules of one
// step may come in any order. At no moment, whichever rules of a step have come, a user has another server than the one by before or the one by
// after, or the director, in routers that look at the longest prefix first; in others, where neither set is nested.
//
// What is new or changes comes first, inside before around; then what is over goes, around before inside. Where both sets together are more than
// most, users go by the director between: all rules that go or change go first.
func Steps(before, after []bgp.FlowRule, most int) [][]bgp.FlowRule {
	now, want := byMatch(before), byMatch(after)
	var add, drop []bgp.FlowMatch
	for m, action := range want {
		if had, ok := now[m]; !ok || had != action {
			add = append(add, m)
		}
	}
	for m := range now {
		if _, ok := want[m]; !ok {
			drop = append(drop, m)
		}
	}
	var out [][]bgp.FlowRule
	if len(want)+len(drop) > most {
		for _, layer := range layers(slices.Collect(maps.Keys(now)), false) {
			for _, m := range layer {
				delete(now, m)
			}
			out = append(out, ruleSet(now))
		}
		add, drop = slices.Collect(maps.Keys(want)), nil
	}
	for _, layer := range layers(add, true) {
		for _, m := range layer {
			now[m] = want[m]
		}
		out = append(out, ruleSet(now))
	}
	for _, layer := range layers(drop, false) {
		for _, m := range layer {
			delete(now, m)
		}
		out = append(out, ruleSet(now))
	}
	return out
}

func byMatch(rules []bgp.FlowRule) map[bgp.FlowMatch]bgp.FlowAction {
	out := make(map[bgp.FlowMatch]bgp.FlowAction, len(rules))
	for _, r := range rules {
		out[r.FlowMatch] = r.FlowAction
	}
	return out
}

func ruleSet(rules map[bgp.FlowMatch]bgp.FlowAction) []bgp.FlowRule {
	out := make([]bgp.FlowRule, 0, len(rules))
	for m, a := range rules {
		out = append(out, bgp.FlowRule{FlowMatch: m, FlowAction: a})
	}
	slices.SortFunc(out, compareRules)
	return out
}

// layers puts matches in an order of layers, none of which has one inside another: inside before around, or the other way round.
func layers(all []bgp.FlowMatch, insideFirst bool) [][]bgp.FlowMatch {
	slices.SortFunc(all, compareMatches) // what is around comes before what is inside
	depth, open := make([]int, len(all)), []int(nil)
	var out [][]bgp.FlowMatch
	for i, m := range all {
		for len(open) > 0 && !around(all[open[len(open)-1]], m) {
			open = open[:len(open)-1]
		}
		depth[i] = len(open)
		open = append(open, i)
	}
	height := make([]int, len(all)) // of what is inside
	for i := len(all) - 1; i >= 0 && insideFirst; i-- {
		for j := i + 1; j < len(all) && depth[j] > depth[i]; j++ {
			if depth[j] == depth[i]+1 {
				height[i] = max(height[i], height[j]+1)
			}
		}
	}
	for i, m := range all {
		at := depth[i]
		if insideFirst {
			at = height[i]
		}
		for len(out) <= at {
			out = append(out, nil)
		}
		out[at] = append(out[at], m)
	}
	return out
}

// around says whether all that b matches a matches, too.
func around(a, b bgp.FlowMatch) bool {
	return a.Destination == b.Destination && a.Protocol == b.Protocol && a.Port == b.Port &&
		(!a.Source.IsValid() || b.Source.IsValid() && a.Source.Bits() <= b.Source.Bits() && a.Source.Contains(b.Source.Addr()))
}
