package steer

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/manycast/manycast/internal/portion"
)

func TestWithUsers(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	base := mustCompile(t, append(slots(r, 8, 3, 1), Claim{Owner: 9, Rank: 1, Set: portion.Set{Permit: []portion.Portion{cut(0xc0000207, hostMask)}}}))
	user := netip.MustParseAddr
	p, err := base.WithUsers([]User{
		{user("10.0.0.1"), 4}, {user("10.0.0.2"), 5}, {user("10.0.0.1"), 6}, {user("192.0.2.7"), 7}, {user("::ffff:10.0.0.3"), 0},
	})
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]Owner{
		"10.0.0.1": 6, "10.0.0.2": 5, "192.0.2.7": 7, "10.0.0.3": 0, "10.0.0.4": base.Lookup(user("10.0.0.4")),
	} {
		if got := p.Lookup(user(addr)); got != want {
			t.Errorf("owner of %s is %d, want %d", addr, got, want)
		}
	}
	if got := base.Lookup(user("192.0.2.7")); got != 9 || base.Users() != 1 {
		t.Errorf("the plan that it was made of has changed: owner %d, %d users", got, base.Users())
	}
	if p.Users() != 4 || p.Equal(base) || p.digest() == base.digest() {
		t.Errorf("%d users, want 4", p.Users())
	}
	for _, u := range []User{{user("2001:db8::1"), 1}, {user("10.0.0.1"), MaxOwner + 1}, {netip.Addr{}, 1}} {
		if _, err := base.WithUsers([]User{u}); err == nil {
			t.Errorf("%+v was taken", u)
		}
	}
}

// What there is for a user is found where a search begins, and nothing for others; a million take at most 16 bytes each.
func TestTablesOfUsers(t *testing.T) {
	for _, n := range []int{1, 7, 8, 9, 1000, 1_000_000} {
		users := make([]override, n)
		for i := range users {
			users[i] = newOverride(0x0b000000+uint32(i), Owner(i%1000))
		}
		table, at := layUsers(users)
		if size := 8 * lineUsers * len(table); size > max(16*n, 64*2) {
			t.Errorf("%d users take %d bytes", n, size)
		}
		for _, i := range []int{0, n / 2, n - 1} {
			if got := findUser(table, at, users[i].addr()); got&^userMore != users[i] {
				t.Errorf("%d users: user %d is %#x, want %#x", n, i, got, users[i])
			}
		}
		if got := findUser(table, at, 0x0a000000); got != 0 {
			t.Errorf("%d users: a stranger is %#x", n, got)
		}
	}
}

// findUser is steer_user of steer.h.
func findUser(table []userLine, at usersAt, addr uint32) override {
	first, second := at.lines(addr)
	if u := table[first].find(addr); u != 0 || table[first][0]&userMore == 0 {
		return u
	}
	return table[second].find(addr)
}

func (l *userLine) find(addr uint32) override {
	for _, w := range l {
		if o := override(w); o.addr() == addr && w&userHere != 0 {
			return o
		}
	}
	return 0
}

func TestNetProgramFindsUsers(t *testing.T) {
	o, m := load(t, "", 1<<10)
	r := rand.New(rand.NewPCG(13, 14))
	base := mustCompile(t, slots(r, 12, 3, 1))
	for _, n := range []int{100_000, 3, 0, 50_000} {
		users, at := make([]User, n), probes(nil, r, 200)
		for i := range users {
			users[i] = User{addr4(r.Uint32()), Owner(r.IntN(50))} // 0 among them
			if i < 2000 {
				at = append(at, users[i].Addr)
			}
		}
		p, err := base.WithUsers(users)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Set(map[netip.Addr]*Plan{group: p}); err != nil {
			t.Fatal(err)
		}
		checkProgram(t, o, group, p, at)
		if err := m.settle(); err != nil {
			t.Fatal(err)
		}
		if want := min(n, 1); len(m.users.made) != want {
			t.Errorf("%d tables of users are kept, want %d", len(m.users.made), want)
		}
	}
}
