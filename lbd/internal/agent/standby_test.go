package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/service"
)

const silence = 250 * time.Millisecond

// withStandbys adds standbys to an allocation.
func withStandbys(a alloc.Allocation, even, odd uint16) alloc.Allocation {
	a.Standby = []uint16{even, odd}
	return a
}

// listening is the core of s2 (10.3.2.0/24), on a channel with all others available and a router. s1 is on another link, s3 on
// this one.
func listening(t *testing.T, a alloc.Allocation) *Core {
	t.Helper()
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.Channel(silence, true)
	c.SetServices(start, []service.Service{web})
	c.SetHealthy(start, true)
	for _, name := range []string{"s1", "s3", "r1"} {
		c.Heard(start, []control.Member{{Name: name, Health: control.Available}})
	}
	c.Committed(start, "web", a)
	return c
}

// turns tells the core that a member's health is another one now.
func turns(c *Core, now time.Time, name string, h control.Health, why string) []Action {
	return c.Heard(now, []control.Member{{Name: name, Health: h, Why: why}})
}

// takes is what the core would have the data plane take.
func takes(c *Core) string {
	accept := c.apply().Accept[0].Accept
	out := ""
	if accept.Contains(even) {
		out += "even "
	}
	if accept.Contains(odd) {
		out += "odd"
	}
	return out
}

func TestStandbyOfAnotherLinkIsTakenAtAnyTime(t *testing.T) {
	c := listening(t, withStandbys(allocation(1, s1, s2), s2, s3))
	if got := takes(c); got != "even odd" {
		t.Errorf("takes %q, want even ones, too: only a router can have brought them", got)
	}
	if got := c.apply().Accept[0].InStead; !got.Empty() {
		t.Errorf("takes %v in the stead of a neighbour", got)
	}
	c = newS2(t)
	c.Committed(start, "web", withStandbys(allocation(2, s1, s2), s2, s3))
	c.Tick(start.Add(settle))
	if got := takes(c); got != "odd" {
		t.Errorf("without a channel: takes %q, want its own", got)
	}
}

func TestStandbyOfItsOwnLinkWaitsForSilence(t *testing.T) {
	for name, h := range map[string]control.Member{
		"silent": {Health: control.Silent}, "fenced": {Health: control.Unwell, Why: control.Fenced},
	} {
		t.Run(name, func(t *testing.T) {
			c := listening(t, withStandbys(allocation(1, s3, s2), s2, s1))
			if got := takes(c); got != "odd" {
				t.Fatalf("takes %q, want its own: s3 takes the others", got)
			}
			gone := applied(t, turns(c, start, "s3", h.Health, h.Why)).Accept[0]
			if got := gone.Accept; !got.Contains(even) || !got.Contains(odd) {
				t.Errorf("takes %v, want all", got)
			}
			if got := gone.InStead; !got.Contains(even) || got.Contains(odd) {
				t.Errorf("takes %v in s3's stead, want even ones", got)
			}
			back := turns(c, start.Add(time.Second), "s3", control.Available, "")
			if got := accepted(t, back); got.Contains(even) || !got.Contains(odd) {
				t.Errorf("takes %v, want its own: s3 is back", got)
			}
			late := c.Tick(start.Add(time.Second + settle))
			if closes(late) != 1 {
				t.Fatalf("%+v, want the connections closed of those who go back", late)
			}
			for _, a := range late {
				d, ok := a.(Close)
				if ok && (!d.Lost(netip.AddrPortFrom(even, 4711)) || d.Lost(netip.AddrPortFrom(odd, 4711))) {
					t.Error("closes the wrong connections")
				}
				if ok && len(c.Closed(d.Service, d.Epoch, 1)) != 0 {
					t.Error("says Done for a move that never was")
				}
			}
		})
	}
}

func TestUnknownAndDeafOwnersAreLeftAlone(t *testing.T) {
	c := listening(t, withStandbys(allocation(1, s3, s2), s2, s1))
	turns(c, start, "s3", control.Unknown, "")
	if got := takes(c); got != "odd" {
		t.Errorf("unknown: takes %q, want its own", got)
	}
	turns(c, start, "s3", control.Unwell, control.Deaf)
	if got := takes(c); got != "odd" {
		t.Errorf("deaf: takes %q, want its own: s3 serves still, on the same link", got)
	}
}

// TestWhoIsCutOffTakesNothing: others fall silent one after the other, and it is this server that hears nobody.
func TestWhoIsCutOffTakesNothing(t *testing.T) {
	c := listening(t, withStandbys(allocation(1, s3, s2), s2, s1))
	now := start
	for _, name := range []string{"s3", "s1", "r1"} {
		now = now.Add(10 * time.Millisecond)
		turns(c, now, name, control.Silent, "")
	}
	if got := takes(c); got != "odd" {
		t.Errorf("takes %q, want its own", got)
	}
	for _, a := range c.Tick(now.Add(time.Second)) {
		if _, ok := a.(Takeover); ok {
			t.Error("tells a takeover that it did not keep")
		}
	}
}

