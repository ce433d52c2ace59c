package kernel

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestVMPrefixesByTwoHops: prefixes of both families whose packets get labels by one next hop and by two, one replaced by the other under
// traffic, of which nothing is lost.
func TestVMPrefixesByTwoHops(t *testing.T) {
	r := newRig(t)
	b, c := r.open(r.b), r.open(r.c)
	r.set(r.c, c, popState)
	by := func(links ...int) func() State {
		return func() State {
			s := State{Interfaces: []string{"ba"}, Prefixes: map[netip.Prefix][]Hop{}}
			for _, i := range links {
				at := index(fmt.Sprintf("bc%d", i))
				s.Prefixes[targets[0]] = append(s.Prefixes[targets[0]], Hop{Labels: []uint32{301}, Via: netip.MustParseAddr(fmt.Sprintf("10.0.%d.2", i)), Interface: at})
				s.Prefixes[targets[1]] = append(s.Prefixes[targets[1]], Hop{Labels: []uint32{302}, Via: netip.MustParseAddr(fmt.Sprintf("fd00:%d::2", i)), Interface: at})
			}
			return s
		}
	}
	r.a.Route(targets[0].String(), "10.0.0.2")
	r.a.Route(targets[1].String(), "fd00:0::2")
	is := func(links ...int) {
		t.Helper()
		for _, family := range []string{"-4", "-6"} {
			text := r.run(r.b, "ip "+family+" route show proto 1")
			for i := 1; i <= 2; i++ {
				want := 0
				for _, l := range links {
					if l == i {
						want = 1
					}
				}
				if strings.Count(text, fmt.Sprintf("dev bc%d", i)) != want || strings.Count(text, "encap mpls") != len(links) {
					t.Errorf("by links %v the kernel has\n%s", links, text)
				}
			}
		}
		r.do(r.b, func() error {
			b.mu.Lock()
			b.entries.known = false
			b.mu.Unlock()
			if have, err := b.Entries(); err != nil || len(have.Prefixes[targets[0]]) != len(links) || len(have.Prefixes[targets[1]]) != len(links) {
				t.Errorf("by links %v we find %v, %v", links, have.Prefixes, err)
			}
			return nil
		})
	}
	r.set(r.b, b, by(1))
	is(1)
	r.ping()
	r.flood(func() {
		for _, links := range [][]int{{1, 2}, {1}, {2}, {1, 2}, {2}, {1}} {
			r.set(r.b, b, by(links...))
			is(links...)
		}
		for n := range 40 {
			r.set(r.b, b, by([][]int{{1, 2}, {1}, {1, 2}, {2}}[n%4]...))
		}
	})
	r.set(r.b, b, by())
	is()
}
