package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
)

var (
	private = netip.MustParseAddr("239.80.80.80")
	s1      = netip.MustParseAddr("10.3.0.11")
	s2      = netip.MustParseAddr("10.3.0.12")
	even    = set("0.0.0.0/0.0.0.1")
	odd     = set("0.0.0.1/0.0.0.1")
	nobody  = portion.Set{}
)

func set(permit ...string) portion.Set {
	var s portion.Set
	for _, p := range permit {
		s.Permit = append(s.Permit, portion.MustParse(p))
	}
	return s
}

// extended makes an admitted join of the epoch term.number at the given time.
func extended(at time.Time, requester netip.Addr, term, number uint64, own portion.Set) join.Signed {
	return join.Signed{
		Join: join.Join{Group: private, Requester: requester, Time: at, Epoch: epoch.Epoch{Term: term, Number: number}, Part: 1, Parts: 1, Owner: own},
		Raw:  []byte(fmt.Sprintf("%v %d.%d", requester, term, number)),
	}
}

// who returns the port that a user's packets leave by, and whether the group is known.
func who(t *Table, user string) (string, bool) {
	p, ok := t.Private()[private]
	if !ok {
		return "", false
	}
	return p.Owners[p.Plan.Lookup(netip.MustParseAddr(user))], true
}

func relayed(actions []Action) (n int) {
	for _, a := range actions {
		if r, ok := a.(Relay); ok {
			n += len(r.Joins)
		}
	}
	return n
}

// step is one join and what has to come of it: the ports of an even and of an odd user afterwards.
type step struct {
	port         string
	join         join.Signed
	err          error
	even, odd    string
	noChange     bool
	notRelayed   bool
	afterSeconds int
}

func TestEpochsAndOverlap(t *testing.T) {
	at := start
	next := func() time.Time { at = at.Add(time.Millisecond); return at }
	leave := func(j join.Signed) join.Signed { j.Leave = true; return j }
	part := func(j join.Signed, i, n uint8, set time.Time) join.Signed {
		j.Part, j.Parts, j.Time = i, n, set.Add(time.Duration(i-1))
		return j
	}
	all := set("0.0.0.0/0")
	setTime := next()
	tests := map[string][]step{
		"two owners of one epoch": {
			{port: "a", join: extended(next(), s1, 1, 1, even), even: "a"},
			{port: "b", join: extended(next(), s2, 1, 1, odd), even: "a", odd: "b"},
			{port: "a", join: extended(next(), s1, 1, 1, even), even: "a", odd: "b", noChange: true},
		},
		"overlap in one epoch": {
			{port: "a", join: extended(next(), s1, 1, 1, even), even: "a"},
			{port: "b", join: extended(next(), s2, 1, 1, all), err: ErrOverlap, even: "a", noChange: true, notRelayed: true},
			{port: "b", join: extended(next(), s2, 1, 2, all), even: "b", odd: "b"},
		},
		"higher epoch wins, and gives back when it goes": {
			{port: "a", join: extended(next(), s1, 1, 1, even), even: "a"},
			{port: "b", join: extended(next(), s2, 1, 2, all), even: "b", odd: "b"},
			{port: "b", join: leave(extended(next(), s2, 1, 2, nobody)), even: "a"},
		},
		"stale": {
			{port: "a", join: extended(next(), s1, 2, 5, even), even: "a"},
			{port: "a", join: extended(next(), s1, 2, 4, odd), err: ErrStale, even: "a", noChange: true, notRelayed: true},
			{port: "b", join: extended(next(), s2, 1, 9, odd), err: ErrStale, even: "a", noChange: true, notRelayed: true},
			{port: "b", join: extended(next(), s2, 2, 1, odd), even: "a", odd: "b"}, // lower, but its own first, and of this term
			{port: "a", join: leave(extended(next(), s1, 2, 4, nobody)), err: ErrStale, even: "a", odd: "b", noChange: true, notRelayed: true},
			{port: "a", join: leave(extended(next(), s1, 2, 5, nobody)), odd: "b"},
		},
		"complete sets only": {
			{port: "a", join: part(extended(at, s1, 1, 1, odd), 2, 2, setTime), noChange: true, notRelayed: true},
			{port: "a", join: part(extended(at, s1, 1, 1, even), 1, 2, setTime), even: "a", odd: "a"},
		},
		"a torn set changes nothing": {
			{port: "a", join: extended(next(), s1, 1, 1, even), even: "a"},
			{port: "a", join: part(extended(at, s1, 1, 2, odd), 1, 2, next()), even: "a", noChange: true, notRelayed: true},
			{port: "a", join: extended(next(), s1, 1, 3, odd), even: "a", odd: "a"}, // even: retired
			{port: "a", join: extended(next(), s1, 1, 3, odd), afterSeconds: 2, odd: "a", noChange: true},
		},
		"a loser's join before the winner's leaves no gap": {
			{port: "a", join: extended(next(), s1, 1, 1, all), even: "a", odd: "a"},
			{port: "a", join: extended(next(), s1, 1, 2, even), even: "a", odd: "a"},
			{port: "b", join: extended(next(), s2, 1, 2, odd), even: "a", odd: "b"},
			{port: "b", join: leave(extended(next(), s2, 1, 2, nobody)), even: "a", odd: "a"}, // still retired
			{port: "a", join: leave(extended(next(), s1, 1, 2, nobody))},
		},
		"the requester moves to another port": {
			{port: "a", join: extended(next(), s1, 1, 1, even), even: "a"},
			{port: "b", join: extended(next(), s1, 1, 1, even), even: "b"},
		},
		"expiry": {
			{port: "a", join: extended(next(), s1, 1, 1, even), even: "a"},
			{port: "b", join: extended(next(), s2, 1, 1, odd), afterSeconds: 200, even: "a", odd: "b"},
			{port: "b", join: extended(next(), s2, 1, 1, odd), afterSeconds: 100, odd: "b", noChange: true},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			table, now := newTable(t)
			for i, s := range steps {
				now = now.Add(time.Duration(s.afterSeconds) * time.Second)
				run(table, start, now)
				actions, err := table.Join(now, s.port, s.join)
				if !errors.Is(err, s.err) || (err != nil) != (s.err != nil) {
					t.Fatalf("step %d: error %v, want %v", i, err, s.err)
				}
				if changed(actions) == s.noChange {
					t.Fatalf("step %d: changed %v", i, changed(actions))
				}
				if relay := relayed(actions) == int(s.join.Parts); relay == s.notRelayed {
					t.Fatalf("step %d: %d relayed", i, relayed(actions))
				}
				e, _ := who(table, "192.0.2.2")
				o, _ := who(table, "192.0.2.3")
				if e != s.even || o != s.odd {
					t.Fatalf("step %d: even %q, odd %q, want %q, %q", i, e, o, s.even, s.odd)
				}
			}
		})
	}
}

