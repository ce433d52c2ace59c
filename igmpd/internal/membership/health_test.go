package membership

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
)

func withStandby(s join.Signed, standby portion.Set) join.Signed {
	s.Standby = standby
	return s
}

// pair is two servers on ports of their own, each the other's standby.
func pair(t *testing.T) *Table {
	t.Helper()
	table := New(Config{QueryInterval: 125 * time.Second, QueryResponseInterval: 10 * time.Second, LastMemberQueryInterval: time.Second, Robustness: 2})
	for _, j := range []struct {
		port string
		join join.Signed
	}{
		{"p1", withStandby(extended(start, s1, 1, 1, even), odd)},
		{"p2", withStandby(extended(start, s2, 1, 1, odd), even)},
	} {
		if _, err := table.Join(start, j.port, j.join); err != nil {
			t.Fatal(err)
		}
	}
	return table
}

func hasChanged(actions []Action) bool {
	for _, a := range actions {
		if _, ok := a.(Changed); ok {
			return true
		}
	}
	return false
}

func TestSilentServersUsersGoToTheStandby(t *testing.T) {
	table := pair(t)
	check := func(when, evenPort, oddPort string) {
		t.Helper()
		e, _ := who(table, "10.0.0.2")
		o, _ := who(table, "10.0.0.3")
		if e != evenPort || o != oddPort {
			t.Errorf("%s: even at %q, odd at %q, want %q and %q", when, e, o, evenPort, oddPort)
		}
	}
	check("both available", "p1", "p2")
	if !hasChanged(table.SetHealth(start, s1, Silent)) {
		t.Error("nothing has changed")
	}
	check("s1 silent", "p2", "p2")
	if hasChanged(table.SetHealth(start, s1, Silent)) {
		t.Error("the same once more is a change")
	}
	table.SetHealth(start, s2, Unwell)
	check("s1 silent, s2 unwell", "", "p2")
	table.SetHealth(start, s1, Unwell)
	check("both unwell", "p1", "p2")
	table.SetHealth(start, s1, Available)
	check("s2 unwell", "p1", "p1")
	table.SetHealth(start, s2, Silent)
	table.SetHealth(start, s1, Silent)
	check("both silent: the channel may be what has failed", "p1", "p2")
	table.SetHealth(start, s1, Available)
	check("s2 silent", "p1", "p1")
	table.SetHealth(start, s2, Available)
	check("both again", "p1", "p2")
}

// The leader's epoch comes while the owner is silent, and the owner comes back with what it had before.
func TestEpochTidiesUp(t *testing.T) {
	table := pair(t)
	table.SetHealth(start, s1, Silent)
	all := set("0.0.0.0/0.0.0.0")
	if _, err := table.Join(start.Add(time.Second), "p2", extended(start.Add(time.Second), s2, 1, 2, all)); err != nil {
		t.Fatal(err)
	}
	if e, _ := who(table, "10.0.0.2"); e != "p2" {
		t.Errorf("even at %q", e)
	}
	table.SetHealth(start, s1, Available)
	if e, _ := who(table, "10.0.0.2"); e != "p2" {
		t.Errorf("back with an old epoch: even at %q", e)
	}
}

func TestReroute(t *testing.T) {
	table := pair(t)
	if !hasChanged(table.Reroute(start, s1, "p9")) || hasChanged(table.Reroute(start, s1, "p9")) {
		t.Error("want one change")
	}
	if e, _ := who(table, "10.0.0.2"); e != "p9" {
		t.Errorf("even at %q", e)
	}
}

// Whatever happens to whom, each user has the owner that the rules give it.
func TestHealthProperty(t *testing.T) {
	const servers, slots = 6, 16
	slot := func(i int) portion.Portion {
		return portion.MustParse(fmt.Sprintf("0.0.0.%d/0.0.0.%d", i, slots-1))
	}
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 3, 0, byte(11 + i)}) }
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		table := New(Config{QueryInterval: 125 * time.Second, QueryResponseInterval: 10 * time.Second, LastMemberQueryInterval: time.Second, Robustness: 2})
		owner, standby := make([]int, slots), make([]int, slots)
		own, by := make([]portion.Set, servers), make([]portion.Set, servers)
		for i := range slots {
			owner[i] = random.IntN(servers)
			standby[i] = (owner[i] + 1 + random.IntN(servers-1)) % servers
			own[owner[i]].Permit = append(own[owner[i]].Permit, slot(i))
			by[standby[i]].Permit = append(by[standby[i]].Permit, slot(i))
		}
		for s := range servers {
			j := withStandby(extended(start, address(s), 1, 1, own[s]), by[s])
			if _, err := table.Join(start, fmt.Sprint("p", s), j); err != nil {
				t.Fatal(err)
			}
		}
		health := make([]Health, servers)
		for range 100 {
			s := random.IntN(servers)
			health[s] = Health(random.IntN(3))
			table.SetHealth(start, address(s), health[s])
			silent := 0
			for _, h := range health {
				if h == Silent {
					silent++
				}
			}
			for i := range slots {
				want := ""
				switch o, b := owner[i], standby[i]; {
				case silent == servers || health[o] == Available:
					want = fmt.Sprint("p", o)
				case health[b] == Available:
					want = fmt.Sprint("p", b)
				case health[o] == Unwell:
					want = fmt.Sprint("p", o)
				}
				if got, _ := who(table, fmt.Sprintf("10.7.0.%d", i)); got != want {
					t.Fatalf("seed %d: slot %d of owner %d (%v), standby %d (%v): at %q, want %q", seed, i, owner[i], health[owner[i]], standby[i], health[standby[i]], got, want)
				}
			}
		}
	}
}

