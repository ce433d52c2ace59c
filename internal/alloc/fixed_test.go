package alloc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/portion"
)

func fixed(owner, standby string, portions ...string) []Fixed {
	var out []Fixed
	for _, p := range portions {
		out = append(out, Fixed{portion.MustParse(p), owner, standby})
	}
	return out
}

func ownerOf(t *testing.T, a Allocation, user string) string {
	t.Helper()
	ans, err := a.Why(netip.MustParseAddr(user))
	if err != nil {
		t.Fatal(err)
	}
	return ans.Owner
}

func TestFixedPortionComesAndGoes(t *testing.T) {
	servers := pool(1, 1, 1)
	a, _ := next(t, Allocation{}, Want{Servers: servers})
	w := Want{Servers: servers, Fixed: fixed("s2", "s3", "10.0.0.0/8")}
	b, m := next(t, a, w)
	if got := ownerOf(t, b, "10.1.2.3"); got != "s2" || ownerOf(t, b, "11.1.2.3") != ownerOf(t, a, "11.1.2.3") {
		t.Errorf("10.1.2.3 is %s's, want s2's, and nobody else moved", got)
	}
	if others := float64(a.Counts()["s1"]+a.Counts()["s3"]) / 256; m.FractionMoved() != others/256 || m.Needed != m.Moved || m.Slots != 0 {
		t.Errorf("%+v, want what others had of the prefix", m)
	}
	if b.Same(a) || !b.Same(b) {
		t.Error("with and without is the same")
	}
	c, back := next(t, b, Want{Servers: servers})
	if !c.Same(a) || back.Moved != m.Moved || back.Needed != m.Moved {
		t.Errorf("%+v, want all back", back)
	}
}

// TestFixedPortionGoesToItsStandby by the word of the policy; without it, to its slots.
func TestFixedPortionGoesToItsStandby(t *testing.T) {
	servers := pool(1, 1, 1, 1)
	a, _ := next(t, Allocation{}, Want{Servers: servers, Fixed: fixed("s2", "", "10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8")})
	var standbys []string
	for cell := 256; cell < a.Cells(); cell++ {
		standbys = append(standbys, a.StandbyOf(cell))
	}
	if slices.Sort(standbys); fmt.Sprint(standbys) != "[s1 s3 s4]" {
		t.Errorf("standbys %v, want all others", standbys)
	}
	servers[1].Alive = false
	var w Want
	for i, p := range a.Fixed {
		w.Fixed = append(w.Fixed, Fixed{Portion: p, Owner: a.StandbyOf(256 + i)})
	}
	w.Servers = servers
	b, m := next(t, a, w)
	for i := range b.Fixed {
		if b.OwnerOf(256+i) != a.StandbyOf(256+i) || b.StandbyOf(256+i) == b.OwnerOf(256+i) {
			t.Errorf("%v is %s's, standby %s, want %s's", b.Fixed[i], b.OwnerOf(256+i), b.StandbyOf(256+i), a.StandbyOf(256+i))
		}
	}
	if m.Moved != m.Needed || m.Moved != a.Sizes()["s2"] {
		t.Errorf("%+v, want what s2 had", m)
	}
	c, _ := next(t, a, Want{Servers: servers, Fixed: fixed("s2", "", "10.0.0.0/8")})
	if len(c.Fixed) != 0 {
		t.Errorf("fixed for the dead: %v", c.Fixed)
	}
}

