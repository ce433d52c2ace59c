package steering

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/manycast/manycast/internal/steer"
)

func user(text, server string) User { return User{netip.MustParseAddr(text), server} }

// Exceptions alone are steered; those of a server that is silent go by the route like all others.
func TestOnlyUsers(t *testing.T) {
	b := binding(d1, 1, 1)
	b.UsersOnly = true
	b.Users, b.Others = []User{user("10.1.0.0", "s3"), user("10.1.0.1", "s0")}, []Server{{"s0", netip.MustParseAddr("10.3.9.10")}}
	number := func(name string) steer.Owner { return steer.Owner(slices.Index(b.servers(), name) + 1) }
	for name, c := range map[string]struct {
		health map[string]Health
		want   [3]steer.Owner // of 10.1.0.0, 10.1.0.1 and somebody else; 9: by the route
	}{
		"all well":               {nil, [3]steer.Owner{3, 4, 9}},
		"s3 unwell":              {map[string]Health{"s3": Unwell}, [3]steer.Owner{3, 4, 9}},
		"s3 silent":              {map[string]Health{"s3": Silent}, [3]steer.Owner{9, 4, 9}},
		"s0 silent":              {map[string]Health{"s0": Silent}, [3]steer.Owner{3, 9, 9}},
		"all, as the channel is": {map[string]Health{"s1": Silent, "s2": Silent, "s3": Silent}, [3]steer.Owner{3, 4, 9}},
	} {
		four, six, err := OnlyUsers(b, func(s string) Health { return c.health[s] }, number, 9)
		if err != nil {
			t.Fatal(err)
		}
		for i, u := range []string{"10.1.0.0", "10.1.0.1", "10.1.0.2"} {
			if got := four.Lookup(netip.MustParseAddr(u)); got != c.want[i] {
				t.Errorf("%s: %s goes to %d, want %d", name, u, got, c.want[i])
			}
			if got := six.Lookup(netip.MustParseAddr(u)); got != 9 {
				t.Errorf("%s: a user of IPv6 with that stand-in goes to %d", name, got)
			}
		}
	}
}

// Other exceptions of the same allocation are steered as if all had been compiled for them.
func TestOtherExceptions(t *testing.T) {
	b := binding(d1, 1, 1)
	b.Users = []User{user("10.1.0.0", "s3")}
	first, err := Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	for name, users := range map[string][]User{
		"others": {user("10.1.0.1", "s1"), user("10.1.0.2", "s2")}, "none": nil, "more": {user("10.1.0.0", "s2"), user("10.1.0.5", "s0")},
	} {
		next := b
		next.Users, next.Others = users, []Server{{"s0", netip.MustParseAddr("10.3.9.10")}}
		if !next.Compiled(b) {
			t.Errorf("%s: it is another allocation", name)
		}
		got, err := first.WithUsers(next)
		if err != nil {
			t.Fatal(err)
		}
		anew, err := Compile(next)
		if err != nil {
			t.Fatal(err)
		}
		number := func(name string) steer.Owner { return steer.Owner(slices.Index(next.servers(), name) + 1) }
		well := func(string) Health { return Available }
		p, _ := got.Plans(well, number)
		q, _ := anew.Plans(well, number)
		for slot := range 16 {
			if a := netip.AddrFrom4([4]byte{10, 1, 0, byte(slot)}); p.Lookup(a) != q.Lookup(a) {
				t.Errorf("%s: %v goes to %d, want %d", name, a, p.Lookup(a), q.Lookup(a))
			}
		}
	}
	if binding(d1, 2, 2).Compiled(b) {
		t.Error("another epoch's is taken")
	}
}

// Of everybody's exceptions in one epoch the newest count, as directors hear of them one after the other. What is said of exceptions alone can
// say nothing of all others.
func TestExceptionsContradictNobody(t *testing.T) {
	b := book()
	one, two := binding(d1, 1, 1), binding(d2, 2, 1)
	two.Users, two.UsersOnly = []User{user("10.1.0.0", "s3")}, true
	for _, n := range []Binding{one, two} {
		if _, err := b.Put(start, n.Voucher, n); err != nil {
			t.Fatal(err)
		}
	}
	if used := b.services["web"].used; len(used.Users) != 1 || used.All {
		t.Errorf("steers by %+v", used)
	}
	for name, change := range map[string]func(*Binding){
		"reactive":            func(n *Binding) { n.Reactive = true },
		"nobody":              func(n *Binding) { n.Allocation, n.Nobody, n.Users = nobody(2), true, nil },
		"a server twice":      func(n *Binding) { n.Others = []Server{{"s1", netip.MustParseAddr("10.3.9.10")}} },
		"a server nowhere":    func(n *Binding) { n.Others = []Server{{"s0", netip.MustParseAddr("127.0.0.1")}} },
		"a user of no server": func(n *Binding) { n.Users = []User{user("10.1.0.0", "s0")} },
		"split":               func(n *Binding) { n.Split = steer.Split{netip.MustParsePrefix("203.0.113.7/32")} },
	} {
		n := two
		n.Sequence = 3
		change(&n)
		if _, err := b.Put(start, d2, n); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
