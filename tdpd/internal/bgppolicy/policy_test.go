package bgppolicy

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

var (
	n1 = netip.MustParseAddr("10.0.0.1")
	n2 = netip.MustParseAddr("10.0.0.2")
)

func pathTo(prefix string, communities ...bgp.Community) Path {
	p := netip.MustParsePrefix(prefix)
	return Path{bgp.Path{Prefix: p, From: n1, Attributes: bgp.Attributes{NextHop: n1, Communities: communities}}, bgp.UnicastOf(p)}
}

func ranged(t testing.TB, prefix string, ge, le int) bgp.PrefixRange {
	t.Helper()
	r, err := Range(prefix, ge, le)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// all lets everything pass that is not refused whatever rules say.
var all = Policy{Rules: []Rule{{}}, Martians: Martians(false)}

// inLab is what comes of a path where networks of documentation are used.
func inLab(prefix string, elsewhere Reason) Reason {
	for _, d := range []string{"192.0.2.", "198.51.100.", "203.0.113.", "2001:db8:", "3fff:"} {
		if strings.HasPrefix(prefix, d) {
			return Passes
		}
	}
	return elsewhere
}

func TestWhatIsBuiltIn(t *testing.T) {
	vips := []netip.Prefix{netip.MustParsePrefix("11.1.1.0/28"), netip.MustParsePrefix("2600::1/128")}
	lax := all
	lax.Default, lax.Martians = true, nil
	lab := all
	lab.Martians = Martians(true)
	for _, c := range []struct {
		prefix      string
		strict, lax Reason
	}{
		{"11.1.1.0/28", OwnVIP, OwnVIP},
		{"11.1.1.7/32", OwnVIP, OwnVIP},
		{"2600::1/128", OwnVIP, OwnVIP},
		{"11.1.1.0/27", Passes, Passes}, // less specific: ours is longer
		{"2600::/64", Passes, Passes},
		{"0.0.0.0/0", DefaultRoute, Passes},
		{"::/0", DefaultRoute, Passes},
		{"0.0.0.0/1", Passes, Passes},
		{"0.0.0.0/8", Martian, Passes},
		{"127.0.0.1/32", Martian, Passes},
		{"169.254.0.0/16", Martian, Passes},
		{"192.0.0.0/24", Martian, Passes},
		{"192.0.2.128/25", Martian, Passes},
		{"198.51.100.1/32", Martian, Passes},
		{"203.0.113.0/24", Martian, Passes},
		{"203.0.112.0/23", Passes, Passes}, // has others, too
		{"224.0.0.0/4", Martian, Passes},
		{"239.1.1.1/32", Martian, Passes},
		{"255.255.255.255/32", Martian, Passes},
		{"::1/128", Martian, Passes},
		{"2001:db8:1::/48", Martian, Passes},
		{"3fff::/20", Martian, Passes},
		{"fe80::/64", Martian, Passes},
		{"ff05::2/128", Martian, Passes},
		{"10.0.0.0/8", Passes, Passes},
		{"192.168.1.0/24", Passes, Passes},
		{"100.64.0.0/10", Passes, Passes},
		{"fd00::/8", Passes, Passes},
		{"2600::/32", Passes, Passes},
		{"10.0.0.1/8", Malformed, Malformed},
	} {
		for _, way := range []struct {
			policy Policy
			want   Reason
		}{{all, c.strict}, {lax, c.lax}, {lab, inLab(c.prefix, c.strict)}} {
			if _, got := way.policy.Check(pathTo(c.prefix), n1, vips); got != way.want {
				t.Errorf("%s, default %v, %d martians: %v, want %v", c.prefix, way.policy.Default, len(way.policy.Martians), got, way.want)
			}
		}
	}
	for _, p := range []netip.Prefix{{}, netip.MustParsePrefix("::ffff:10.0.0.0/104")} {
		if _, got := lax.Check(Path{bgp.Path{Prefix: p}, bgp.IPv6Unicast}, n1, nil); got != Malformed {
			t.Errorf("%v: %v, want %v", p, got, Malformed)
		}
	}
	if _, got := all.Check(Path{bgp.Path{Prefix: netip.MustParsePrefix("10.0.0.0/8")}, bgp.IPv6Labelled}, n1, nil); got != Malformed {
		t.Errorf("IPv4 in a family of IPv6: %v, want %v", got, Malformed)
	}
}

func TestTheFirstRuleThatMatchesDecides(t *testing.T) {
	med, pref := uint32(7), uint32(200)
	tens := []bgp.PrefixRange{ranged(t, "10.0.0.0/8", 24, 28)}
	p := Policy{Rules: []Rule{
		{PolicyRule: bgp.PolicyRule{Communities: []bgp.Community{bgp.Blackhole}, Deny: true}},
		{PolicyRule: bgp.PolicyRule{Prefixes: tens, Families: []bgp.Family{bgp.IPv4Unicast}, Set: bgp.PolicySet{MED: &med, LocalPref: &pref, Prepend: 2,
			Add: []bgp.Community{5, 3}, Remove: []bgp.Community{4}}}, Neighbors: []netip.Addr{n1}},
		{PolicyRule: bgp.PolicyRule{Prefixes: []bgp.PrefixRange{ranged(t, "2600::/32", 0, 0)}}, Least: 1, Most: 2},
	}}
	for _, c := range []struct {
		path Path
		from netip.Addr
		want Reason
	}{
		{pathTo("10.1.2.0/24"), n1, Passes},
		{pathTo("10.1.2.0/24", bgp.Blackhole), n1, ByRule},
		{pathTo("10.1.2.0/24"), n2, NoRule},
		{pathTo("10.1.0.0/16"), n1, NoRule},
		{pathTo("10.1.2.0/29"), n1, NoRule},
		{pathTo("11.1.2.0/24"), n1, NoRule},
		{pathTo("2600::/32"), n1, NoRule},
		{pathTo("2600:1::/32"), n1, NoRule},
	} {
		if _, got := p.Check(c.path, c.from, nil); got != c.want {
			t.Errorf("%v from %v: %v, want %v", c.path.Prefix, c.from, got, c.want)
		}
	}
	for length, want := range []Reason{NoRule, Passes, Passes, NoRule} {
		six := pathTo("2600::/32")
		six.ASPath = make([]uint32, length)
		if _, got := p.Check(six, n2, nil); got != want {
			t.Errorf("an AS path of %d: %v, want %v", length, got, want)
		}
	}
	before := pathTo("10.1.2.0/24", 3, 4)
	after, _ := p.Check(before, n1, nil)
	if *after.MED != 7 || *after.LocalPref != 200 || after.Prepend != 2 || !slices.Equal(after.Communities, []bgp.Community{3, 5}) {
		t.Errorf("what passes is %+v", after)
	}
	if !reflect.DeepEqual(before, pathTo("10.1.2.0/24", 3, 4)) {
		t.Errorf("what came is changed: %+v", before)
	}
	if _, got := (Policy{}).Check(pathTo("10.1.2.0/24"), n1, nil); got != NoRule {
		t.Errorf("the zero Policy: %v, want %v", got, NoRule)
	}
}

func TestRanges(t *testing.T) {
	for _, c := range []struct {
		prefix      string
		ge, le      int
		least, most int // 0: refused
	}{
		{"10.0.0.0/8", 0, 0, 8, 8}, {"10.0.0.0/8", 24, 0, 24, 32}, {"10.0.0.0/8", 0, 24, 8, 24}, {"10.0.0.0/8", 16, 24, 16, 24}, {"2600::/32", 48, 0, 48, 128},
		{"10.0.0.0/8", 4, 0, 0, 0}, {"10.0.0.0/8", 24, 16, 0, 0}, {"10.0.0.0/8", 0, 33, 0, 0}, {"10.0.0.1/8", 0, 0, 0, 0}, {"ten", 0, 0, 0, 0}, {"10.0.0.0/8", 0, 4, 0, 0},
	} {
		r, err := Range(c.prefix, c.ge, c.le)
		if (err != nil) != (c.most == 0) || r.Least != c.least || r.Most != c.most {
			t.Errorf("%s ge %d le %d: %+v, %v; want %d to %d", c.prefix, c.ge, c.le, r, err, c.least, c.most)
		}
	}
}

// What lies in a prefix, bit by bit.
func TestInside(t *testing.T) {
	r := rand.New(rand.NewPCG(6890, 1))
	for range 20_000 {
		a := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(r.IntN(4)) << 6}), r.IntN(5)).Masked()
		b := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(r.IntN(4)) << 6}), r.IntN(5)).Masked()
		want := true
		for v := range 16 {
			addr := netip.AddrFrom4([4]byte{byte(v) << 4})
			want = want && (!a.Contains(addr) || b.Contains(addr))
		}
		if got := inside(a, b); got != want {
			t.Fatalf("%v inside %v: %v", a, b, got)
		}
	}
}