func TestGroupWithoutMembersStaysKnown(t *testing.T) {
	table, now := newTable(t)
	if _, err := table.Join(now, "lan", extended(now, s1, 3, 1, even)); err != nil {
		t.Fatal(err)
	}
	run(table, now, now.Add(300*time.Second))
	if port, known := who(table, "192.0.2.2"); port != "" || !known {
		t.Fatalf("after expiry: port %q, known %v", port, known)
	}
	if table.Term(private) != 3 {
		t.Fatal("the term is forgotten")
	}
}

func TestStandbyIsNoOwner(t *testing.T) {
	table, now := newTable(t)
	first := extended(now, s1, 1, 1, even)
	first.Standby = odd
	second := extended(now, s2, 1, 1, odd)
	second.Standby = even
	for _, j := range []join.Signed{first, second} {
		if _, err := table.Join(now, "lan", j); err != nil {
			t.Fatalf("standby portions taken for an overlap: %v", err)
		}
	}
	if m := table.Members(); len(m) != 2 || !m[0].Standby.Equal(odd) || !m[1].Standby.Equal(even) {
		t.Fatalf("members %+v", m)
	}
}

func TestPrivateBounds(t *testing.T) {
	cfg := testConfig()
	cfg.Limits = Limits{Private: 2, Requesters: 2, Owners: 3}
	table := New(cfg)
	now := start
	joinAs := func(g string, last byte, own string) error {
		now = now.Add(time.Millisecond)
		j := extended(now, netip.AddrFrom4([4]byte{10, 3, 0, last}), 1, 1, set(own))
		j.Group = netip.MustParseAddr(g)
		_, err := table.Join(now, "lan", j)
		return err
	}
	for i, tt := range []struct {
		group string
		host  byte
		full  bool
	}{
		{"239.0.0.1", 1, false}, {"239.0.0.1", 2, false},
		{"239.0.0.1", 3, true}, // requesters of a group
		{"239.0.0.2", 3, false},
		{"239.0.0.2", 4, true}, // owners
		{"239.0.0.3", 1, true}, // groups
	} {
		err := joinAs(tt.group, tt.host, fmt.Sprintf("10.9.0.%d", tt.host))
		if errors.Is(err, ErrFull) != tt.full || err != nil && !tt.full {
			t.Fatalf("%d: %v", i, err)
		}
	}
	run(table, start, now.Add(time.Hour))
	if err := joinAs("239.0.0.3", 4, "10.9.0.4"); err != nil {
		t.Fatalf("groups and owners that are gone still take room: %v", err)
	}
}

