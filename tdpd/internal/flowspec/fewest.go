package flowspec

import (
	"cmp"
	"net/netip"
	"slices"
)

// rule is a prefix and the number of the server that its users are redirected to.
type rule struct {
	prefix netip.Prefix
	server int
}

// choose finds for each node which servers one rule for all of it may redirect to, from the leaves up. Nested: those by which the fewest rules are
// left to be made inside (ORTC: Draves, King, Venkatachary, Zill, 1999); but where some go to the director no rule has the whole, for there is
// no rule that says so. Else: the one that has all of them.
func (t *tree) choose() {
	for i := len(t.nodes) - 1; i >= 0; i-- {
		n := &t.nodes[i]
		switch {
		case n.cut:
			n.choices = []int{director}
		case n.children == 0:
			n.choices = []int{n.server}
		default:
			n.choices = t.both(t.nodes[n.children].choices, t.nodes[n.children+1].choices)
		}
	}
}

func (t *tree) both(a, b []int) []int {
	switch {
	case slices.Equal(a, b):
		return a
	case !t.nested:
		return nil
	case a[0] == director || b[0] == director:
		return []int{director}
	}
	var one, all []int // in both, in either
	for len(a)+len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0] < b[0]:
			all, a = append(all, a[0]), a[1:]
		case len(a) == 0 || b[0] < a[0]:
			all, b = append(all, b[0]), b[1:]
		default:
			one, all, a, b = append(one, a[0]), append(all, a[0]), a[1:], b[1:]
		}
	}
	if len(one) > 0 {
		return one
	}
	return all
}

// rules are the fewest that say where everybody goes.
func (t *tree) rules() (out []rule) {
	has := make([]int, len(t.nodes)) // what rules around redirect to; director: there are none
	for i := range t.nodes {
		n := &t.nodes[i]
		if _, decided := slices.BinarySearch(n.choices, has[i]); !decided && len(n.choices) > 0 {
			has[i] = n.choices[0]
			out = append(out, rule{n.prefix(t.is4), has[i]})
		}
		if n.children != 0 {
			has[n.children], has[n.children+1] = has[i], has[i]
		}
	}
	return out
}

// prune leaves the parts with the fewest users to the director until there are at most so many rules, and returns these.
func (t *tree) prune(most int) []rule {
	if out := t.rules(); len(out) <= most {
		return out
	}
	var order []int // of nodes that may be cut, the longest prefixes first
	for i := range t.nodes {
		if n := &t.nodes[i]; n.children != 0 || n.server != director {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(t.nodes[b].depth, t.nodes[a].depth) })
	least, enough := 0, len(order) // to cut so many is too few; is enough
	for enough-least > 1 {
		middle := (least + enough) / 2
		if len(t.cutAll(order, middle)) > most {
			least = middle
		} else {
			enough = middle
		}
	}
	out := t.cutAll(order, enough)
	for _, i := range order[:enough] {
		t.leave(&t.nodes[i], OverLimit)
	}
	return out
}

// cutAll leaves the first n of nodes to the director, with them all that is below them.
func (t *tree) cutAll(order []int, n int) []rule {
	for k, i := range order {
		t.nodes[i].cut = k < n
	}
	t.choose()
	return t.rules()
}
