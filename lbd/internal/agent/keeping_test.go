package agent

import (
	"cmp"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

// keeping is web, and keeps connections.
func keeping(mode string) service.Service {
	s := web
	s.Mode, s.Handover = mode, service.Handover{Strategies: []service.Strategy{service.Forward}, Close: service.CloseReset}
	if mode == service.Tags {
		s.Refuse, s.Steering = service.RefuseReset, service.Proactive
	}
	return s
}

// followed are allocations, each with the trail that a leader gives it.
func followed(all ...alloc.Allocation) []alloc.Allocation {
	for i := 1; i < len(all); i++ {
		all[i].Trail = alloc.Follow(all[i-1], all[i], alloc.Holders{"s1": {}, "s2": {}, "s3": {}}, nil)
	}
	return all
}

func chainOf(t *testing.T, s dataplane.AgentService, user netip.Addr) dataplane.Chain {
	t.Helper()
	var found []dataplane.Chain
	for _, c := range s.Chains {
		if c.Users.Contains(user) {
			found = append(found, c)
		}
	}
	if len(found) > 1 {
		t.Fatalf("%v is in %d chains", user, len(found))
	}
	if len(found) == 0 {
		return dataplane.Chain{}
	}
	return found[0]
}

func TestWinnerKnowsWhoHadItsUsers(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{keeping(service.Multicast)})
	a := followed(allocation(1, s1, s1), allocation(2, s3, s1), allocation(3, s2, s1))
	prepare := c.Announced(start, "web", a[2], a[1])[0].(Prepare)
	want := []dataplane.Hop{{Address: a[0].Addresses[s3], Until: 3}, {Address: a[0].Addresses[s1], Until: 2}}
	if got := chainOf(t, prepare.Accept[0], even); !slices.Equal(got.Hops, want) || got.Owner.IsValid() || got.Ask {
		t.Errorf("prepared for %+v, want %v", got, want)
	}
	if want := []netip.Addr{a[0].Addresses[s1], a[0].Addresses[s3]}; !slices.Equal(prepare.Peers, want) {
		t.Errorf("prepared for peers %v, want %v", prepare.Peers, want)
	}
	c.Committed(start, "web", a[2])
	late := applied(t, c.Tick(start.Add(settle)))
	if got := chainOf(t, late.Accept[0], even); !slices.Equal(got.Hops, want) || !late.Accept[0].Keeps {
		t.Errorf("executes %+v, want %v", got, want)
	}
	if got := chainOf(t, late.Accept[0], odd); len(got.Hops) > 0 || got.Owner.IsValid() {
		t.Errorf("never had odd users: %+v", got)
	}
}

func TestLoserKeepsConnections(t *testing.T) {
	for _, mode := range []string{service.Multicast, service.Tags} {
		c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
		c.SetServices(start, []service.Service{keeping(mode)})
		a := followed(allocation(1, s2, s2), allocation(2, s2, s3), allocation(3, s2, s1))
		c.Committed(start, "web", a[0])
		c.Committed(start, "web", a[1])
		closing := c.Tick(start.Add(settle))
		lost := closing[len(closing)-1].(Close).Lost
		if lost(netip.AddrPortFrom(even, 1)) || lost(netip.AddrPortFrom(odd, 1)) {
			t.Errorf("%s: closes connections", mode)
		}
		if got := chainOf(t, c.apply().Accept[0], odd); got.Owner != a[1].Addresses[s3] || len(got.Hops) != 0 {
			t.Errorf("%s: its former users: %+v, want them to be s3's", mode, got)
		}
		c.Committed(start, "web", a[2])
		if got := chainOf(t, c.apply().Accept[0], odd); got.Owner != a[1].Addresses[s1] || len(got.Hops) != 1 || got.Hops[0].Until != 3 {
			t.Errorf("%s: its former users: %+v, want them to be s1's, and s3's before", mode, got)
		}
	}
}

