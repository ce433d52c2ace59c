package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
)

var (
	start = time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)
	web   = service.Service{
		Name: "web", VIP: netip.MustParseAddr("192.0.2.80"), Group: netip.MustParseAddr("239.80.80.80"),
		Ports: []service.Port{{Proto: "tcp", Number: 80}}, Mode: "multicast", Policy: "equal",
		Slots: alloc.Slots{By: alloc.Suffix, Bits: 1}, Handover: service.DefaultHandover(),
	}
	even = netip.MustParseAddr("10.1.0.2")
	odd  = netip.MustParseAddr("10.1.0.3")
)

const settle = 100 * time.Millisecond

// allocation gives even users to one server and odd users to another; s1 is at 10.3.1.10, s2 and s3 are on 10.3.2.0/24.
func allocation(number uint64, evenOwner, oddOwner uint16) alloc.Allocation {
	return alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: number}, Slots: web.Slots, Servers: []string{"s1", "s2", "s3"},
		Owner: []uint16{evenOwner, oddOwner}, Standby: []uint16{alloc.None, alloc.None},
		Addresses: []netip.Addr{netip.MustParseAddr("10.3.1.10"), netip.MustParseAddr("10.3.2.20"), netip.MustParseAddr("10.3.2.30")},
	}
}

const (
	s1 = iota
	s2
	s3
)

// newS2 is the core of s2, which has all users at epoch 1.1.
func newS2(t *testing.T) *Core {
	t.Helper()
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{web})
	c.Committed(start, "web", allocation(1, s2, s2))
	return c
}

func applied(t *testing.T, actions []Action) Apply {
	t.Helper()
	for _, a := range actions {
		if a, ok := a.(Apply); ok {
			return a
		}
	}
	t.Fatalf("nothing applied: %+v", actions)
	return Apply{}
}

func closes(actions []Action) (n int) {
	for _, a := range actions {
		if _, ok := a.(Close); ok {
			n++
		}
	}
	return n
}

func TestLoserTakesUsersOfAnotherLinkUntilRoutersHaveSwitched(t *testing.T) {
	c := newS2(t)
	a := applied(t, c.Committed(start, "web", allocation(2, s2, s1)))
	if accept := a.Accept[0].Accept; !accept.Contains(even) || !accept.Contains(odd) {
		t.Errorf("at the commit: accepts %v, want all: routers bring odd users here or to s1's link, not to both", accept)
	}
	if own := a.Join[0].Owner; !own.Contains(even) || own.Contains(odd) {
		t.Errorf("joins for %v, want even users", own)
	}
	if early := c.Tick(start.Add(settle - time.Millisecond)); len(early) != 0 {
		t.Errorf("before settle: %+v", early)
	}
	late := c.Tick(start.Add(settle))
	if accept := applied(t, late).Accept[0].Accept; !accept.Contains(even) || accept.Contains(odd) {
		t.Errorf("after settle: accepts %v, want even users", accept)
	}
	if _, first := late[0].(Apply); !first || closes(late) != 1 {
		t.Errorf("after settle: %+v, want to cease, then to close", late)
	}
}

func TestLoserOnTheWinnersLinkCeasesAtOnce(t *testing.T) {
	c := newS2(t)
	a := applied(t, c.Committed(start, "web", allocation(2, s2, s3)))
	if accept := a.Accept[0].Accept; !accept.Contains(even) || accept.Contains(odd) {
		t.Errorf("accepts %v, want even users: s3 sees the packets of odd ones, too", accept)
	}
}

func TestUnknownAddressIsTakenForANeighbours(t *testing.T) {
	c := newS2(t)
	next := allocation(2, s2, s1)
	next.Addresses = nil
	if accept := applied(t, c.Committed(start, "web", next)).Accept[0].Accept; accept.Contains(odd) {
		t.Errorf("accepts %v, want even users", accept)
	}
}

func TestServerWithoutUsersStaysAMember(t *testing.T) {
	c := newS2(t)
	a := applied(t, c.Committed(start, "web", allocation(2, s1, s1)))
	if len(a.Join) != 1 || a.Join[0].Epoch.Number != 2 || !a.Join[0].Owner.Empty() {
		t.Errorf("at the commit: joins %+v, want nobody at epoch 1.2", a.Join)
	}
	after := applied(t, c.Tick(start.Add(settle)))
	if len(after.Join) != 1 || !after.Join[0].Owner.Empty() || !after.Accept[0].Accept.Empty() {
		t.Errorf("after settle: %+v, want to be a member that takes nobody", after)
	}
}

