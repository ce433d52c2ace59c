package steering

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/manycast/manycast/internal/steer"
)

func TestStandbysTakeOver(t *testing.T) {
	b := binding(d1, 1, 1) // slot n: s1, s2, s3 in turn, the next one stands by
	b.Users = []User{{netip.MustParseAddr("10.1.0.0"), "s3"}}
	number := func(name string) steer.Owner { return steer.Owner(slices.Index(b.Allocation.Servers, name) + 1) }
	for name, c := range map[string]struct {
		health map[string]Health
		want   [4]steer.Owner // of users with slots 0 (an exception), 1, 2, 3
	}{
		"all well":                   {nil, [4]steer.Owner{3, 2, 3, 1}},
		"s2 silent":                  {map[string]Health{"s2": Silent}, [4]steer.Owner{3, 3, 3, 1}},
		"s2 unwell":                  {map[string]Health{"s2": Unwell}, [4]steer.Owner{3, 3, 3, 1}},
		"s2 and its standby unwell":  {map[string]Health{"s2": Unwell, "s3": Unwell}, [4]steer.Owner{1, 2, 1, 1}},
		"s2 silent, s3 unwell":       {map[string]Health{"s2": Silent, "s3": Unwell}, [4]steer.Owner{1, 3, 1, 1}},
		"s2 and its standby silent":  {map[string]Health{"s2": Silent, "s3": Silent}, [4]steer.Owner{1, 1, 1, 1}},
		"the exception's silent":     {map[string]Health{"s1": Unwell, "s3": Silent}, [4]steer.Owner{2, 2, 1, 2}},
		"all silent: the channel is": {map[string]Health{"s1": Silent, "s2": Silent, "s3": Silent}, [4]steer.Owner{3, 2, 3, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Compile(b)
			if err != nil {
				t.Fatal(err)
			}
			p, _ := s.Plans(func(s string) Health { return c.health[s] }, number)
			for slot, want := range c.want {
				if got := p.Lookup(netip.AddrFrom4([4]byte{10, 1, 0, byte(slot)})); got != want {
					t.Errorf("slot %d: owner %d, want %d", slot, got, want)
				}
			}
			takes := Takes(b, func(s string) Health { return c.health[s] })
			for cell, server := range takes.Cells {
				a := netip.AddrFrom4([4]byte{10, 2, 0, byte(cell)})
				if got, want := number(server), p.Lookup(a); got != want {
					t.Errorf("cell %d: %q takes it, the plan has owner %d", cell, server, want)
				}
			}
			if got := number(takes.Users[0]); got != c.want[0] {
				t.Errorf("exception: %q takes it, want owner %d", takes.Users[0], c.want[0])
			}
		})
	}
}

// Where nobody serves, nobody has any users.
func TestNobodysPlan(t *testing.T) {
	b := binding(d1, 1, 1)
	b.Allocation, b.Nobody = nobody(1), true
	s, err := Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	four, six := s.Plans(func(string) Health { return Available }, func(string) steer.Owner { return 7 })
	for _, user := range []string{"0.0.0.0", "10.1.0.1", "255.255.255.255"} {
		if a := netip.MustParseAddr(user); four.Lookup(a) != 0 || six.Lookup(a) != 0 {
			t.Errorf("%s is owner %d's, of IPv6 %d's", user, four.Lookup(a), six.Lookup(a))
		}
	}
}

// A server without a tree here has no users.
func TestServersWithoutATree(t *testing.T) {
	b := binding(d1, 1, 1)
	s, err := Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := s.Plans(func(string) Health { return Available }, func(name string) steer.Owner {
		if name == "s1" {
			return 0
		}
		return 7
	})
	if a, b := p.Lookup(netip.MustParseAddr("10.1.0.0")), p.Lookup(netip.MustParseAddr("10.1.0.1")); a != 0 || b != 7 {
		t.Errorf("owners %d and %d, want 0 and 7", a, b)
	}
}