// TestLoserSendsNothingAhead: the winner may not have prepared yet, and would know of no connection.
func TestLoserSendsNothingAhead(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{keeping(service.Multicast)})
	a := followed(allocation(1, s1, s1), allocation(2, s2, s2), allocation(3, s2, s3))
	c.Committed(start, "web", a[1])
	before := chainOf(t, c.apply().Accept[0], odd)
	prepare := c.Announced(start, "web", a[2], a[1])[0].(Prepare)
	if got := chainOf(t, prepare.Accept[0], odd); !slices.Equal(got.Hops, before.Hops) || len(got.Hops) != 1 || got.Owner.IsValid() {
		t.Errorf("prepares %+v, want as it was: %+v", got, before)
	}
	c.Committed(start, "web", a[2])
	if got := chainOf(t, c.apply().Accept[0], odd); got.Owner != a[2].Addresses[s3] {
		t.Errorf("executes %+v, want users to be s3's", got)
	}
}

// TestUsersOfTheDeadAreTheirStandbys: what comes here for them is sent to who serves them.
func TestUsersOfTheDeadAreTheirStandbys(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.Channel(250*time.Millisecond, true)
	c.SetServices(start, []service.Service{keeping(service.Tags)})
	c.SetHealthy(start, true)
	a := withStandbys(allocation(1, s3, s2), s1, s3)
	c.Committed(start, "web", a)
	if got := chainOf(t, c.apply().Accept[0], even); got.Owner != a.Addresses[s3] {
		t.Errorf("%+v, want s3", got)
	}
	turns(c, start, "s1", control.Available, "")
	if turns(c, start, "s3", control.Silent, ""); chainOf(t, c.apply().Accept[0], even).Owner != a.Addresses[s1] {
		t.Errorf("s3 is dead: %+v, want s1", chainOf(t, c.apply().Accept[0], even))
	}
}

// TestWhoTakesWhatOthersSend: a peer that is behind, or ahead, sends what opens connections here. It is served by who is about to have the users, or
// stands by for them; who has lost them knows the owner, whether anybody had them before or not.
func TestWhoTakesWhatOthersSend(t *testing.T) {
	for _, mode := range []string{service.Multicast, service.Tags} {
		c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
		c.SetServices(start, []service.Service{pinning(mode)})
		a := []alloc.Allocation{withStandbys(allocation(1, s2, s1), s1, s3), withStandbys(allocation(2, s1, s1), s3, s2), withStandbys(allocation(3, s1, s2), s3, s1)}
		c.Committed(start, "web", a[0])
		c.Committed(start, "web", a[1])
		in := c.apply().Accept[0]
		if lost := chainOf(t, in, even); lost.Owner != a[1].Addresses[s1] || lost.Takes || lost.Owns {
			t.Errorf("%s: users who are lost: %+v, want them to be s1's", mode, lost)
		}
		if stands := chainOf(t, in, odd); stands.Owner != a[1].Addresses[s1] || !stands.Takes || stands.Owns {
			t.Errorf("%s: users it stands by for: %+v, want them to be s1's, and taken", mode, stands)
		}
		ahead := c.Announced(start, "web", a[2], a[1])[0].(Prepare).Accept[0]
		if won := chainOf(t, ahead, odd); won.Owner != a[1].Addresses[s1] || !won.Takes || !won.Owns {
			t.Errorf("%s: users to be: %+v, want them to be s1's yet, and taken", mode, won)
		}
		c.Committed(start, "web", a[2])
		if own := chainOf(t, c.apply().Accept[0], odd); own.Owner.IsValid() || own.Takes || own.Owns {
			t.Errorf("%s: its users: %+v", mode, own)
		}
	}
}

// TestWinnerSendsWhatComesAheadToWhoHasThem: a pin of its own brings users' packets straight here.
func TestWinnerSendsWhatComesAheadToWhoHasThem(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{keeping(service.Tags)})
	a := followed(allocation(1, s2, s1), allocation(2, s3, s1), allocation(3, s2, s3))
	c.Committed(start, "web", a[1])
	prepare := c.Announced(start, "web", a[2], a[1])[0].(Prepare)
	if got := chainOf(t, prepare.Accept[0], even); got.Owner != a[0].Addresses[s3] || len(got.Hops) != 1 || got.Hops[0].Address != got.Owner {
		t.Errorf("its users to be: %+v, want them to be s3's yet, which may hold connections", got)
	}
	if got := chainOf(t, prepare.Accept[0], odd); got.Owner != a[0].Addresses[s1] {
		t.Errorf("s3's users to be: %+v, want them to be s1's yet", got)
	}
	c.Committed(start, "web", a[2])
	if got := chainOf(t, c.apply().Accept[0], even); got.Owner.IsValid() || len(got.Hops) != 1 {
		t.Errorf("its users: %+v", got)
	}
}

