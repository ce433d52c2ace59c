package gobgp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// inSet is how the speaker looks a prefix up in a set: at the longest prefix there that contains it, and at no other one.
func inSet(s *api.DefinedSet, p netip.Prefix) bool {
	longest := -1
	for _, x := range s.GetPrefixes() {
		if q := prefix(x.GetIpPrefix()); q.Bits() <= p.Bits() && q.Contains(p.Addr()) {
			longest = max(longest, q.Bits())
		}
	}
	for _, x := range s.GetPrefixes() {
		q := prefix(x.GetIpPrefix())
		if q.Bits() == longest && q.Contains(p.Addr()) && x.GetMaskLengthMin() <= uint32(p.Bits()) && uint32(p.Bits()) <= x.GetMaskLengthMax() {
			return true
		}
	}
	return false
}

// TestPrefixSets: a set matches what its ranges contain, nested however they are.
func TestPrefixSets(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	one := func(least int) netip.Prefix {
		bits := least + random.IntN(33-least)
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(random.IntN(4)) << 6, 0, byte(random.IntN(2))}), bits).Masked()
	}
	for range 2000 {
		var ranges []bgp.PrefixRange
		for range 1 + random.IntN(5) {
			p := one(6)
			least := p.Bits() + random.IntN(33-p.Bits())
			ranges = append(ranges, bgp.PrefixRange{Prefix: p, Least: least, Most: least + random.IntN(33-least)})
		}
		c := newCompiler(bgp.Desired{}, "x")
		if sets := c.prefixSets(ranges); len(sets) != 1 {
			t.Fatalf("%d sets of %v", len(sets), ranges)
		}
		for range 50 {
			p := one(0)
			want := false
			for _, r := range ranges {
				want = want || r.Contains(p)
			}
			if got := inSet(c.sets[len(c.sets)-1], p); got != want {
				t.Fatalf("%v in %v: %v, as the speaker has it: %v", p, ranges, want, got)
			}
		}
	}
}

// TestNames: names follow from what is in a policy, and lead to what there is.
func TestNames(t *testing.T) {
	d := bgp.Desired{
		AS: 65000, VIPs: []netip.Prefix{prefix("192.0.2.80/32"), prefix("2001:db8::80/128")},
		Neighbors: []bgp.Neighbor{{Address: addr("10.0.0.1"), AS: 65001, Import: "in", Export: "out"}, {Address: addr("2001:db8::1"), AS: 65000}},
		Policies: []bgp.Policy{
			{Name: "in", Rules: []bgp.PolicyRule{{Prefixes: []bgp.PrefixRange{{Prefix: prefix("10.0.0.0/8"), Least: 8, Most: 32}}, Communities: []bgp.Community{5}}}},
			{Name: "out", Rules: []bgp.PolicyRule{{Set: bgp.PolicySet{Add: []bgp.Community{1}, Remove: []bgp.Community{2}, Prepend: 3}}}},
		},
	}
	for _, compile := range []func(bgp.Desired) compiled{compileImport, compileExport} {
		a, b := compile(d), compile(d)
		if !proto.Equal(a.policy, b.policy) || !isOurs(a.policy.Name) {
			t.Errorf("two times the same: %v and %v", a.policy, b.policy)
		}
		more := d
		more.VIPs = append([]netip.Prefix{prefix("192.0.2.81/32")}, d.VIPs...)
		more.Neighbors = append([]bgp.Neighbor{{Address: addr("10.0.0.2"), AS: 1}}, d.Neighbors...)
		if compile(more).policy.Name == a.policy.Name {
			t.Error("another policy has the same name")
		}
		sets, names := map[string]bool{}, map[string]bool{}
		for _, s := range a.sets {
			sets[s.Name] = true
			if policyOf(s.Name) != a.policy.Name {
				t.Errorf("%s is of %s", s.Name, policyOf(s.Name))
			}
		}
		for _, s := range a.policy.Statements {
			names[s.Name] = true
			for _, m := range []*api.MatchSet{s.Conditions.NeighborSet, s.Conditions.PrefixSet, s.Conditions.CommunitySet, s.Conditions.LargeCommunitySet} {
				if m != nil && !sets[m.Name] {
					t.Errorf("%s looks into %s, which is not there", s.Name, m.Name)
				}
			}
			removesMarks := s.Actions.GetLargeCommunity().GetType() == api.CommunityAction_REMOVE
			isOfMapped := s.Conditions.PrefixSet.GetType() == api.MatchSet_INVERT
			if s.Conditions.NeighborSet == nil && !removesMarks && !isOfMapped {
				t.Errorf("%s is for neighbors of others, too: %v", s.Name, s)
			}
		}
		if len(names) != len(a.policy.Statements) {
			t.Error("two statements have one name")
		}
	}
	if c := compileImport(bgp.Desired{AS: 1, VIPs: d.VIPs}); c.policy != nil {
		t.Errorf("without neighbors: %v", c.policy)
	}
	d.Neighbors[0].Import = "none"
	if err := known(d); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", "none")) {
		t.Error(err)
	}
}
