package alloc

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestJoinsOfFewServersWithManySlots counts what sets have, and what CheckJoins says of it.
func TestJoinsOfFewServersWithManySlots(t *testing.T) {
	const most = 16384
	for _, test := range []struct {
		slots   Slots
		servers int
		fits    bool
		advice  string
	}{
		{Slots{Suffix, 16}, 1, true, ""},
		{Slots{Suffix, 16}, 2, true, ""}, // every second slot: one portion each
		{Slots{Suffix, 16}, 3, false, "suffix/14"},
		{Slots{Suffix, 16}, 5, false, "suffix/15"},
		{Slots{Suffix, 16}, 10, true, ""},
		{Slots{Prefix, 16}, 3, false, "prefix/14"},
		{Slots{Suffix, 14}, 3, true, ""},
		{Slots{Suffix, 8}, 3, true, ""},
	} {
		a, _ := next(t, Allocation{}, Want{Slots: test.slots, Servers: pool(ones(test.servers)...)})
		counted := true
		for i, name := range a.Servers {
			own, standby := a.Users(name), a.StandbyUsers(name)
			n := len(own.Permit) + len(own.Deny) + len(standby.Permit) + len(standby.Deny)
			counted = counted && n <= most
			if bound := a.mostPortions()[i]; n > bound {
				t.Errorf("%v, %d servers: %s has %d portions, at most %d were thought possible", test.slots, test.servers, name, n, bound)
			}
		}
		err := a.CheckJoins(most)
		if counted != test.fits || (err == nil) != test.fits || err != nil && (!errors.Is(err, ErrLarge) || !strings.Contains(err.Error(), "have slots: "+test.advice+",")) {
			t.Errorf("%v, %d servers: %v, want fit %v, %q", test.slots, test.servers, err, test.fits, test.advice)
		}
	}
	// Small pools whose servers have fixed portions besides.
	a, _ := next(t, Allocation{}, Want{Servers: pool(1, 1, 1), Fixed: fixed("s1", "s2", "10.0.0.0/8", "11.0.0.0/8")})
	if err := a.CheckJoins(20); !errors.Is(err, ErrLarge) || !strings.Contains(err.Error(), "with 256 slots s1 needs ") {
		t.Error(err)
	}
}

func ones(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = 1
	}
	return out
}

func TestPoolsThatAreTooSmall(t *testing.T) {
	for bits, want := range map[int]string{8: "", 14: "", 15: "one of 3 servers needs", 16: "one of 6 servers needs"} {
		err := CheckPools(Slots{Suffix, bits}, 16384)
		if (err == nil) != (want == "") || err != nil && (!errors.Is(err, ErrLarge) || !strings.Contains(err.Error(), want)) {
			t.Errorf("suffix/%d: %v, want %q", bits, err, want)
		}
	}
}

// BenchmarkCheckJoins is the worst case: few servers, the most slots.
func BenchmarkCheckJoins(b *testing.B) {
	for _, n := range []int{5, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a, _, err := Next(Allocation{}, Want{Slots: Slots{Suffix, 16}, Servers: pool(ones(n)...)})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := a.CheckJoins(16384); (err == nil) != (n > 5) {
					b.Fatal(err)
				}
			}
		})
	}
}