// TestWhatNoTrailNamesIsClosed: a standby took users whose owner is back, and no allocation knows of it.
func TestWhatNoTrailNamesIsClosed(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{keeping(service.Multicast)})
	c.Committed(start, "web", followed(allocation(1, s1, s1), allocation(2, s1, s3))[1])
	c.closings = append(c.closings, closing{service: "web", at: start})
	lost := c.Tick(start)[0].(Close).Lost
	if !lost(netip.AddrPortFrom(even, 1)) || !lost(netip.AddrPortFrom(odd, 1)) {
		t.Error("keeps connections of users whom nobody would bring here")
	}
}

func TestChainsEndWithTheirConnections(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.Channel(250*time.Millisecond, true)
	c.SetServices(start, []service.Service{keeping(service.Multicast)})
	c.SetHealthy(start, true)
	a := followed(allocation(1, s1, s1), allocation(2, s3, s1), allocation(3, s2, s1))
	c.Committed(start, "web", a[2])
	hops := func() (n int) { return len(chainOf(t, c.apply().Accept[0], even).Hops) }
	report := func(name string, h control.Health, k *alloc.Kept) []Action {
		m := control.Member{Name: name, Health: h}
		if k != nil {
			m.Loads = map[string]alloc.Load{"web": {Kept: k}}
		}
		return c.Heard(start, []control.Member{m})
	}
	number := func(n uint64) epoch.Epoch { return epoch.Epoch{Term: 1, Number: n} }
	report("s1", control.Available, nil)
	report("s3", control.Available, &alloc.Kept{Epoch: number(2)})
	if got := hops(); got != 2 {
		t.Errorf("nothing is known of s1, s3 has counted before it lost users: %d hops, want both", got)
	}
	applied(t, report("s1", control.Available, &alloc.Kept{Epoch: number(3), Connections: 3, Since: number(2)}))
	if got := hops(); got != 1 {
		t.Errorf("s1 holds only what it had later: %d hops, want one", got)
	}
	if again := report("s1", control.Available, &alloc.Kept{Epoch: number(3), Connections: 2, Since: number(2)}); len(again) != 0 {
		t.Errorf("no news: %+v", again)
	}
	applied(t, report("s3", control.Silent, nil))
	if got := hops(); got != 0 {
		t.Errorf("s3 is dead: %d hops", got)
	}
}

// TestHopsFallWhateverAServerKnows: servers have different allocations for a moment, and other hops in their chains. A packet that follows hops
// comes to none twice, and passes over none that comes later in order.
func TestHopsFallWhateverAServerKnows(t *testing.T) {
	names := []string{"s1", "s2", "s3", "s4"}
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 6))
		at, mark, last := "r", uint32(math.MaxUint32), alloc.Hop{}
		for steps := 0; ; steps++ {
			if steps > 64 {
				t.Fatalf("seed %d: goes on and on", seed)
			}
			c := alloc.Chain{}
			for _, name := range names {
				if r.IntN(4) > 0 {
					c.Hops = append(c.Hops, alloc.Hop{Server: name, Until: epoch.Epoch{Term: 1, Number: 1 + r.Uint64N(3)}})
				}
			}
			slices.SortFunc(c.Hops, func(a, b alloc.Hop) int { return cmp.Or(b.Until.Compare(a.Until), cmp.Compare(a.Server, b.Server)) })
			i := slices.IndexFunc(c.Hops, func(h alloc.Hop) bool { return h.Server != at && until(h, at) < mark })
			for _, over := range c.Hops[:max(i, 0)] {
				if over.Server != at && (over.Until.Less(last.Until) || over.Until == last.Until && over.Server > at) {
					t.Fatalf("seed %d: at %s passes over %v", seed, at, over)
				}
			}
			if i < 0 {
				break
			}
			next := c.Hops[i]
			if steps > 0 && (last.Until.Less(next.Until) || last.Until == next.Until && next.Server <= at) {
				t.Fatalf("seed %d: from %s until %v to %s until %v", seed, at, last.Until, next.Server, next.Until)
			}
			at, mark, last = next.Server, (until(next, at)+1)&^1, next
		}
	}
}

