package bfd

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestWatch(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.1.2"), netip.MustParseAddr("2001:db8:1::2")
	const hold = 9 * time.Second
	type step struct {
		after time.Duration
		a     State // 0: the keeper knows nothing of it
		out   bool
	}
	for name, steps := range map[string][]step{
		"never up":                   {{0, Down, false}, {time.Second, Failed, false}, {time.Hour, Failed, false}},
		"fails and is back":          {{0, Down, false}, {time.Second, Up, false}, {time.Second, Failed, true}, {hold - 1, Failed, true}, {0, Up, false}},
		"fails again":                {{0, Up, false}, {1, Failed, true}, {1, Up, false}, {1, Failed, true}},
		"is back without BFD":        {{0, Up, false}, {1, Failed, true}, {hold, Failed, false}, {time.Hour, Failed, false}, {0, Up, false}, {0, Failed, true}},
		"ends BFD on purpose":        {{0, Up, false}, {time.Second, Down, false}, {time.Second, Failed, false}},
		"the keeper is gone":         {{0, Up, false}, {time.Second, 0, false}, {time.Second, Failed, false}, {time.Second, Up, false}, {1, Failed, true}},
		"the keeper goes after that": {{0, Up, false}, {time.Second, Failed, true}, {time.Second, 0, true}, {hold, 0, false}},
	} {
		t.Run(name, func(t *testing.T) {
			w := NewWatch(map[netip.Addr]time.Duration{a: hold, b: hold})
			now, was := time.Unix(1, 0), false
			for i, s := range steps {
				now = now.Add(s.after)
				states := map[netip.Addr]State{b: Up, netip.MustParseAddr("10.9.9.9"): Failed}
				if s.a != 0 {
					states[a] = s.a
				}
				changed := w.Take(now, states)
				if got := slices.Equal(w.Out(), []netip.Addr{a}); got != s.out || !got && len(w.Out()) > 0 {
					t.Fatalf("step %d: out are %v", i, w.Out())
				}
				if changed != (s.out != was) {
					t.Errorf("step %d: changed is %v", i, changed)
				}
				was = s.out
			}
		})
	}
}