// TestSilenceOfADeafServerCountsLater: whoever hears again does not hear all at once.
func TestSilenceOfADeafServerCountsLater(t *testing.T) {
	c := listening(t, withStandbys(allocation(1, s3, s2), s2, s1))
	for _, name := range []string{"s3", "s1", "r1"} {
		turns(c, start, name, control.Silent, "")
	}
	c.Tick(start.Add(settle)) // connections of those who were taken for a moment
	now := start.Add(time.Minute)
	turns(c, now, "r1", control.Available, "")
	if got := takes(c); got != "odd" {
		t.Errorf("takes %q, want its own: s3 had no time to be heard again", got)
	}
	now = now.Add(recovery)
	if due := c.Next(); !due.Equal(now) {
		t.Fatalf("next at %v, want %v", due, now)
	}
	if got := accepted(t, c.Tick(now)); !got.Contains(even) {
		t.Errorf("takes %v, want all: s3 is silent still", got)
	}
	if due := c.Next(); !due.Equal(now.Add(silence / 4)) {
		t.Errorf("next at %v, want the takeover told", due)
	}
}

func TestTakeoverIsToldWhileItLasts(t *testing.T) {
	c := listening(t, withStandbys(allocation(1, s3, s2), s2, s1))
	turns(c, start, "s3", control.Silent, "")
	due := c.Next()
	if want := start.Add(silence / 4); !due.Equal(want) {
		t.Fatalf("next at %v, want %v", due, want)
	}
	told, end := 0, start.Add(time.Minute)
	for now := due; now.Before(end); now = c.Next() {
		for _, a := range c.Tick(now) {
			if a, ok := a.(Takeover); ok {
				if a.From != "s3" || a.Service != "web" || a.Epoch.Number != 1 || a.First != (told == 0) {
					t.Errorf("tells %+v", a)
				}
				told++
			}
		}
	}
	if told < 5 || told > 15 {
		t.Errorf("told %d times in a minute, want often at first and then each ten seconds", told)
	}
	turns(c, end, "s3", control.Available, "")
	for _, a := range c.Tick(end.Add(time.Minute)) {
		if _, ok := a.(Takeover); ok {
			t.Error("told when it is over")
		}
	}
}

func TestShortSilenceIsNoTakeover(t *testing.T) {
	c := listening(t, withStandbys(allocation(1, s3, s2), s2, s1))
	turns(c, start, "s3", control.Silent, "")
	turns(c, start.Add(50*time.Millisecond), "s3", control.Available, "")
	for _, a := range c.Tick(start.Add(time.Second)) {
		if _, ok := a.(Takeover); ok {
			t.Error("tells that it has taken over from one that is back")
		}
	}
}

// TestEpochThatTidiesUpIsSeamless: the standby that serves already becomes the owner, and waits for no dead loser.
func TestEpochThatTidiesUpIsSeamless(t *testing.T) {
	before, after := withStandbys(allocation(1, s3, s2), s2, s1), withStandbys(allocation(2, s2, s2), s1, s1)
	c := listening(t, before)
	turns(c, start, "s3", control.Silent, "")
	c.Announced(start, "web", after, before)
	if got := accepted(t, c.Committed(start, "web", after)); !got.Contains(even) || !got.Contains(odd) {
		t.Errorf("takes %v, want all without a gap", got)
	}
}

// TestEpochThatGivesThemToAThird: the standby is the loser then.
func TestEpochThatGivesThemToAThird(t *testing.T) {
	before, after := withStandbys(allocation(1, s3, s2), s2, s1), withStandbys(allocation(2, s1, s2), s2, s1)
	c := listening(t, before)
	turns(c, start, "s3", control.Silent, "")
	a := applied(t, c.Committed(start, "web", after))
	if len(a.Ceased) != 1 {
		t.Errorf("tells %+v, want that it has ceased", a.Ceased)
	}
	if closes(c.Tick(start.Add(settle))) != 1 {
		t.Error("the connections are not closed of users who went to s1")
	}

	// The winner's side, on one link: s2 wins what s3 served in the stead of s1, which is there too by its address.
	near := withStandbys(allocation(1, s1, s2), s3, s1)
	near.Addresses[0] = netip.MustParseAddr("10.3.2.10")
	c = listening(t, near)
	turns(c, start, "s1", control.Silent, "")
	won := withStandbys(allocation(2, s2, s2), s3, s3)
	c.Announced(start, "web", won, near)
	if early := c.Committed(start, "web", won); early != nil {
		t.Errorf("%+v, though s3 serves them", early)
	}
	if got := accepted(t, c.CeasedBy("web", won.Epoch, "s3")); !got.Contains(even) {
		t.Errorf("takes %v, want all", got)
	}
}