// TestResetWaitsForTheWinner: who connects anew at once is to find somebody.
func TestResetWaitsForTheWinner(t *testing.T) {
	c := newS2(t)
	c.Committed(start, "web", allocation(2, s2, s3))
	if early := closes(c.Tick(start.Add(time.Millisecond))); early != 0 {
		t.Error("closes before s3 has begun")
	}
	c.DoneBy(start, "web", epoch.Epoch{Term: 1, Number: 1}, "s3") // of an epoch before
	c.DoneBy(start, "web", epoch.Epoch{Term: 1, Number: 2}, "s1")
	if early := closes(c.Tick(start.Add(time.Millisecond))); early != 0 {
		t.Error("closes when somebody else has begun")
	}
	c.DoneBy(start.Add(2*time.Millisecond), "web", epoch.Epoch{Term: 1, Number: 2}, "s3")
	if now := closes(c.Tick(start.Add(2 * time.Millisecond))); now != 1 {
		t.Error("does not close when s3 has begun")
	}
}

func TestKeptIsCounted(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{keeping(service.Multicast)})
	a := followed(allocation(1, s2, s2), allocation(2, s2, s3), allocation(3, s1, s3))
	for _, next := range a {
		c.Committed(start, "web", next)
	}
	s, later := c.serving()[0], start.Add(settle+handshake)
	users := []netip.AddrPort{netip.AddrPortFrom(odd, 1), netip.AddrPortFrom(even, 1), netip.AddrPortFrom(even, 2)}
	if k := s.Kept(later, slices.Values(users)); !s.MayKeep || k != (alloc.Kept{Epoch: a[2].Epoch, Connections: 3, Since: a[0].Epoch}) {
		t.Errorf("kept: %+v, want three, since 1.1", k)
	}
	if k := s.Kept(later.Add(-1), slices.Values(users[:0])); k.Epoch != a[0].Epoch {
		t.Errorf("kept: %+v, though users lost by 1.2 and 1.3, which came together, may yet connect", k)
	}
	if k := s.Kept(later, slices.Values(users[1:])); k.Since != a[1].Epoch {
		t.Errorf("kept: %+v, want since 1.2, when even users were lost", k)
	}
	c.Committed(start, "web", allocation(4, s2, s2))
	if s := c.serving()[0]; s.MayKeep || s.Kept(later, slices.Values(users)).Connections != 0 {
		t.Error("keeps its own users as others'")
	}
	c.SetServices(start, []service.Service{web})
	if s := c.serving()[0]; s.Kept != nil {
		t.Error("counts what handover reset keeps")
	}
}

// TestWhoComesBackIsCountedForAWhile: servers that are late bring them by the old way.
func TestWhoComesBackIsCountedForAWhile(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{keeping(service.Multicast)})
	for _, next := range followed(allocation(1, s2, s2), allocation(2, s1, s2), allocation(3, s2, s2)) {
		c.Committed(start, "web", next)
	}
	user := slices.Values([]netip.AddrPort{netip.AddrPortFrom(even, 1)})
	if k := c.serving()[0].Kept(start.Add(runOn-1), user); k.Connections != 1 || k.Since.Number != 1 {
		t.Errorf("%+v, want one since 1.1", k)
	}
	if k := c.serving()[0].Kept(start.Add(runOn), user); k.Connections != 0 {
		t.Errorf("%+v, want nothing of others", k)
	}
}

