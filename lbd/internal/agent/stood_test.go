package agent

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

// TestStandbyKeepsWhatItTook: the owner is back, and sends on what it does not know.
func TestStandbyKeepsWhatItTook(t *testing.T) {
	for _, isKept := range []bool{true, false} {
		a := withStandbys(allocation(1, s3, s2), s2, s1)
		c := listening(t, a)
		if isKept {
			c.SetServices(start, []service.Service{breaking()})
		}
		turns(c, start, "s3", control.Silent, "")
		back := turns(c, start.Add(time.Second), "s3", control.Available, "")
		for _, action := range c.Tick(start.Add(time.Second + settle)) {
			if d, is := action.(Close); is && d.Lost(netip.AddrPortFrom(even, 1)) == isKept {
				t.Errorf("kept: %t; connections end: %t", isKept, !isKept)
			}
		}
		if !isKept {
			continue
		}
		s := c.serving()[0]
		users := slices.Values([]netip.AddrPort{netip.AddrPortFrom(even, 1), netip.AddrPortFrom(odd, 1)})
		if k := s.Kept(start.Add(2*time.Second), users); !s.MayKeep || k != (alloc.Kept{Epoch: a.Epoch, Connections: 1, Since: a.Epoch, Stood: true}) {
			t.Errorf("says %+v, may keep: %t", k, s.MayKeep)
		}
		if anyhow, idle := ends(c, start.Add(time.Minute+time.Second-1), even); anyhow+idle > 0 {
			t.Error("they end before their break point")
		}
		if _, idle := ends(c, start.Add(time.Minute+time.Second), even); idle != 1 {
			t.Errorf("%d closings at their break point", idle)
		}
		if next, _ := restart(start.Add(2*time.Second), breaking(), keptBy(t, back)); len(next.losses["web"]) != 1 {
			t.Errorf("the next agent knows of %+v", next.losses)
		}
	}
}

// TestStandbyWithoutAChannelKeepsNothing: it never stands in.
func TestStandbyWithoutAChannelKeepsNothing(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{keeping(service.Multicast)})
	c.Committed(start, "web", withStandbys(allocation(1, s3, s2), s2, s1))
	if c.holds(c.specs["web"], c.held["web"], 0) || c.serving()[0].MayKeep {
		t.Error("keeps connections")
	}
}

// TestOwnerSendsOnToWhoStoodIn: for a while after it was out, and as long as a standby says that it holds something.
func TestOwnerSendsOnToWhoStoodIn(t *testing.T) {
	a := withStandbys(allocation(4, s2, s1), s3, s2)
	c := listening(t, a)
	c.SetServices(start, []service.Service{keeping(service.Multicast)})
	hops := func() []dataplane.Hop { return chainOf(t, c.apply().Accept[0], even).Hops }
	says := func(now time.Time, h control.Health, k *alloc.Kept) []Action {
		m := control.Member{Name: "s3", Health: h, Boot: 1}
		if k != nil {
			m.Loads = map[string]alloc.Load{"web": {Kept: k}}
		}
		return c.Heard(now, []control.Member{m})
	}
	want := []dataplane.Hop{{Address: a.Addresses[s3], Until: until(alloc.Hop{Server: "s3", Until: a.Epoch}, "s2")}}
	says(start, control.Available, &alloc.Kept{Epoch: a.Epoch})
	if got := hops(); len(got) > 0 {
		t.Errorf("it was never out: %+v", got)
	}

	c.SetHealthy(start, false)
	c.SetHealthy(start, true)
	now := start.Add(settle)
	c.Tick(now)
	if got := hops(); !slices.Equal(got, want) {
		t.Errorf("it is back: %+v, want %+v", got, want)
	}
	if got := chainOf(t, c.apply().Accept[0], odd); len(got.Hops) > 0 {
		t.Errorf("s1's users: %+v", got)
	}
	if peers := c.peers(); !slices.Contains(peers, a.Addresses[s3]) {
		t.Errorf("peers: %v", peers)
	}
	if at := c.Next(); at.After(now.Add(stoodSaid)) {
		t.Errorf("looks again at %v", at)
	}
	now = now.Add(stoodSaid)
	if applied(t, c.Tick(now)); len(hops()) > 0 {
		t.Errorf("s3 has said nothing of it: %+v", hops())
	}

	stood := &alloc.Kept{Epoch: a.Epoch, Connections: 2, Since: a.Epoch, Stood: true}
	if applied(t, says(now, control.Available, stood)); !slices.Equal(hops(), want) {
		t.Errorf("s3 says that it stood in: %+v, want %+v", hops(), want)
	}
	if again := says(now, control.Available, stood); len(again) > 0 {
		t.Errorf("no news: %+v", again)
	}
	if applied(t, says(now, control.Silent, nil)); len(hops()) > 0 {
		t.Errorf("s3 is dead: %+v", hops())
	}
	applied(t, says(now.Add(recovery), control.Available, stood))
	if applied(t, says(now.Add(recovery), control.Available, &alloc.Kept{Epoch: a.Epoch})); len(hops()) > 0 {
		t.Errorf("s3 holds nothing any more: %+v", hops())
	}
}