// A router on the standby's branch alone has no join of the owner: what other routers send it when the owner is silent is the
// standby's. While the owner is well its users come here only on a way that is new, and its joins are to follow.
func TestStandbyWithoutItsOwner(t *testing.T) {
	table := New(Config{QueryInterval: 125 * time.Second, QueryResponseInterval: 10 * time.Second, LastMemberQueryInterval: time.Second, Robustness: 2})
	check := func(when, want string) {
		t.Helper()
		if e, _ := who(table, "10.0.0.2"); e != want {
			t.Errorf("%s: even at %q, want %q", when, e, want)
		}
	}
	if _, err := table.Join(start, "p2", withStandby(extended(start, s2, 1, 1, odd), even)); err != nil {
		t.Fatal(err)
	}
	check("the owner is well", "")
	if !hasChanged(table.SetHealth(start, s1, Silent)) {
		t.Error("nothing has changed")
	}
	check("the owner is silent", "p2")
	table.SetHealth(start, s2, Unwell)
	check("its standby does not serve, either", "")
	table.SetHealth(start, s2, Available)
	check("the standby does again", "p2")
	table.SetHealth(start, s1, Available)
	check("the owner is back", "")
	table.SetHealth(start, s1, Silent)
	if _, err := table.Join(start, "p1", withStandby(extended(start, s1, 1, 1, even), odd)); err != nil {
		t.Fatal(err)
	}
	check("the silent owner's joins come", "p2")
	table.SetHealth(start, s1, Available)
	check("all are well", "p1")
}

// A server of another service that dies is no reason to give anybody's users to standbys here.
func TestStrangerIsNotMissed(t *testing.T) {
	table := New(Config{QueryInterval: 125 * time.Second, QueryResponseInterval: 10 * time.Second, LastMemberQueryInterval: time.Second, Robustness: 2})
	other := extended(start, s1, 1, 1, even)
	other.Group = netip.MustParseAddr("239.80.80.99")
	if _, err := table.Join(start, "p1", other); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Join(start, "p2", withStandby(extended(start, s2, 1, 1, odd), even)); err != nil {
		t.Fatal(err)
	}
	table.SetHealth(start, s1, Silent)
	if e, _ := who(table, "10.0.0.2"); e != "" {
		t.Errorf("even at %q because a server of another group is silent", e)
	}
	table.SetHealth(start, s1, Available)
	if len(table.served) != 0 {
		t.Errorf("%v are kept of who is well", table.served)
	}
}

// Without a leader nobody tidies up: when a dead server's membership has run out, its users stay at the standby.
func TestDeadServerIsForgotten(t *testing.T) {
	table := pair(t)
	table.SetHealth(start, s1, Silent)
	now := start
	for range 20 {
		now = now.Add(30 * time.Second)
		table.Tick(now)
		if _, err := table.Join(now, "p2", withStandby(extended(now, s2, 1, 1, odd), even)); err != nil {
			t.Fatal(err)
		}
		if e, _ := who(table, "10.0.0.2"); e != "p2" {
			t.Fatalf("after %v even at %q, want the standby", now.Sub(start), e)
		}
	}
	if n := len(table.Members()); n != 1 {
		t.Fatalf("%d members, the dead one included", n)
	}
}

// A standby that changes while all are well is the one that takes over later.
func TestStandbyChanges(t *testing.T) {
	table := pair(t)
	later, s3 := start.Add(time.Second), netip.MustParseAddr("10.3.0.13")
	for _, j := range []join.Signed{withStandby(extended(later, s2, 1, 1, odd), portion.Set{}), withStandby(extended(later, s3, 1, 1, portion.Set{}), even)} {
		if _, err := table.Join(later, map[netip.Addr]string{s2: "p2", s3: "p3"}[j.Requester], j); err != nil {
			t.Fatal(err)
		}
	}
	table.SetHealth(later, s1, Silent)
	if e, _ := who(table, "10.0.0.2"); e != "p3" {
		t.Errorf("even at %q, want the standby of now", e)
	}
}