// TestConnectionsOfWhoIsOutGoOnThere: its application does not answer a probe, or others took it for dead for a moment.
func TestConnectionsOfWhoIsOutGoOnThere(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.Channel(250*time.Millisecond, true)
	c.SetServices(start, []service.Service{keeping(service.Multicast)})
	c.SetHealthy(start, true)
	a := withStandbys(allocation(1, s3, s1), s2, s3)
	c.Committed(start, "web", a)
	turns(c, start, "s3", control.Unwell, "fenced")
	want := []dataplane.Hop{{Address: a.Addresses[s3], Until: 1}}
	if got := chainOf(t, c.apply().Accept[0], even); !slices.Equal(got.Hops, want) || got.Owner.IsValid() {
		t.Errorf("s3 is out: %+v, want hops %v", got, want)
	}
	turns(c, start, "s1", control.Available, "")
	if turns(c, start, "s3", control.Silent, ""); len(chainOf(t, c.apply().Accept[0], even).Hops) != 0 {
		t.Errorf("s3 is dead: %+v", chainOf(t, c.apply().Accept[0], even))
	}
}

// TestWhatIsNewOfWhoIsOutIsItsStandbys: routers bring users here that have not heard of it, and peers flows of UDP that nobody knows.
func TestWhatIsNewOfWhoIsOutIsItsStandbys(t *testing.T) {
	for _, mode := range []string{service.Multicast, service.Tags} {
		a := withStandbys(allocation(1, s2, s1), s3, s3)
		c := listening(t, a)
		c.SetServices(start, []service.Service{keeping(mode)})
		owner := func() netip.Addr { return chainOf(t, c.apply().Accept[0], even).Owner }
		if got := owner(); got.IsValid() {
			t.Errorf("%s: it serves: they are %v's", mode, got)
		}
		c.Lapsed(start)
		if got := owner(); got != a.Addresses[s3] {
			t.Errorf("%s: it is fenced: they are %v's, want s3's", mode, got)
		}
		c.Announced(start, "web", withStandbys(allocation(2, s2, s2), s3, s3), a)
		if got := owner(); got != a.Addresses[s3] {
			t.Errorf("%s: an epoch is announced: they are %v's, want s3's", mode, got)
		}
		if turns(c, start, "s3", control.Silent, ""); owner().IsValid() {
			t.Errorf("%s: s3 is dead: they are %v's", mode, owner())
		}
		turns(c, start, "s3", control.Available, "")
		back := start.Add(5 * time.Second)
		c.Tick(back)
		if c.Tick(back.Add(settle)); owner().IsValid() {
			t.Errorf("%s: it is back: they are %v's", mode, owner())
		}
	}
}

// TestStandbyThatIsThereAtLast: a server that is out sends what is new to its standby as soon as that may serve, though nobody has gone or come back.
func TestStandbyThatIsThereAtLast(t *testing.T) {
	a := withStandbys(allocation(1, s2, s1), s3, s3)
	for _, why := range []string{control.Deaf, "unknown"} {
		c := listening(t, a)
		c.SetServices(start, []service.Service{keeping(service.Multicast)})
		if why == control.Deaf {
			turns(c, start, "s3", control.Unwell, why)
		} else {
			delete(c.hearing.members, "s3")
		}
		if got := chainOf(t, applied(t, c.Lapsed(start)).Accept[0], even).Owner; got.IsValid() {
			t.Errorf("%s: it is fenced: they are %v's, want nobody's", why, got)
		}
		if got := chainOf(t, applied(t, turns(c, start, "s3", control.Available, "")).Accept[0], even).Owner; got != a.Addresses[s3] {
			t.Errorf("%s: s3 is there: they are %v's, want s3's", why, got)
		}
		if again := turns(c, start, "s3", control.Available, ""); len(again) > 0 {
			t.Errorf("%s: nothing is new: %+v", why, again)
		}
	}
}

