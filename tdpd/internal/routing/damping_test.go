package routing

import (
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// TestFlapsAreDamped: a VIP whose service is reached and not, 30 times, while sessions flap, too, is withdrawn once and stays out for the longest time, and no longer.
// Sessions' flaps count for none. When all is forgotten it is out for the shortest time again.
func TestFlapsAreDamped(t *testing.T) {
	const flaps, first, most, forget = 30, 10 * time.Second, time.Minute, 5 * time.Minute
	inBubble(t, func(r *rig) {
		status := func() announcing.Progress {
			s, err := r.loop.Status(r.Context())
			if err != nil {
				r.Fatal(err)
			}
			return s.Announcing
		}
		flap := func() {
			r.loop.Say(view(announcing.NoTree, nil))
			r.pass(500 * time.Millisecond)
			r.loop.Say(view(announcing.Reached, nil))
			r.pass(500 * time.Millisecond)
			r.want("10.0.0.11/32@1011")
		}
		r.loop.Say(view(announcing.Reached, nil))
		r.pass(5 * time.Second)
		r.want("198.51.100.1/32 10.0.0.11/32@1011")
		for range flaps {
			r.speaker.events <- []bgp.Event{{Neighbor: &bgp.NeighborEvent{Address: neighbor, State: bgp.Idle}}}
			flap()
			r.speaker.events <- []bgp.Event{{Neighbor: &bgp.NeighborEvent{Address: neighbor, State: bgp.Established}}}
			r.pass(500 * time.Millisecond)
		}
		p := status()
		if c := p.Counts; c.Announced != 1 || c.Withdrawn != 1 || c.Damped != flaps || len(p.VIPs) != 1 || p.VIPs[0].Flaps != flaps {
			t.Errorf("%+v", p)
		}
		last := time.Until(p.VIPs[0].Damped)
		if last <= most-2*time.Second || last > most {
			t.Errorf("it is out for %v more, want %v and not much less", last, most)
		}
		r.pass(last - time.Millisecond)
		r.want("10.0.0.11/32@1011")
		r.pass(time.Millisecond)
		r.want("198.51.100.1/32 10.0.0.11/32@1011")
		r.pass(flaps * forget)
		flap()
		r.pass(first)
		r.want("198.51.100.1/32 10.0.0.11/32@1011")
		if c := status().Counts; c.Announced != 3 || c.Withdrawn != 2 || c.Damped != flaps+1 {
			t.Errorf("%+v", c)
		}
	}, func(o *Options) { o.Announcing.Flaps = announcing.Flaps{First: first, Max: most, Forget: forget} })
}
