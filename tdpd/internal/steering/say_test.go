package steering

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

// Several directors say the same at their router: that is one word, which holds for longer each time. Who is behind is not heard.
func TestSay(t *testing.T) {
	b, now := book(), start
	say := func(when string, n Binding, want string, wantErr error) {
		t.Helper()
		now = now.Add(10 * time.Second)
		actions, err := b.Say(now, n)
		if got := told(actions); got != want || !errors.Is(err, wantErr) {
			t.Errorf("%s: %q, %v; want %q, %v", when, got, err, want, wantErr)
		}
	}
	one, two := binding(Router{}, 0, 1), binding(Router{}, 0, 2)
	say("withdrawn before it is said", Binding{Service: "web"}, "", nil)
	say("said", one, "steer 1.1 of 10.0.0.1, tell 1.1", nil)
	say("by another, too", one, "tell 1.1 again", nil)
	say("the next", two, "steer 1.2 of 10.0.0.1, tell 1.2", nil)
	say("by who is behind", one, "", ErrStale)
	for range 10 {
		say("again", two, "tell 1.2 again", nil)
	}
	say("withdrawn", Binding{Service: "web"}, "stop, withdraw", nil)
	say("anew", one, "steer 1.1 of 10.0.0.1, tell 1.1", nil)
	now = now.Add(-time.Hour)
	say("while the clock is behind", two, "steer 1.2 of 10.0.0.1, tell 1.2", nil)
}

// A director that begins to speak says which services there are: what a process before it said of others is over.
func TestOnly(t *testing.T) {
	b := book()
	other := binding(Router{}, 0, 1)
	other.Service, other.VIPs = "api", []netip.Addr{netip.MustParseAddr("192.0.2.81")}
	for _, n := range []Binding{binding(Router{}, 0, 1), other} {
		if _, err := b.Say(start, n); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Put(start, d1, func() Binding {
		n := binding(d1, 1, 1)
		n.Service, n.VIPs = "far", []netip.Addr{netip.MustParseAddr("192.0.2.82")}
		return n
	}()); err != nil {
		t.Fatal(err)
	}
	if got := told(b.Only(start, []string{"web", "new"})); got != "stop, withdraw" {
		t.Errorf("%q", got)
	}
	if got := told(b.Only(start, []string{"web"})); got != "" {
		t.Errorf("again: %q", got)
	}
}
