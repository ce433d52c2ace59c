package flowspec

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/tdpd/internal/steering"
)

// allocated is a binding of three servers, by these slots.
func allocated(slots alloc.Slots, r *rand.Rand, fixed ...string) steering.Binding {
	a := alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: 1}, Slots: slots, Servers: []string{"s1", "s2", "s3"}, Addresses: []netip.Addr{server(1), server(2), server(3)},
	}
	for _, f := range fixed {
		a.Fixed = append(a.Fixed, portion.MustParse(f))
	}
	slices.SortFunc(a.Fixed, portion.Portion.Compare)
	for range a.Cells() {
		owner := uint16(r.IntN(3))
		a.Owner, a.Standby = append(a.Owner, owner), append(a.Standby, (owner+1)%3)
	}
	return steering.Binding{Service: "web", VIPs: []netip.Addr{vip4, vip6}, Allocation: a, Lifetime: time.Minute}
}

// Whoever has a rule goes where the plans of our own routers send it, whichever servers fail.
func TestRulesDecideAsPlansDo(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 5))
		b := allocated(alloc.Slots{By: []alloc.By{alloc.Suffix, alloc.Prefix}[r.IntN(2)], Bits: 1 + r.IntN(8)}, r, "192.0.2.0/24", "10.0.0.1/255.0.0.255", "128.0.0.0/9")
		for i := range 1 + r.IntN(5) {
			b.Users = append(b.Users, steering.User{Address: address(uint32(i*0x11000001 + 1)), Server: []string{"s1", "s2", "s3"}[r.IntN(3)]})
		}
		health := map[string]steering.Health{[]string{"s1", "s2", "s3", "none"}[r.IntN(4)]: steering.Silent}
		of := func(s string) steering.Health { return health[s] }
		compiled, err := steering.Compile(b)
		if err != nil {
			t.Fatal(err)
		}
		plan, _ := compiled.Plans(of, func(name string) steer.Owner { return steer.Owner(slices.Index(b.Allocation.Servers, name) + 1) })
		u := Of(b, steering.Takes(b, of))
		rules := Compile([]Users{u}, Config{Most: 2000, Nested: seed%2 == 0}).Rules
		if len(rules) == 0 {
			t.Fatalf("seed %d: no rules, though exceptions have some", seed)
		}
		for _, a := range probes(r, u.Four) {
			to, want := Decide(rules, a, vip4).RedirectIP, b.Allocation.Addresses[plan.Lookup(a)-1]
			if to.IsValid() && to != want {
				t.Fatalf("seed %d: user %v goes to %v, plans say %v", seed, a, to, want)
			}
			if b.Allocation.Slots.By == alloc.Prefix && !to.IsValid() && !portion.MustParse("10.0.0.0/8").Contains(a) && b.Allocation.Slots.Bits >= 8 {
				t.Fatalf("seed %d: user %v has no rule, though all around is prefixes", seed, a)
			}
		}
	}
}

func TestUsersOfBindings(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	well := func(string) steering.Health { return steering.Available }
	suffix := allocated(alloc.Slots{By: alloc.Suffix, Bits: 8}, r)
	u := Of(suffix, steering.Takes(suffix, well))
	got := Compile([]Users{u}, Config{Most: 100})
	if len(got.Rules) != 0 || got.Reasons[NotPrefix] != 256 || got.Reasons[Hashed] != 1 {
		t.Errorf("slots by suffix: rules %v, reasons %v: want none, 256 slots and the users of IPv6 left", got.Rules, got.Reasons)
	}
	alone := suffix
	alone.UsersOnly, alone.Users = true, []steering.User{{Address: address(7), Server: "s1"}, {Address: address(9), Server: "s2"}}
	silent := func(s string) steering.Health { return map[string]steering.Health{"s2": steering.Silent}[s] }
	got = Compile([]Users{Of(alone, steering.Takes(alone, silent))}, Config{Most: 100})
	if len(got.Rules) != 1 || got.Rules[0].Source.Addr() != address(7) || len(got.Reasons) != 0 {
		t.Errorf("exceptions alone: rules %v, reasons %v: want one for the user whose server is there", got.Rules, got.Reasons)
	}
	nobody := steering.Binding{Service: "web", VIPs: suffix.VIPs, Nobody: true}
	if got = Compile([]Users{Of(nobody, steering.Takes(nobody, well))}, Config{Most: 100}); len(got.Rules)+len(got.Reasons) != 0 {
		t.Errorf("nobody serves: rules %v, reasons %v", got.Rules, got.Reasons)
	}
	one := suffix
	one.Allocation.Owner = make([]uint16, 256)
	one.Split = steer.Split{netip.MustParsePrefix("192.0.2.0/24")}
	got = Compile([]Users{Of(one, steering.Takes(one, well))}, Config{Most: 100})
	if len(got.Rules) != 24 || got.Reasons[ByPort] != 1 || got.Reasons[NoAddress] != 1 {
		t.Errorf("one server and a NAT: %d rules, reasons %v: want 24 around its prefix, and none of IPv6, of which the server has no address", len(got.Rules), got.Reasons)
	}
}