func TestFixedPortionsThatCannotBe(t *testing.T) {
	many := func(n int, text string) (out []Fixed) {
		for i := range n {
			out = append(out, fixed("s1", "", fmt.Sprintf(text, i))...)
		}
		return out
	}
	r := rand.New(rand.NewPCG(1, 2))
	var odd []Fixed
	for i := range 40 {
		p, err := portion.New(addr4(uint32(i)<<8), addr4(r.Uint32()|0x3f<<8))
		if err != nil {
			t.Fatal(err)
		}
		odd = append(odd, Fixed{Portion: p, Owner: "s1"})
	}
	for name, test := range map[string]struct {
		slots Slots
		fixed []Fixed
		says  string
	}{
		"overlap":     {suffix8, fixed("s1", "", "10.0.0.0/8", "0.0.0.7/0.0.0.255"), "10.0.0.0/8 and 0.0.0.7/0.0.0.255 overlap"},
		"twice":       {suffix8, fixed("s1", "", "10.0.0.0/8", "10.0.0.0/8"), "overlap"},
		"IPv6":        {suffix8, fixed("s1", "", "2001:db8::/32"), "no IPv4 portion"},
		"invalid":     {suffix8, []Fixed{{Owner: "s1"}}, "no IPv4 portion"},
		"too many":    {suffix8, many(65, "10.%d.0.0/16"), "at most 64"},
		"masks":       {suffix8, odd, "different masks"},
		"many slots":  {Slots{Suffix, 16}, fixed("s1", "", "10.1.0.0/16"), "slots of fewer bits"},
		"of the dead": {suffix8, fixed("s9", "", "10.0.0.0/8", "10.0.0.0/9"), "overlap"},
	} {
		_, _, err := Next(Allocation{}, Want{Slots: test.slots, Servers: pool(1, 1), Fixed: test.fixed})
		if !errors.Is(err, ErrFixed) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q in it", name, err, test.says)
		}
	}
	for name, w := range map[string]Want{
		"prefixes":          {Slots: suffix8, Fixed: many(64, "10.%d.0.0/16")},
		"over many slots":   {Slots: Slots{Suffix, 16}, Fixed: many(64, "10.0.%d.0/24")},
		"of prefixes":       {Slots: Slots{Prefix, 16}, Fixed: many(64, "10.%d.0.0/16")},
		"every length":      {Slots: suffix8, Fixed: fixed("s1", "", everyLength()...)},
		"halves of a slot":  {Slots: suffix8, Fixed: fixed("s1", "", "0.0.0.7/0.0.3.255", "0.0.1.7/0.0.3.255", "0.0.2.7/0.0.2.255")},
		"and of prefix cut": {Slots: Slots{Prefix, 8}, Fixed: fixed("s1", "", "7.128.0.0/9", "7.0.0.0/10")},
	} {
		w.Servers = pool(1, 1)
		if a, _ := next(t, Allocation{}, w); len(a.Fixed) != len(w.Fixed) {
			t.Errorf("%s: %v", name, a.Fixed)
		}
	}
}

// everyLength is a prefix of each length, disjoint.
func everyLength() (out []string) {
	for bits := 1; bits <= 32; bits++ {
		out = append(out, netip.PrefixFrom(addr4(1<<(32-bits)), bits).String())
	}
	return out
}

// TestNewFixedPortionsWait where routers could not hold old and new ones at once.
func TestNewFixedPortionsWait(t *testing.T) {
	var long, across []Fixed
	for i := range 30 {
		long = append(long, fixed("s1", "", netip.PrefixFrom(addr4(1<<(31-i)), i+1).String())...)
	}
	for _, mask := range []string{"0.0.1.255", "0.0.3.255", "0.0.7.255", "0.0.15.255"} {
		across = append(across, fixed("s2", "", fmt.Sprintf("0.0.%d.0/%s", 1<<len(across), mask))...)
	}
	servers := pool(1, 1, 1)
	a, _ := next(t, Allocation{}, Want{Servers: servers, Fixed: long})
	w := Want{Servers: servers, Fixed: across}
	b, m := next(t, a, w)
	if len(b.Fixed) != 0 || m.Moved != m.Needed || len(m.Waiting) != len(across) {
		t.Errorf("at first: %v, want none: 30 lengths by 4 masks; waiting %v", b.Fixed, m.Waiting)
	}
	c, m := next(t, b, w)
	if len(c.Fixed) != len(across) || m.Moved != m.Needed || len(m.Waiting) != 0 {
		t.Errorf("then: %v, want %v; waiting %v", c.Fixed, across, m.Waiting)
	}
	if d, _ := next(t, c, w); !d.Same(c) {
		t.Errorf("and then: %v", d.Fixed)
	}
	if d, m := next(t, a, Want{Servers: servers, Fixed: append(across, long[29])}); len(d.Fixed) != 1 || len(m.Waiting) != len(across) {
		t.Errorf("what was there already: %v, waiting %v", d.Fixed, m.Waiting)
	}
}