func TestNewServerIsAMemberBeforeItWins(t *testing.T) {
	c := NewCore("s9", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	if first := applied(t, c.SetServices(start, []service.Service{web})); len(first.Join) != 0 {
		t.Errorf("joins %+v before it knows an epoch", first.Join)
	}
	a := applied(t, c.Committed(start, "web", allocation(7, s1, s2)))
	if len(a.Join) != 1 || !a.Join[0].Owner.Empty() || a.Join[0].Epoch.Number != 7 {
		t.Errorf("joins %+v, want nobody at epoch 1.7", a.Join)
	}
}

func TestUsersComeBackWithinSettle(t *testing.T) {
	c := newS2(t)
	c.Committed(start, "web", allocation(2, s2, s1))
	a := applied(t, c.Committed(start.Add(settle/2), "web", allocation(3, s2, s2)))
	if accept := a.Accept[0].Accept; !accept.Contains(even) || !accept.Contains(odd) {
		t.Errorf("accepts %v, want all", accept)
	}
	for _, action := range c.Tick(start.Add(settle)) {
		if d, ok := action.(Close); ok && d.Lost(netip.AddrPortFrom(odd, 4711)) {
			t.Error("closes connections of users who are this server's again")
		}
	}
}

func TestAllocatedUsersAreLeased(t *testing.T) {
	static := service.Service{
		Name: "dns", VIP: web.VIP, Group: netip.MustParseAddr("239.53.53.53"), Ports: []service.Port{{Proto: "udp", Number: 53}},
		Mode: "multicast", Policy: "equal", Slots: web.Slots, Handover: service.DefaultHandover(),
		Servers: []service.Server{{Name: "s2", Portions: []portion.Portion{portion.MustParse("0.0.0.0/0")}}},
	}
	c := NewCore("s2", []string{"web", "dns"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	a := applied(t, c.SetServices(start, []service.Service{web, static}))
	for _, s := range a.Accept {
		if want := s.Group == web.Group; s.Leased != want {
			t.Errorf("%v leased: %t, want %t", s.Group, s.Leased, want)
		}
	}
}

// TestRestartFindsOutThatUsersMoved: what the last run served is not all ours any more; the bus said so before anything else.
func TestRestartFindsOutThatUsersMoved(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.Committed(start, "web", allocation(2, s2, s3))
	c.Restore(start, "web", allocation(1, s2, s2), nil)
	a := applied(t, c.SetServices(start, []service.Service{web}))
	if accept := a.Accept[0].Accept; !accept.Contains(even) || accept.Contains(odd) {
		t.Errorf("accepts %v, want even users", accept)
	}
	late := c.Tick(start.Add(settle))
	if closes(late) != 1 {
		t.Fatalf("%+v, want the odd users' connections closed", late)
	}
	for _, action := range late {
		d, ok := action.(Close)
		if ok && (!d.Lost(netip.AddrPortFrom(odd, 4711)) || d.Lost(netip.AddrPortFrom(even, 4711)) || d.Epoch.Number != 2) {
			t.Errorf("closes the wrong connections, or for the wrong epoch: %v", d.Epoch)
		}
	}
}

// TestUnhealthyServerLeavesItsStaticPortions, and comes back; a leader would not see to it.
func TestUnhealthyServerLeavesItsStaticPortions(t *testing.T) {
	static := web
	static.Servers = []service.Server{
		{Name: "s1", Portions: []portion.Portion{portion.MustParse("0.0.0.0/0.0.0.1")}},
		{Name: "s2", Portions: []portion.Portion{portion.MustParse("0.0.0.1/0.0.0.1")}},
	}
	c := NewCore("s2", nil, netip.MustParsePrefix("10.3.2.0/24"), settle)
	if a := applied(t, c.SetServices(start, []service.Service{static})); len(a.Join) != 0 || !a.Accept[0].Accept.Contains(odd) {
		t.Errorf("before the first probe: %+v, want no join, and packets taken that still come", a)
	}
	for _, healthy := range []bool{true, false, true} {
		a := applied(t, c.SetHealthy(start, healthy))
		if joins := len(a.Join) == 1 && a.Join[0].Owner.Contains(odd); joins != healthy {
			t.Errorf("healthy %t: joins %+v", healthy, a.Join)
		}
	}
	if again := c.SetHealthy(start, true); len(again) != 0 {
		t.Errorf("no news: %+v", again)
	}
}

func TestDeniedSendersAreNeitherJoinedNorAccepted(t *testing.T) {
	static := web
	all := []portion.Portion{portion.All4()}
	static.Servers = []service.Server{
		{Name: "s2", Portions: all, Deny: []portion.Portion{portion.Host(odd)}}, {Name: "s1", Portions: []portion.Portion{portion.Host(odd)}},
	}
	c := NewCore("s2", nil, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{static})
	a := applied(t, c.SetHealthy(start, true))
	if len(a.Accept) != 1 || len(a.Join) != 1 {
		t.Fatalf("%+v", a)
	}
	for what, set := range map[string]portion.Union{"accepts": a.Accept[0].Accept, "joins": {a.Join[0].Owner}} {
		if set.Contains(odd) || !set.Contains(even) {
			t.Errorf("%s %v", what, set)
		}
	}
}

// accepted is what the agent takes after the actions.
func accepted(t *testing.T, actions []Action) portion.Union {
	t.Helper()
	return applied(t, actions).Accept[0].Accept
}

func TestWinnerWaitsForTheLoserOfItsLink(t *testing.T) {
	e := allocation(2, s2, s3).Epoch
	moves := map[string]func(*Core) []Action{
		"the loser says so":               func(c *Core) []Action { return c.CeasedBy("web", e, "s3") },
		"the loser does not, and is dead": func(c *Core) []Action { return c.Tick(start.Add(settle / 2)) },
	}
	for name, end := range moves {
		t.Run(name, func(t *testing.T) {
			c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
			c.SetServices(start, []service.Service{web})
			next := allocation(2, s1, s2)
			next.Servers, next.Addresses = next.Servers[:2], next.Addresses[:2] // s3 leaves
			c.Announced(start, "web", next, allocation(1, s1, s3))              // s2 is new: nothing is held
			c.Announced(start, "web", next, allocation(1, s1, s3))              // said twice
			if early := c.Committed(start, "web", next); early != nil {
				t.Errorf("at the commit: %+v, though s3 perhaps takes them, and its word may come now", early)
			}
			if early := c.CeasedBy("web", epoch.Epoch{Term: 1, Number: 1}, "s3"); early != nil {
				t.Errorf("word of another epoch: %+v", early)
			}
			if c.CeasedBy("web", e, "stranger"); len(c.coming["web"].ceased) != 0 {
				t.Error("a name that had nothing to lose is remembered")
			}
			after := end(c)
			if took := accepted(t, after); !took.Contains(odd) || took.Contains(even) {
				t.Errorf("then: takes %v, want odd users", took)
			}
			if k, ok := after[1].(Keep); !ok || k.Allocation.Epoch != e {
				t.Errorf("then: %+v, want the allocation kept", after)
			}
			if dones(after) != 1 {
				t.Errorf("then: %+v, want one Done", after)
			}
			if again := c.CeasedBy("web", e, "s3"); again != nil {
				t.Errorf("said again: %+v", again)
			}
		})
	}
}

func TestWordOfTheLoserBeforeTheCommit(t *testing.T) {
	c := newS2(t)
	c.Committed(start, "web", allocation(2, s3, s3))
	c.Tick(start.Add(settle))
	c.Announced(start, "web", allocation(3, s3, s2), allocation(2, s3, s3))
	c.CeasedBy("web", allocation(3, s3, s2).Epoch, "s3")
	if took := accepted(t, c.Committed(start, "web", allocation(3, s3, s2))); !took.Contains(odd) {
		t.Errorf("takes %v, want odd users", took)
	}
}

func TestWinnerOnAnotherLinkBeginsAtOnce(t *testing.T) {
	c := newS2(t)
	c.Committed(start, "web", allocation(2, s1, s1))
	c.Tick(start.Add(settle))
	if took := accepted(t, c.Committed(start.Add(time.Second), "web", allocation(3, s1, s2))); !took.Contains(odd) {
		t.Errorf("takes %v, want odd users", took)
	}
}

func TestLoserSaysThatItHasCeased(t *testing.T) {
	c := newS2(t)
	a := applied(t, c.Committed(start, "web", allocation(2, s2, s3)))
	if want := (announce.Ceased{Service: "web", Epoch: allocation(2, s2, s3).Epoch, Server: "s2"}); len(a.Ceased) != 1 || a.Ceased[0] != want {
		t.Errorf("tells %+v, want %+v", a.Ceased, want)
	}
}

func TestAnnouncedIsPreparedBeforeItIsAnswered(t *testing.T) {
	c := newS2(t)
	actions := c.Announced(start, "web", allocation(2, s1, s2), allocation(1, s2, s2))
	p, ok := actions[0].(Prepare)
	if !ok || len(actions) != 2 || p.Accept[0].Accept.Contains(even) || !p.Accept[0].Accept.Contains(odd) {
		t.Fatalf("%+v, want to prepare for odd users, then to say so", actions)
	}
	if again := applied(t, c.SetServices(start, nil)); len(again.Accept) != 0 {
		t.Fatalf("%+v", again)
	}
	if now := accepted(t, c.SetServices(start, []service.Service{web})); !now.Contains(even) {
		t.Errorf("an announcement alone changed what is accepted: %v", now)
	}
}

func dones(actions []Action) (n int) {
	for _, a := range actions {
		if s, ok := a.(Send); ok {
			if _, ok := s.Message.(announce.Done); ok {
				n++
			}
		}
	}
	return n
}