// TestStandbyLeavesTheUsersOfANeighbourToBe: s3 is about to get the users of s1, which is elsewhere, on this link: their packets come by here when
// the routers have switched, perhaps before this server has.
func TestStandbyLeavesTheUsersOfANeighbourToBe(t *testing.T) {
	before, after := withStandbys(allocation(1, s1, s2), s2, s1), withStandbys(allocation(2, s3, s2), s2, s1)
	c := listening(t, before)
	actions := c.Announced(start, "web", after, before)
	if got := accepted(t, actions); got.Contains(even) || !got.Contains(odd) {
		t.Errorf("announced: takes %v, want odd users alone", got)
	}
	if _, last := actions[len(actions)-1].(Send); !last {
		t.Errorf("says that it is prepared before it is: %+v", actions)
	}
	if c.Tick(start.Add(expectFor - time.Millisecond)); takes(c) != "odd" {
		t.Errorf("takes %q within the time", takes(c))
	}
	if c.Tick(start.Add(expectFor)); takes(c) != "even odd" {
		t.Errorf("nothing was committed: takes %q", takes(c))
	}

	c = listening(t, before)
	turns(c, start, "s1", control.Silent, "")
	c.Announced(start, "web", after, before)
	if takes(c) != "even odd" {
		t.Errorf("s1 is silent: takes %q, want all until s3 does", takes(c))
	}

	c = listening(t, before)
	c.Announced(start, "web", withStandbys(allocation(2, s2, s2), s1, s1), before)
	if takes(c) != "even odd" {
		t.Errorf("its own users to be: takes %q", takes(c))
	}
}

// TestStandbyOfPinnedUsersWaits: their packets come here by pins, too, and what opens a connection is their owner's.
func TestStandbyOfPinnedUsersWaits(t *testing.T) {
	c := listening(t, withStandbys(allocation(1, s1, s2), s2, s1))
	s := web
	s.Handover.Strategies = []service.Strategy{service.Pin}
	c.SetServices(start, []service.Service{s})
	if takes(c) != "odd" {
		t.Errorf("takes %q, want odd users alone", takes(c))
	}
	if turns(c, start, "s1", control.Silent, ""); takes(c) != "even odd" {
		t.Errorf("s1 is silent: takes %q, want all", takes(c))
	}
}

// TestStandbyWaitsForLateRouters: s3 has lost users to s1, which is elsewhere, and takes what routers still bring by this link.
func TestStandbyWaitsForLateRouters(t *testing.T) {
	before, after := withStandbys(allocation(1, s3, s2), s1, s1), withStandbys(allocation(2, s1, s2), s2, s1)
	c := listening(t, before)
	c.Committed(start, "web", after)
	if takes(c) != "odd" {
		t.Errorf("at the commit: takes %q, want odd users alone", takes(c))
	}
	if c.Tick(start.Add(runOn - time.Millisecond)); takes(c) != "odd" {
		t.Errorf("while routers may be late: takes %q, want odd users alone", takes(c))
	}
	if at := c.Next(); !at.Equal(start.Add(runOn)) {
		t.Errorf("looks again at %v", at)
	}
	if applied(t, c.Tick(start.Add(runOn))); takes(c) != "even odd" {
		t.Errorf("routers have switched: takes %q, want all: only s1's silence can have brought them", takes(c))
	}

	c = listening(t, before)
	c.Committed(start, "web", after)
	if turns(c, start.Add(settle), "s1", control.Silent, ""); takes(c) != "even odd" {
		t.Errorf("s1 has fallen silent: takes %q, want all at once", takes(c))
	}

	c = listening(t, before)
	turns(c, start, "s1", control.Silent, "")
	c.Committed(start, "web", after)
	if takes(c) != "even odd" {
		t.Errorf("s1 is silent: takes %q, want all at once", takes(c))
	}
}

// TestStandbyWaitsForLateRoutersOfTheEpochBefore: another epoch follows, or is announced, while routers may yet be late for the one before it.
func TestStandbyWaitsForLateRoutersOfTheEpochBefore(t *testing.T) {
	first, second, third := withStandbys(allocation(1, s3, s2), s1, s1), withStandbys(allocation(2, s1, s2), s2, s1), withStandbys(allocation(3, s1, s2), s2, s3)
	c := listening(t, first)
	c.Committed(start, "web", second)
	if c.Announced(start.Add(runOn/4), "web", third, second); takes(c) != "odd" {
		t.Errorf("announced: takes %q, want odd users alone: s3 may yet have even ones", takes(c))
	}
	if c.Committed(start.Add(runOn/2), "web", third); takes(c) != "odd" {
		t.Errorf("at the third: takes %q, want odd users alone: s3 may yet have even ones", takes(c))
	}
	if at := c.Next(); !at.Equal(start.Add(runOn)) {
		t.Errorf("looks again at %v", at)
	}
	if applied(t, c.Tick(start.Add(runOn))); takes(c) != "even odd" {
		t.Errorf("routers have switched: takes %q, want all", takes(c))
	}
	c.Tick(start.Add(runOn + runOn/2))
	if at := c.Next(); !at.IsZero() {
		t.Errorf("looks again at %v, for nothing", at)
	}
	for i := range uint64(100) {
		c.Committed(start.Add(3*runOn), "web", withStandbys(allocation(4+i, s1, s2), s2, s3))
	}
	if n := len(c.fresh["web"].late); n != lateMost {
		t.Errorf("%d allocations at once: %d are kept, want %d", 100, n, lateMost)
	}
}
