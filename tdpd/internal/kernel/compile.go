package kernel

import (
	"cmp"
	"fmt"
	"net/netip"
)

// compiler turns entries into those of a reconciler. What is wrong is left out, and told in failures.
type compiler struct {
	platform uint32 // labels that the kernel's table has room for
	want     map[id][]Hop
	wrong    map[id]bool
	failures Failures
}

func newCompiler(platform uint32, size int) *compiler {
	return &compiler{platform: platform, want: make(map[id][]Hop, size), wrong: map[id]bool{}}
}

func (c *compiler) add(i id, hops []Hop) {
	err := check(i, hops)
	if err == nil && !i.prefix.IsValid() && i.label >= c.platform {
		err = fmt.Errorf("beyond net.mpls.platform_labels, which is %d: have the range of labels end below it, or let it be raised", c.platform)
	}
	if err != nil {
		c.failures = append(c.failures, Failure{i.String(), i.label, err})
		c.wrong[i] = true
		return
	}
	c.want[i] = Canonical(hops)
}

func (c *compiler) state(s State) {
	for label, hops := range s.Labels {
		c.add(labelID(label), hops)
	}
	for prefix, hops := range s.Prefixes {
		c.add(prefixID(prefix), hops)
	}
}

// changes returns what is to be removed.
func (c *compiler) changes(s Changes) (gone []id) {
	one := func(i id, hops []Hop) {
		if len(hops) == 0 {
			gone = append(gone, i)
		} else {
			c.add(i, hops)
		}
	}
	for label, hops := range s.Labels {
		one(labelID(label), hops)
	}
	for prefix, hops := range s.Prefixes {
		one(prefixID(prefix), hops)
	}
	return gone
}

// decompile is the State of what is there; metrics that are not ours are left out.
func decompile(have map[id][]Hop) State {
	s := State{Labels: map[uint32][]Hop{}, Prefixes: map[netip.Prefix][]Hop{}}
	for i, hops := range have {
		switch i {
		case labelID(i.label):
			s.Labels[i.label] = Canonical(hops)
		case prefixID(i.prefix):
			s.Prefixes[i.prefix] = Canonical(hops)
		}
	}
	return s
}

// compareNames has label 9 before label 10.
func compareNames(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }
