package flowspec

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/tdpd/internal/bgp"
)

var (
	vip4 = netip.MustParseAddr("198.51.100.1")
	vip6 = netip.MustParseAddr("2001:db8::1")
)

func server(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}) }

func address(v uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return netip.AddrFrom4(b)
}

func bind(text string, n int) Bound {
	return Bound{Portion: portion.MustParse(text), Server: server(n)}
}

// taker is the bound that decides about a user, by a look at all of them; false: there is none.
func taker(bounds []Bound, user netip.Addr) (Bound, bool) {
	i := slices.IndexFunc(bounds, func(b Bound) bool { return b.Portion.Contains(user) })
	if i < 0 {
		return Bound{}, false
	}
	return bounds[i], true
}

// randomBounds are of few bits, so that they meet: prefixes, and other masks where they may be.
func randomBounds(r *rand.Rand, masks bool) (out []Bound) {
	for range r.IntN(12) {
		mask := ^uint32(0) << (32 - r.IntN(33))
		if masks && r.IntN(3) == 0 {
			mask = r.Uint32() & r.Uint32()
		}
		p, _ := portion.New(address(r.Uint32()&0xf000_0007), address(mask))
		b := Bound{Portion: p, Server: server(1 + r.IntN(3))}
		if r.IntN(6) == 0 {
			b = Bound{Portion: p, Why: ByPort}
		}
		out = append(out, b)
	}
	return out
}

// probes are addresses at the edges of portions, and some others.
func probes(r *rand.Rand, bounds []Bound) (out []netip.Addr) {
	for _, b := range bounds {
		base, mask := binary.BigEndian.Uint32(b.Portion.Addr.AsSlice()), binary.BigEndian.Uint32(b.Portion.Mask.AsSlice())
		out = append(out, address(base), address(base|^mask), address(base-1), address((base|^mask)+1), address(base|r.Uint32()&^mask))
	}
	for range 30 {
		out = append(out, address(r.Uint32()), address(r.Uint32()&0xf000_0007))
	}
	return out
}

// What rules decide is what the bindings say, or the director; and it is the director only for portions that Compile says are left to it.
func TestRulesDecideAsBindingsDo(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 8955))
		c := Config{Most: []int{3, 10, 1000}[r.IntN(3)], Nested: r.IntN(2) == 0}
		if r.IntN(3) == 0 {
			c.Within = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/29"), netip.MustParsePrefix("240.0.0.0/6")}
		}
		u := Users{Service: "web", VIPs: []netip.Addr{vip4}, Four: randomBounds(r, true)}
		got := Compile([]Users{u}, c)
		if len(got.Rules) > c.Most {
			t.Fatalf("seed %d: %d rules, at most %d", seed, len(got.Rules), c.Most)
		}
		for _, a := range probes(r, u.Four) {
			want, bound := taker(u.Four, a)
			to := Decide(got.Rules, a, vip4).RedirectIP
			left := bound && slices.ContainsFunc(got.Left, func(l Left) bool { return l.Portion == want.Portion && l.Server == want.Server })
			switch {
			case to == want.Server:
			case to.IsValid():
				t.Fatalf("seed %d: user %v goes to %v, not to %v\nbounds %v\nrules %v", seed, a, to, want.Server, u.Four, got.Rules)
			case !left:
				t.Fatalf("seed %d: user %v goes to the director, not to %v, and nothing says so\nbounds %v\nrules %v\nleft %v", seed, a, want.Server, u.Four, got.Rules, got.Left)
			}
		}
		if !c.Nested {
			checkApart(t, got.Rules)
		}
	}
}

func checkApart(t *testing.T, rules []bgp.FlowRule) {
	t.Helper()
	for i, a := range rules {
		for _, b := range rules[:i] {
			if around(a.FlowMatch, b.FlowMatch) || around(b.FlowMatch, a.FlowMatch) {
				t.Fatalf("%v and %v match the same users", a, b)
			}
		}
	}
}

// fewest is how many rules there must be inside a part of 2^n users, when rules around say what has is.
func fewest(users []int, has int, nested bool) int {
	alike := !slices.ContainsFunc(users, func(s int) bool { return s != users[0] })
	if alike && users[0] == has {
		return 0
	}
	best := len(users) + 1
	if len(users) > 1 {
		half := len(users) / 2
		best = fewest(users[:half], has, nested) + fewest(users[half:], has, nested)
	}
	if alike {
		return 1
	}
	if !nested || slices.Contains(users, 0) { // a rule for all of it would have users who are for the director
		return best
	}
	for _, s := range users {
		half := len(users) / 2
		best = min(best, 1+fewest(users[:half], s, nested)+fewest(users[half:], s, nested))
	}
	return best
}

func TestRulesAreTheFewest(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1999))
		users := make([]int, 16)
		u := Users{Service: "web", VIPs: []netip.Addr{vip4}}
		least := r.IntN(2)
		for i := range users {
			if users[i] = least + r.IntN(4-least); users[i] > 0 {
				u.Four = append(u.Four, bind(fmt.Sprintf("%d.0.0.0/4", i*16), users[i]))
			}
		}
		for _, nested := range []bool{true, false} {
			got := Compile([]Users{u}, Config{Most: 1000, Nested: nested})
			if want := fewest(users, 0, nested); len(got.Rules) != want {
				t.Fatalf("seed %d, nested %v, users %v: %d rules, want %d: %v", seed, nested, users, len(got.Rules), want, got.Rules)
			}
		}
	}
}