// TestBetweenAgainstEveryUser of small spaces, with cuts that differ.
func TestBetweenAgainstEveryUser(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 3))
		random := func() Allocation {
			a, _ := next(t, Allocation{}, Want{Slots: Slots{Suffix, 1 + r.IntN(6)}, Servers: pool(1, 2, 3), Fixed: changeFixed(r, nil, 3)})
			for i := range a.Owner { // whoever happens to have them
				a.Owner[i] = uint16(r.IntN(3))
			}
			return a
		}
		a, b := random(), random()
		asks := map[string]func(was, is int) bool{
			"goes from s1 to s2":       func(was, is int) bool { return a.OwnerOf(was) == "s1" && b.OwnerOf(is) == "s2" },
			"stays, or comes to s3":    func(was, is int) bool { return a.OwnerOf(was) == b.OwnerOf(is) || b.OwnerOf(is) == "s3" },
			"goes to the one stood by": func(was, is int) bool { return a.StandbyOf(was) == b.OwnerOf(is) },
		}
		for name, ask := range asks {
			got, pairs := Between(a, b, ask), map[[2]int]bool{}
			for was, is := range Pairs(a, b) {
				pairs[[2]int{was, is}] = true
			}
			for user := range sample {
				was, is := a.CellOf(user), b.CellOf(user)
				if got.Contains(user) != ask(was, is) {
					t.Fatalf("seed %d, %s: %v: %t; %v", seed, name, user, !ask(was, is), got)
				}
				if !pairs[[2]int{was, is}] {
					t.Fatalf("seed %d: %v goes from cell %d to %d, which is not told", seed, user, was, is)
				}
			}
		}
	}
	a, _ := next(t, Allocation{}, Want{Servers: pool(1), Slots: Slots{Prefix, 3}})
	b, _ := next(t, Allocation{}, Want{Servers: pool(1)})
	if Comparable(a, b) || len(Between(a, b, func(int, int) bool { return true })) != 0 {
		t.Error("cuts by other bits are compared")
	}
}

// TestLargestAllocation: the bounds of slots, servers and fixed portions, all at once. BenchmarkNext says how long it takes.
func TestLargestAllocation(t *testing.T) {
	want := largest()
	a, _ := next(t, Allocation{}, want)
	for i := range 40 {
		want.Servers[i*7].Alive = false
	}
	b, m := next(t, a, want)
	if m.Moved != m.Needed || len(b.Fixed) == 0 {
		t.Errorf("%+v", m)
	}
	p := ToProto("web", b)
	if c, err := FromProto(p); err != nil || !c.Same(b) {
		t.Errorf("read back: %v", err)
	}
}

func largest() Want {
	want := Want{Slots: Slots{Suffix, 16}}
	for i := range MaxServers {
		want.Servers = append(want.Servers, Server{Name: fmt.Sprintf("s%04d", i), Weight: 1 + i%7, Alive: true})
	}
	for i := range MaxFixed {
		want.Fixed = append(want.Fixed, fixed(fmt.Sprintf("s%04d", i*13), "", fmt.Sprintf("10.0.%d.0/24", i))...)
	}
	return want
}

func BenchmarkNext(b *testing.B) {
	want := largest()
	a, _, err := Next(Allocation{}, want)
	if err != nil {
		b.Fatal(err)
	}
	want.Servers[7].Alive = false
	for b.Loop() {
		if _, _, err := Next(a, want); err != nil {
			b.Fatal(err)
		}
	}
}