// TestWhoComesBackAnewHoldsNothing: until it says what it holds.
func TestWhoComesBackAnewHoldsNothing(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.Channel(250*time.Millisecond, true)
	c.SetServices(start, []service.Service{keeping(service.Multicast)})
	c.SetHealthy(start, true)
	c.Committed(start, "web", followed(allocation(1, s3, s1), allocation(2, s2, s1))[1])
	says := func(health control.Health, boot uint64, kept *alloc.Kept) int {
		m := control.Member{Name: "s3", Health: health, Boot: boot}
		if kept != nil {
			m.Loads = map[string]alloc.Load{"web": {Kept: kept}}
		}
		c.Heard(start, []control.Member{m, {Name: "s1", Health: control.Available}})
		return len(chainOf(t, c.apply().Accept[0], even).Hops)
	}
	one := epoch.Epoch{Term: 1, Number: 1}
	for i, step := range []struct {
		health control.Health
		boot   uint64
		kept   *alloc.Kept
		hops   int
	}{
		{control.Available, 1, nil, 1},
		{control.Silent, 1, nil, 0},
		{control.Available, 1, nil, 1}, // for a moment
		{control.Silent, 1, nil, 0},
		{control.Unwell, 2, nil, 0},
		{control.Available, 2, nil, 0},
		{control.Available, 2, &alloc.Kept{Epoch: one, Connections: 1, Since: one}, 1},
		{control.Silent, 2, nil, 0},
		{control.Available, 3, nil, 0},
	} {
		if got := says(step.health, step.boot, step.kept); got != step.hops {
			t.Errorf("step %d: %d hops, want %d", i, got, step.hops)
		}
	}
	// It says what it does, and, as with handover reset, nothing of what it holds.
	c.Heard(start, []control.Member{{Name: "s3", Health: control.Available, Boot: 3, Loads: map[string]alloc.Load{"web": {}}}})
	if got := chainOf(t, c.apply().Accept[0], even).Hops; len(got) != 1 {
		t.Errorf("%v, want it to be asked again", got)
	}
}

// TestKeptConnectionsEndAtABreakPoint: not before their time, and those alone that were lost so long ago.
func TestKeptConnectionsEndAtABreakPoint(t *testing.T) {
	s := keeping(service.Multicast)
	s.Handover.Break, s.Handover.Close = time.Minute, service.CloseOrderly
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{s})
	a := followed(allocation(1, s2, s2), allocation(2, s2, s3), allocation(3, s3, s3))
	c.Committed(start, "web", a[0])
	c.Committed(start, "web", a[1])
	c.Committed(start.Add(30*time.Second), "web", a[2])
	breaks := func(at time.Duration) (found []Close) {
		for _, action := range c.Tick(start.Add(at)) {
			if d, is := action.(Close); is && d.How.Idle > 0 {
				found = append(found, d)
			}
		}
		return found
	}
	if early := breaks(59 * time.Second); len(early) > 0 {
		t.Errorf("after 59 s: %+v", early)
	}
	first := breaks(time.Minute)
	if len(first) != 1 || !first[0].How.Orderly || !first[0].Lost(netip.AddrPortFrom(odd, 1)) || first[0].Lost(netip.AddrPortFrom(even, 1)) {
		t.Errorf("after 60 s: %+v, want odd users' connections to end, and not those lost 30 s ago", first)
	}
	if again := breaks(61 * time.Second); len(again) != 1 {
		t.Errorf("after 61 s: %+v, want to look again", again)
	}
	if all := breaks(90 * time.Second); len(all) != 2 || !all[1].Lost(netip.AddrPortFrom(even, 1)) && !all[0].Lost(netip.AddrPortFrom(even, 1)) {
		t.Errorf("after 90 s: %+v, want even users' connections to end", all)
	}
	if one := breaks(91 * time.Second); len(one) != 1 || !one[0].Lost(netip.AddrPortFrom(even, 1)) || !one[0].Lost(netip.AddrPortFrom(odd, 1)) {
		t.Errorf("after 91 s: %+v, want one look at all", one)
	}
	c.Committed(start.Add(92*time.Second), "web", allocation(4, s3, s3)) // nobody says that it held anything
	breaks(93 * time.Second)
	if never := breaks(10 * time.Minute); len(never) > 0 {
		t.Errorf("holds nothing, and looks again: %+v", never)
	}
}