func TestOwnerNumbers(t *testing.T) {
	o := newOwners(2)
	used := map[netip.Addr]bool{}
	inUse := func(a netip.Addr) bool { return used[a] }
	a, _ := o.get(s1, inUse)
	b, _ := o.get(s2, inUse)
	used[s1] = true
	again, _ := o.get(s1, inUse)
	if a != 1 || b != 2 || again != a {
		t.Fatalf("numbers %d %d %d", a, b, again)
	}
	third, ok := o.get(own, inUse)
	if !ok || third != 2 {
		t.Fatalf("number %d, %v; want the one that is free", third, ok)
	}
	used[own] = true
	if _, ok := o.get(s2, inUse); ok {
		t.Fatal("more owners than numbers")
	}
}

func TestSnapshot(t *testing.T) {
	table, now := newTable(t)
	for _, j := range []join.Signed{extended(now, s2, 4, 1, odd), extended(now, s1, 4, 1, even)} {
		if _, err := table.Join(now, "lan", j); err != nil {
			t.Fatal(err)
		}
	}
	table.V2Report(now, "lan", pub)
	data, err := json.Marshal(table.Snapshot(now))
	if err != nil {
		t.Fatal(err)
	}

	restore := func(members bool) *Table {
		var s Snapshot
		if err := json.Unmarshal(data, &s); err != nil {
			t.Fatal(err)
		}
		next := New(testConfig())
		if _, err := next.Restore(now, s, members); err != nil {
			t.Fatal(err)
		}
		next.SetPort(now, Port{Name: "lan", Address: own, Members: true})
		return next
	}
	next := restore(true)
	before, after := table.Private()[private], next.Private()[private]
	for _, user := range []string{"192.0.2.2", "192.0.2.3"} {
		a := netip.MustParseAddr(user)
		if before.Plan.Lookup(a) != after.Plan.Lookup(a) || after.Plan.Lookup(a) == 0 {
			t.Fatalf("owner of %v: %d before, %d after", a, before.Plan.Lookup(a), after.Plan.Lookup(a))
		}
	}
	if fmt.Sprint(before.Owners) != fmt.Sprint(after.Owners) || routes(next, now) != "*->lan" {
		t.Fatalf("owners %v and %v, routes %q", before.Owners, after.Owners, routes(next, now))
	}
	run(next, now, now.Add(260*time.Second))
	if port, _ := who(next, "192.0.2.2"); port != "" || routes(next, now) != "" {
		t.Fatal("a restored member that is silent stays for ever")
	}

	rebooted := restore(false)
	if port, known := who(rebooted, "192.0.2.2"); port != "" || !known || rebooted.Term(private) != 4 || routes(rebooted, now) != "" {
		t.Fatalf("after a reboot: port %q, known %v, term %d", port, known, rebooted.Term(private))
	}
	if n, _ := rebooted.owners.get(s2, rebooted.inUse); n != steer.Owner(1) {
		t.Fatalf("owner %d after a reboot", n)
	}
}

func TestBadSnapshotEntriesAreLeftOut(t *testing.T) {
	table := New(testConfig())
	_, err := table.Restore(start, Snapshot{
		Owners: []OwnerEntry{{s1, 0}, {s1, 1}, {s2, 1}, {s2, 5000}},
		Private: []PrivateEntry{
			{Group: pub}, {},
			{Group: private, Members: []MemberEntry{{}, {Requester: s1, Port: "lan", Own: even}}},
		},
		Public: []PublicEntry{{Group: private, Port: "lan"}},
	}, true)
	if err == nil {
		t.Fatal("no error")
	}
	if port, _ := who(table, "192.0.2.2"); port != "lan" || routes(table, start) != "" {
		t.Fatalf("port %q, routes %q", port, routes(table, start))
	}
}