func TestWhatIsLeftToTheDirector(t *testing.T) {
	everybody := netip.MustParsePrefix("0.0.0.0/0")
	for _, c := range []struct {
		name   string
		bounds []Bound
		config Config
		rules  []string // source, server
		left   []string // portion, why
	}{
		{"slots by prefix", []Bound{bind("0.0.0.0/2", 1), bind("64.0.0.0/2", 1), bind("128.0.0.0/1", 2)}, Config{},
			[]string{"0.0.0.0/1 1", "128.0.0.0/1 2"}, nil},
		{"slots by prefix, nested", []Bound{bind("0.0.0.0/2", 1), bind("64.0.0.0/2", 2), bind("128.0.0.0/1", 1)}, Config{Nested: true},
			[]string{"all 1", "64.0.0.0/2 2"}, nil},
		{"one server", []Bound{bind("0.0.0.0/0.0.0.1", 1), bind("0.0.0.1/0.0.0.1", 1), bind("0.0.0.0/0", 1)}, Config{}, []string{"all 1"}, nil},
		{"slots by suffix", []Bound{bind("0.0.0.0/0.0.0.1", 1), bind("0.0.0.1/0.0.0.1", 2)}, Config{}, nil,
			[]string{"0.0.0.0/0.0.0.1 not_prefix", "0.0.0.1/0.0.0.1 not_prefix"}},
		{"exceptions of slots by suffix", []Bound{bind("192.0.2.7", 3), bind("0.0.0.0/0.0.0.1", 1), bind("0.0.0.1/0.0.0.1", 2)}, Config{},
			[]string{"192.0.2.7/32 3"}, []string{"0.0.0.0/0.0.0.1 not_prefix", "0.0.0.1/0.0.0.1 not_prefix"}},
		{"fixed portions of slots by suffix", []Bound{bind("192.0.2.0/24", 3), bind("0.0.0.0/0.0.0.1", 1), bind("0.0.0.1/0.0.0.1", 2)}, Config{},
			[]string{"192.0.2.0/24 3"}, []string{"0.0.0.0/0.0.0.1 not_prefix", "0.0.0.1/0.0.0.1 not_prefix"}},
		{"slots by suffix of networks", []Bound{bind("0.0.0.0/0.0.0.2", 1), bind("0.0.0.2/0.0.0.2", 2)},
			Config{Within: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/29")}},
			[]string{"192.0.2.0/31 1", "192.0.2.2/31 2", "192.0.2.4/31 1", "192.0.2.6/31 2"}, []string{"0.0.0.0/0.0.0.2 not_prefix", "0.0.0.2/0.0.0.2 not_prefix"}},
		{"slots by suffix of too many", []Bound{bind("0.0.0.0/0.0.0.1", 1), bind("0.0.0.1/0.0.0.1", 2)}, Config{Within: []netip.Prefix{everybody}}, nil,
			[]string{"0.0.0.0/0.0.0.1 not_prefix", "0.0.0.1/0.0.0.1 not_prefix"}},
		{"a mask before a prefix", []Bound{bind("10.0.0.1/255.0.0.255", 1), bind("0.0.0.0/0", 2)}, Config{},
			[]string{"0.0.0.0/5 2", "8.0.0.0/7 2", "11.0.0.0/8 2", "12.0.0.0/6 2", "16.0.0.0/4 2", "32.0.0.0/3 2", "64.0.0.0/2 2", "128.0.0.0/1 2"},
			[]string{"0.0.0.0/0 not_prefix", "10.0.0.1/255.0.0.255 not_prefix"}},
		{"a mask before its own server", []Bound{bind("10.0.0.1/255.0.0.255", 2), bind("0.0.0.0/0", 2)}, Config{}, []string{"all 2"}, nil},
		{"a NAT that is split", []Bound{{Portion: portion.MustParse("128.0.0.0/1"), Why: ByPort}, bind("0.0.0.0/0", 2)}, Config{Nested: true},
			[]string{"0.0.0.0/1 2"}, []string{"128.0.0.0/1 by_port"}},
		{"no address", []Bound{{Portion: portion.MustParse("128.0.0.0/1"), Server: vip6}, bind("0.0.0.0/0", 2)}, Config{},
			[]string{"0.0.0.0/1 2"}, []string{"128.0.0.0/1 no_address"}},
		{"nobody", []Bound{{Portion: portion.MustParse("128.0.0.0/1")}, bind("0.0.0.0/0", 2)}, Config{}, []string{"0.0.0.0/1 2"}, nil},
		{"over the limit", []Bound{bind("192.0.2.1", 1), bind("192.0.2.2", 2), bind("10.0.0.0/8", 3), bind("11.0.0.0/9", 1)}, Config{Most: 2},
			[]string{"10.0.0.0/8 3", "11.0.0.0/9 1"}, []string{"192.0.2.1 over_limit", "192.0.2.2 over_limit"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.config.Most == 0 {
				c.config.Most = 100
			}
			got := Compile([]Users{{Service: "web", VIPs: []netip.Addr{vip4}, Four: c.bounds}}, c.config)
			var rules, left []string
			for _, r := range got.Rules {
				source := "all"
				if r.Source.IsValid() {
					source = r.Source.String()
				}
				rules = append(rules, fmt.Sprintf("%s %d", source, r.RedirectIP.As4()[3]))
			}
			for _, l := range got.Left {
				left = append(left, fmt.Sprintf("%v %v", l.Portion, l.Why))
			}
			if slices.Sort(left); !slices.Equal(rules, c.rules) || !slices.Equal(left, c.left) {
				t.Errorf("rules %q\nwant  %q\nleft %q\nwant %q", rules, c.rules, left, c.left)
			}
		})
	}
}

func TestIPv6AndVRFs(t *testing.T) {
	of := netip.MustParseAddr("2001:db8:1::5")
	u := Users{Service: "web", VIPs: []netip.Addr{vip4, vip6}, Four: []Bound{bind("0.0.0.0/0", 1)},
		Six: []Bound{{Portion: portion.MustParse("2001:db8:ff::/48"), Why: ByPort}, {Portion: portion.All6(), Server: of}}}
	got := Compile([]Users{u}, Config{Most: 100})
	if len(got.Rules) != 1+48 || got.Reasons[ByPort] != 1 {
		t.Fatalf("%d rules, reasons %v: want one, and 48 around the NAT's prefix", len(got.Rules), got.Reasons)
	}
	for user, want := range map[string]netip.Addr{"2001:db8:fe::1": of, "2001:db8:ff::1": {}, "2001:db8:100::1": of, "::1": of} {
		if to := Decide(got.Rules, netip.MustParseAddr(user), vip6).RedirectIP; to != want {
			t.Errorf("user %v goes to %v, want %v", user, to, want)
		}
	}
	target := bgp.RouteTarget{AS: 65001, Value: 7}
	u.Six = []Bound{{Portion: portion.All6(), Server: server(1)}} // by a VRF the server's address may be of another family
	got = Compile([]Users{u}, Config{Most: 100, VRFs: map[netip.Addr]bgp.RouteTarget{server(1): target}})
	for _, r := range got.Rules {
		if r.RedirectVRF != target || r.RedirectIP.IsValid() || r.Source.IsValid() {
			t.Errorf("rule %+v: want a redirect to VRF of everybody", r)
		}
	}
	if len(got.Rules) != 2 {
		t.Errorf("%d rules, want one of each VIP", len(got.Rules))
	}
}

// Who needs little has all of it, whoever else needs more than there is.
func TestServicesShareWhatThereIs(t *testing.T) {
	small := Users{Service: "small", VIPs: []netip.Addr{vip4}, Four: []Bound{bind("0.0.0.0/0", 1)}}
	big := Users{Service: "big", VIPs: []netip.Addr{server(100), server(101)}}
	for i := range 256 {
		big.Four = append(big.Four, bind(fmt.Sprintf("%d.0.0.0/8", i), 1+bits.OnesCount(uint(i))%2))
	}
	got := Compile([]Users{big, small}, Config{Most: 101})
	n := 0
	for _, r := range got.Rules {
		if r.Destination.Addr() == vip4 {
			n++
		}
	}
	if n != 1 || len(got.Rules) > 101 || len(got.Rules) < 51 || got.Reasons[OverLimit] == 0 {
		t.Errorf("%d of the small service, %d in all, reasons %v", n, len(got.Rules), got.Reasons)
	}
}

// No input takes more than its bound of memory.
func TestManyExceptionsAreBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	u := Users{Service: "web", VIPs: []netip.Addr{vip4}}
	for range 200_000 {
		u.Four = append(u.Four, Bound{Portion: portion.Host(address(r.Uint32())), Server: server(1 + r.IntN(3))})
	}
	u.Four = append(u.Four, bind("0.0.0.0/1", 1))
	got := Compile([]Users{u}, Config{Most: 1000})
	if len(got.Rules) > 1000 || len(got.Left) > LeftMost || got.Reasons[OverLimit] < 150_000 {
		t.Errorf("%d rules, %d left listed, reasons %v", len(got.Rules), len(got.Left), got.Reasons)
	}
	for _, b := range u.Four[:1000] {
		if to := Decide(got.Rules, b.Portion.Addr, vip4).RedirectIP; to.IsValid() && to != b.Server {
			t.Fatalf("user %v goes to %v, not to %v", b.Portion, to, b.Server)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	u := Users{Service: "web", VIPs: []netip.Addr{vip4}}
	for slot := range 65536 {
		p, _ := portion.New(address(uint32(slot)<<16), address(0xffff0000))
		u.Four = append(u.Four, Bound{Portion: p, Server: server(1 + slot*7%31%10)})
	}
	for _, nested := range []bool{false, true} {
		for _, most := range []int{1 << 17, 1000} {
			b.Run(fmt.Sprintf("nested=%v/most=%d", nested, most), func(b *testing.B) {
				for b.Loop() {
					Compile([]Users{u}, Config{Most: most, Nested: nested})
				}
			})
		}
	}
}