// While the epoch that tidies up comes in, server by server, a dead server's users stay where they are until their new owner has joined.
func TestStandbyGoesOnUntilTheNewOwnerJoins(t *testing.T) {
	s3, nothing := netip.MustParseAddr("10.3.0.13"), portion.Set{}
	ports := map[netip.Addr]string{s1: "p1", s2: "p2", s3: "p3"}
	type step struct {
		who          netip.Addr
		own, standby portion.Set // of the second epoch
		want         string      // then the users of s1 are there
	}
	for name, c := range map[string]struct {
		health  Health
		unheard bool // s1 never joined at this router
		steps   []step
	}{
		"the new standby joins first":                   {Silent, false, []step{{s3, nothing, even, "p2"}, {s2, even, nothing, "p2"}}},
		"it does where the dead server was never heard": {Silent, true, []step{{s3, nothing, even, "p2"}, {s2, even, nothing, "p2"}}},
		"the old standby joins first":                   {Silent, false, []step{{s2, odd, nothing, "p2"}, {s3, even, nothing, "p3"}}},
		"who is alive without its application joins first": {Unwell, false, []step{
			{s1, nothing, nothing, "p2"}, {s3, nothing, even, "p2"}, {s2, even, nothing, "p2"},
		}},
		"it is the standby again": {Silent, false, []step{{s2, odd, even, "p2"}, {s3, even, nothing, "p3"}}},
	} {
		t.Run(name, func(t *testing.T) {
			table := New(Config{QueryInterval: 125 * time.Second, QueryResponseInterval: 10 * time.Second, LastMemberQueryInterval: time.Second, Robustness: 2})
			join := func(at time.Time, who netip.Addr, number uint64, own, standby portion.Set) {
				t.Helper()
				if _, err := table.Join(at, ports[who], withStandby(extended(at, who, 1, number, own), standby)); err != nil {
					t.Fatal(err)
				}
			}
			if !c.unheard {
				join(start, s1, 1, even, nothing)
			}
			join(start, s2, 1, odd, even)
			join(start, s3, 1, nothing, odd)
			table.SetHealth(start, s1, c.health)
			for i, s := range c.steps {
				join(start.Add(time.Duration(i+1)*10*time.Millisecond), s.who, 2, s.own, s.standby)
				if at, _ := who(table, "10.0.0.2"); at != s.want {
					t.Errorf("step %d: even at %q, want %q", i, at, s.want)
				}
			}
		})
	}
}

// Who dies soon after a move has the users that it won at their standby, and not where they were before.
func TestStandbyComesBeforeThePastOwner(t *testing.T) {
	s3, nothing := netip.MustParseAddr("10.3.0.13"), portion.Set{}
	for name, isHeard := range map[string]bool{"the dead server joined here": true, "it never did": false} {
		t.Run(name, func(t *testing.T) {
			table := New(Config{QueryInterval: 125 * time.Second, QueryResponseInterval: 10 * time.Second, LastMemberQueryInterval: time.Second, Robustness: 2})
			admit := func(at time.Time, port string, j join.Signed) {
				t.Helper()
				if _, err := table.Join(at, port, j); err != nil {
					t.Fatal(err)
				}
			}
			admit(start, "p2", extended(start, s2, 1, 1, even))
			admit(start, "p3", extended(start, s3, 1, 1, odd))
			moved := start.Add(10 * time.Second)
			if isHeard {
				admit(moved, "p1", extended(moved, s1, 1, 2, even))
			}
			admit(moved, "p2", extended(moved, s2, 1, 2, nothing))
			admit(moved, "p3", withStandby(extended(moved, s3, 1, 2, odd), even))
			table.SetHealth(moved.Add(retirement/2), s1, Silent)
			if at, _ := who(table, "10.0.0.2"); at != "p3" {
				t.Errorf("even at %q, want the standby", at)
			}
			// While the epoch that tidies up comes in, what survivors had goes on until its new owner has joined.
			later := moved.Add(10 * time.Second)
			admit(later, "p3", extended(later, s3, 1, 3, even))
			if at, _ := who(table, "10.0.0.3"); at != "p3" {
				t.Errorf("odd at %q before its new owner has joined", at)
			}
			admit(later, "p2", extended(later, s2, 1, 3, odd))
			if at, _ := who(table, "10.0.0.3"); at != "p2" {
				t.Errorf("odd at %q, want its new owner", at)
			}
		})
	}
}

// Who dies between the commit and its joins has its new users at their standby, when the old epoch's word is over.
func TestNewOwnerDiesBeforeItJoins(t *testing.T) {
	table := pair(t)
	later := start.Add(time.Second)
	if _, err := table.Join(later, "p2", withStandby(extended(later, s2, 1, 2, portion.Set{}), set("0.0.0.0/0.0.0.0"))); err != nil {
		t.Fatal(err)
	}
	table.SetHealth(later, s1, Silent)
	table.Tick(later.Add(retirement))
	for _, u := range []string{"10.0.0.2", "10.0.0.3"} {
		if at, _ := who(table, u); at != "p2" {
			t.Errorf("%s at %q", u, at)
		}
	}
}
