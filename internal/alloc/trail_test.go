package alloc

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/epoch"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// history is a service's allocations, of four slots, one letter a slot: "abba".
func history(holders Holders, owners ...string) Allocation {
	var last Allocation
	for i, text := range owners {
		names := slices.Compact(slices.Sorted(slices.Values(strings.Split(text, ""))))
		a := Allocation{Epoch: epoch.Epoch{Term: 1, Number: uint64(i + 1)}, Slots: Slots{Suffix, 2}, Servers: names}
		for _, name := range strings.Split(text, "") {
			a.Owner, a.Standby = append(a.Owner, uint16(slices.Index(names, name))), append(a.Standby, None)
		}
		a.Trail = Follow(last, a, holders, nil)
		last = a
	}
	return last
}

// said is a cell's chain in words: "b2 a1", with "cut 1" behind.
func said(a Allocation, cell int) string {
	var words []string
	c := a.ChainOf(cell)
	for _, h := range c.Hops {
		words = append(words, fmt.Sprint(h.Server, h.Until.Number))
	}
	if c.Cut != (epoch.Epoch{}) {
		words = append(words, "cut", fmt.Sprint(c.Cut.Number))
	}
	return strings.Join(words, " ")
}

func TestTrails(t *testing.T) {
	all := Holders{}
	for _, name := range strings.Split("abcdefghijk", "") {
		all[name] = epoch.Epoch{}
	}
	number := func(n uint64) epoch.Epoch { return epoch.Epoch{Term: 1, Number: n} }
	for _, test := range []struct {
		holders Holders
		owners  string
		want    string // of the first cell
	}{
		{all, "abba", ""},
		{all, "abba bbba", "a1"},
		{all, "abba bbba cbba", "b2 a1"},
		{all, "abba bbba cbba abba", "c3 b2 a1"}, // there and back: c, before it executes the last one, has to find a
		{Holders{"b": {}, "c": {}}, "abba bbba cbba abba", "c3 b2"},
		{all, "abba bbba abba bbba", "a3 b2"},
		{all, "abba bbba bbba bbba", "a1"},
		{Holders{"b": number(2), "c": {}}, "abba bbba cbba dbba", "c3 b2"}, // a says that it holds nothing
		{Holders{"b": number(3), "c": {}}, "abba bbba cbba dbba", "c3"},    // b holds only what it had later
		{Holders{"b": {}, "c": {}}, "abba bbba cbba dbba", "c3 b2"},
		{Holders{"b": {}}, "abba bbba cbba dbba", "b2"}, // c has died
		{all, "abba bbba cbba dbba ebba fbba gbba hbba ibba", "h8 g7 f6 e5 d4 c3 b2 a1"},
		{all, "abba bbba cbba dbba ebba fbba gbba hbba ibba jbba", "i9 h8 g7 f6 e5 d4 c3 b2 cut 1"},
		{all, "abba bbba cbba dbba ebba fbba gbba hbba ibba jbba kbba", "j10 i9 h8 g7 f6 e5 d4 c3 cut 2"},
		{Holders{"j": number(10)}, "abba bbba cbba dbba ebba fbba gbba hbba ibba jbba kbba", "j10"},
	} {
		a := history(test.holders, strings.Fields(test.owners)...)
		if got := said(a, 0); got != test.want {
			t.Errorf("%s: %q, want %q", test.owners, got, test.want)
		}
		for cell := 1; cell < 4; cell++ {
			if got := said(a, cell); got != "" {
				t.Errorf("%s: slot %d, which stayed: %q", test.owners, cell, got)
			}
		}
		if err := a.Check(); err != nil {
			t.Errorf("%s: %v", test.owners, err)
		}
		back, err := FromProto(ToProto("web", a))
		if err != nil || !reflect.DeepEqual(back.Trail, a.Trail) {
			t.Errorf("%s: on the bus %+v, %v", test.owners, back.Trail, err)
		}
	}
}

