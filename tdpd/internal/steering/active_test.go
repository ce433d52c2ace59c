package steering

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// Who is told again stays; the time of the others ends, and where there is no room who was told first goes.
func TestActive(t *testing.T) {
	a, now := NewActive(3, time.Minute), start
	user := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 0, n}) }
	check := func(when, four, six string) {
		t.Helper()
		for family, want := range map[bool]string{false: four, true: six} {
			got := a.Users(family)
			slices.SortFunc(got, netip.Addr.Compare)
			if fmt.Sprint(got) != want {
				t.Errorf("%s: %v, want %s", when, got, want)
			}
		}
	}
	pass := func(d time.Duration, want bool) {
		t.Helper()
		if now = now.Add(d); a.Expire(now) != want {
			t.Errorf("after %v: some are over: %v", now.Sub(start), !want)
		}
	}
	if !a.Next().IsZero() || a.Expire(now) {
		t.Error("nobody is active, and yet there is something to do")
	}
	if !a.Add(now, user(1), false) || !a.Add(now, user(1), true) || a.Add(now, user(1), false) {
		t.Error("a user of each family is new once")
	}
	pass(30*time.Second, false)
	a.Add(now, user(2), false)
	a.Add(now, user(1), false)
	check("told", "[10.1.0.1 10.1.0.2]", "[10.1.0.1]")
	if next := a.Next(); next != start.Add(time.Minute) {
		t.Errorf("the next goes at %v", next)
	}
	pass(30*time.Second-1, false)
	pass(1, true)
	check("the first minute is over", "[10.1.0.1 10.1.0.2]", "[]")
	a.Add(now, user(3), false)
	a.Add(now, user(4), false)
	check("no room", "[10.1.0.1 10.1.0.3 10.1.0.4]", "[]")
	pass(time.Hour, true)
	check("all are over", "[]", "[]")
	if a.Len() != 0 {
		t.Errorf("%d left", a.Len())
	}
}