// TestTrailsNameStandbys that stood in, unless they own the cell now, have died, or hold nothing any more.
func TestTrailsNameStandbys(t *testing.T) {
	number := func(n uint64) epoch.Epoch { return epoch.Epoch{Term: 1, Number: n} }
	stoodIn := func(owner, standby string) bool { return owner == "a" && standby == "c" }
	before := history(Holders{}, "abba")
	before.Servers, before.Standby = []string{"a", "b", "c"}, []uint16{2, 2, None, 2}
	for _, test := range []struct {
		owners  string
		holders Holders
		want    string // of the four cells
	}{
		{"abba", Holders{"a": {}, "b": {}, "c": {}}, "c1,,,c1"},
		{"bbba", Holders{"a": {}, "b": {}, "c": {}}, "a1 c1,,,c1"},
		{"bbba", Holders{"b": {}, "c": {}}, "c1,,,c1"}, // a has died
		{"cbba", Holders{"a": {}, "b": {}, "c": {}}, "a1,,,c1"},
		{"bbba", Holders{"a": {}, "b": {}}, "a1,,,"},
	} {
		next := history(Holders{}, "abcc", test.owners)
		next.Trail = Follow(before, next, test.holders, stoodIn)
		var got []string
		for cell := range 4 {
			got = append(got, said(next, cell))
		}
		if err := next.Check(); err != nil || strings.Join(got, ",") != test.want {
			t.Errorf("%s, %v: %q, %v, want %s", test.owners, test.holders, strings.Join(got, ","), err, test.want)
		}
		last := next
		last.Epoch.Number++
		last.Trail = Follow(next, last, Holders{"a": {}, "b": {}, "c": number(2)}, nil)
		if got := said(last, 3); got != "" {
			t.Errorf("%s: c holds nothing from before: %s", test.owners, got)
		}
	}
}

// TestTrailsOfUsers moves users between servers at random, cuts the space otherwise now and then, and holds trails to whom each user had.
func TestTrailsOfUsers(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 6))
		servers := pool(1, 1, 1, 1)
		a, _ := next(t, Allocation{}, Want{Servers: servers, Slots: Slots{Suffix, 4}, Epoch: epoch.Epoch{Number: 1}})
		holders := Holders{"s1": {}, "s2": {}, "s3": {}, "s4": {}}
		had := map[int]map[string]uint64{} // user -> server -> number of the last epoch
		for step := uint64(2); step < 10; step++ {
			for user := range 64 {
				if had[user] == nil {
					had[user] = map[string]uint64{}
				}
				had[user][a.OwnerOf(a.CellOf(addr4(uint32(user)<<26|uint32(user))))] = a.Epoch.Number
			}
			change(r, servers)
			w := Want{Servers: servers, Slots: Slots{[]By{Suffix, Suffix, Suffix, Prefix}[r.IntN(4)], 3 + r.IntN(3)}, Epoch: epoch.Epoch{Number: step}}
			w.Fixed = changeFixed(r, nil, len(servers))
			b, _, err := Next(a, w)
			if err != nil {
				continue
			}
			b.Trail = Follow(a, b, holders, nil)
			if err := b.Check(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			a = b
			for user, servers := range had {
				cell := a.CellOf(addr4(uint32(user)<<26 | uint32(user)))
				named := map[string]uint64{}
				for _, h := range a.ChainOf(cell).Hops {
					named[h.Server] = h.Until.Number
				}
				for server, until := range servers {
					if server != a.OwnerOf(cell) && named[server] < until {
						t.Fatalf("seed %d, step %d: user %d was %s's until %d; its trail is %s", seed, step, user, server, until, said(a, cell))
					}
				}
			}
		}
	}
}

func TestBadTrailsAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*allocv1.Trail){
		"of other cells":  func(p *allocv1.Trail) { p.Of = p.Of[1:] },
		"of no chain":     func(p *allocv1.Trail) { p.Of[0] = 2 },
		"without cells":   func(p *allocv1.Trail) { p.Of = nil },
		"nobody":          func(p *allocv1.Trail) { p.Chains[0].Hops[0].Server = "" },
		"of the future":   func(p *allocv1.Trail) { p.Chains[0].Hops[0].Until.Number = 3 },
		"backwards":       func(p *allocv1.Trail) { p.Chains[0].Hops[0].Until.Number = 0 },
		"address":         func(p *allocv1.Trail) { p.Chains[0].Hops[0].Address = "a" },
		"of many servers": func(p *allocv1.Trail) { p.Chains[0].Hops = slices.Repeat(p.Chains[0].Hops[:1], 9) },
	} {
		p := ToProto("web", history(Holders{"a": {}, "b": {}}, "abba", "bbba", "cbba"))
		spoil(p.GetTrail())
		if got, err := FromProto(p); err == nil {
			t.Errorf("%s: accepted %+v", name, got.Trail)
		}
	}
}

func BenchmarkFollow(b *testing.B) {
	slots := Slots{Suffix, 16}
	before, _, err := Next(Allocation{}, Want{Slots: slots, Servers: pool(ones(100)...), Epoch: epoch.Epoch{Number: 1}})
	if err != nil {
		b.Fatal(err)
	}
	after, _, err := Next(before, Want{Slots: slots, Servers: pool(ones(110)...), Epoch: epoch.Epoch{Number: 2}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		Follow(before, after, nil, nil)
	}
}
