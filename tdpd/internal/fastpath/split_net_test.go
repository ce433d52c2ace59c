package fastpath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

const splitTrees = 4

// splitState has users of splitTrees servers: by address in quarters of the last byte, behind NATs by the same slots of what stands in for
// address and port. The plan for addresses has an exception beside, which is not for flows.
func splitState(t testing.TB, split steer.Split) State {
	owners := map[steer.Owner]string{}
	s := State{Trees: map[steer.Owner][]Hop{}}
	for o := range splitTrees {
		owners[steer.Owner(o+1)] = fmt.Sprintf("0.0.0.%d/0.0.0.3", o)
		s.Trees[steer.Owner(o+1)] = []Hop{{Interface: 7, How: Label, Label: uint32(100 + o), To: next, From: here, MTU: 1500}}
	}
	flows := plan(t, owners)
	four, err := flows.WithUsers([]steer.User{{Addr: netip.MustParseAddr("203.0.113.8"), Owner: 4}})
	if err != nil {
		t.Fatal(err)
	}
	s.VIPs = map[netip.Addr]*steer.Plan{vip4: four, vip6: flows}
	s.Split = map[netip.Addr]vips.Split{vip4: {Prefixes: split, Plan: flows}, vip6: {Prefixes: split, Plan: flows}}
	return s
}

// ports is what TCP and UDP begin with.
func ports(src, dst uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, src)
	return append(binary.BigEndian.AppendUint16(b, dst), make([]byte, 16)...)
}

var splitNATs = steer.Split{
	netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.7/32"), netip.MustParsePrefix("203.0.113.8/32"),
	netip.MustParsePrefix("2001:db8:77::/48"),
}

// Packets of users behind a NAT go by address and port where they have one, and by the address where they have none. Nobody else's port matters.
func TestNetSplitUsers(t *testing.T) {
	f := open(t)
	s := splitState(t, splitNATs)
	set(t, f, s)
	plain, flows := s.VIPs[vip4], s.Split[vip4].Plan
	owner := func(user string, port uint16, byFlow bool) steer.Owner {
		a := netip.MustParseAddr(user)
		switch {
		case byFlow:
			return flows.Lookup(steer.Flow(netip.AddrPortFrom(a, port)))
		case a.Is6():
			return flows.Lookup(steer.Standin(a))
		}
		return plain.Lookup(a)
	}
	to4 := func(user string, proto byte, fragment uint16, payload []byte) []byte {
		return packet{src: user, dst: vip4.String(), proto: proto, ttl: 64, fragment: fragment, payload: payload}.ip()
	}
	to6 := func(user string, proto byte, payload []byte) []byte {
		return packet{src: user, dst: vip6.String(), proto: proto, ttl: 64, payload: payload}.ip()
	}
	// An error of a router about what the service sent to a port of the user.
	error4 := func(user string, proto byte, fragment, port uint16) []byte {
		about := packet{src: vip4.String(), dst: user, proto: proto, ttl: 60, fragment: fragment, payload: ports(80, port)}.ip()[:28]
		return to4("10.9.0.1", 1, 0, append([]byte{3, 4, 0, 0, 0, 0, 5, 0}, about...))
	}
	error6 := func(user string, proto byte, port uint16) []byte {
		about := packet{src: vip6.String(), dst: user, proto: proto, ttl: 60, payload: ports(80, port)}.ip()
		return to6("2001:db8:9::1", 58, append([]byte{2, 0, 0, 0, 0, 0, 5, 0}, about...))
	}
	options := func(user string, port uint16) []byte {
		b := to4(user, 6, 0, append([]byte{1, 1, 1, 0}, ports(port, 80)...))
		b[0] = 0x46
		return b
	}
	for name, c := range map[string]struct {
		user   string
		in     func(user string, port uint16) []byte
		byFlow bool
	}{
		"TCP":                          {"203.0.113.7", func(u string, p uint16) []byte { return to4(u, 6, 0, ports(p, 80)) }, true},
		"UDP":                          {"203.0.113.7", func(u string, p uint16) []byte { return to4(u, 17, 0, ports(p, 80)) }, true},
		"an address of a prefix":       {"198.51.100.99", func(u string, p uint16) []byte { return to4(u, 6, 0, ports(p, 80)) }, true},
		"an exception":                 {"203.0.113.8", func(u string, p uint16) []byte { return to4(u, 6, 0, ports(p, 80)) }, true},
		"beside the prefix":            {"203.0.113.6", func(u string, p uint16) []byte { return to4(u, 6, 0, ports(p, 80)) }, false},
		"not to be fragmented":         {"203.0.113.7", func(u string, p uint16) []byte { return to4(u, 6, 0x4000, ports(p, 80)) }, true},
		"a first fragment":             {"203.0.113.7", func(u string, p uint16) []byte { return to4(u, 17, 0x2000, ports(p, 80)) }, false},
		"a later fragment":             {"203.0.113.7", func(u string, p uint16) []byte { return to4(u, 17, 185, ports(p, 80)) }, false},
		"a fragment of an exception's": {"203.0.113.8", func(u string, p uint16) []byte { return to4(u, 17, 185, ports(p, 80)) }, false},
		"an echo":                      {"203.0.113.7", func(u string, p uint16) []byte { return to4(u, 1, 0, append([]byte{8, 0}, ports(p, 80)...)) }, false},
		"another protocol":             {"203.0.113.7", func(u string, p uint16) []byte { return to4(u, 47, 0, ports(p, 80)) }, false},
		"no port":                      {"203.0.113.7", func(u string, p uint16) []byte { return to4(u, 17, 0, ports(0, p)) }, false},
		"cut short":                    {"203.0.113.7", func(u string, p uint16) []byte { return to4(u, 17, 0, ports(p, 80)[:1]) }, false},
		"options":                      {"203.0.113.7", options, false},
		"an error about TCP":           {"203.0.113.7", func(u string, p uint16) []byte { return error4(u, 6, 0x4000, p) }, true},
		"an error about UDP":           {"203.0.113.7", func(u string, p uint16) []byte { return error4(u, 17, 0, p) }, true},
		"about a first fragment":       {"203.0.113.7", func(u string, p uint16) []byte { return error4(u, 17, 0x2000, p) }, true},
		"about a later fragment":       {"203.0.113.7", func(u string, p uint16) []byte { return error4(u, 17, 185, p) }, false},
		"about an echo":                {"203.0.113.7", func(u string, p uint16) []byte { return error4(u, 1, 0, p) }, false},
		"about another's":              {"203.0.113.6", func(u string, p uint16) []byte { return error4(u, 6, 0x4000, p) }, false},
		"IPv6, TCP":                    {"2001:db8:77:1::5", func(u string, p uint16) []byte { return to6(u, 6, ports(p, 80)) }, true},
		"IPv6, UDP":                    {"2001:db8:77:1::5", func(u string, p uint16) []byte { return to6(u, 17, ports(p, 80)) }, true},
		"IPv6, not split":              {"2001:db8:78::5", func(u string, p uint16) []byte { return to6(u, 6, ports(p, 80)) }, false},
		"IPv6, a fragment": {"2001:db8:77:1::5", func(u string, p uint16) []byte {
			return to6(u, 44, append([]byte{17, 0, 0, 1, 0, 0, 0, 9}, ports(p, 80)...))
		}, false},
		"IPv6, an echo":         {"2001:db8:77:1::5", func(u string, p uint16) []byte { return to6(u, 58, append([]byte{128, 0}, ports(p, 80)...)) }, false},
		"IPv6, cut short":       {"2001:db8:77:1::5", func(u string, p uint16) []byte { return to6(u, 6, ports(p, 80)[:1]) }, false},
		"IPv6, about TCP":       {"2001:db8:77:1::5", func(u string, p uint16) []byte { return error6(u, 6, p) }, true},
		"IPv6, about an echo":   {"2001:db8:77:1::5", func(u string, p uint16) []byte { return error6(u, 58, p) }, false},
		"IPv6, about another's": {"2001:db8:78::5", func(u string, p uint16) []byte { return error6(u, 6, p) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			seen := map[steer.Owner]bool{}
			for port := uint16(1024); port < 1088; port++ {
				verdict, out := give(t, f.objects.FastEdge, frame(c.in(c.user, port)))
				got := steer.Owner(binary.BigEndian.Uint32(out[14:])>>12 - 99)
				if want := owner(c.user, port, c.byFlow); verdict != redirect || got != want {
					t.Fatalf("port %d: verdict %d, owner %d, want %d", port, verdict, got, want)
				}
				seen[got] = true
			}
			if want := map[bool]int{false: 1, true: splitTrees}[c.byFlow]; len(seen) != want {
				t.Errorf("%d servers, want %d", len(seen), want)
			}
		})
	}
}

// Prefixes come and go while the rest stays as it is; what is not wanted leaves nothing behind.
func TestNetSplitComesAndGoes(t *testing.T) {
	f := open(t)
	of := func(user string, port uint16) steer.Owner {
		t.Helper()
		vip := vip4
		if netip.MustParseAddr(user).Is6() {
			vip = vip6
		}
		_, out := give(t, f.objects.FastEdge, frame(packet{src: user, dst: vip.String(), proto: 6, ttl: 64, payload: ports(port, 80)}.ip()))
		return steer.Owner(binary.BigEndian.Uint32(out[14:])>>12 - 99)
	}
	wants := func(when string, split steer.Split, s State) {
		t.Helper()
		for _, user := range []string{"203.0.113.7", "198.51.100.9", "10.0.0.1", "2001:db8:77::1", "2001:db8:99::1"} {
			for port := uint16(2000); port < 2016; port++ {
				from := netip.AddrPortFrom(netip.MustParseAddr(user), port)
				p := s.VIPs[vip4]
				by, standin := split.User(from)
				if standin {
					p = s.VIPs[vip6]
				}
				if got, want := of(user, port), p.Lookup(by); got != want {
					t.Fatalf("%s: %v is owner %d's, want %d", when, from, got, want)
				}
			}
		}
	}
	counts := func() (groups, prefixes int) {
		var group, n uint32
		var key [24]byte
		for it := f.objects.SteerGroups.Iterate(); it.Next(&group, &n); groups++ {
		}
		for it := f.objects.VipsSplit.Iterate(); it.Next(&key, &n); prefixes++ {
		}
		return groups, prefixes
	}
	for _, c := range []struct {
		when   string
		split  steer.Split
		groups int // of IPv4's, of IPv6's, of IPv4's flows
		in     int // prefixes
	}{
		{"nobody", nil, 2, 0}, {"some", splitNATs[:2], 3, 2}, {"all", splitNATs, 3, 4}, {"IPv6", splitNATs[3:], 2, 1}, {"again", splitNATs, 3, 4}, {"nobody again", nil, 2, 0},
	} {
		s := splitState(t, c.split)
		set(t, f, s)
		wants(c.when, c.split, s)
		if groups, in := counts(); groups != c.groups || in != c.in {
			t.Errorf("%s: %d groups and %d prefixes, want %d and %d", c.when, groups, in, c.groups, c.in)
		}
	}
	set(t, f, splitState(t, splitNATs))
	set(t, f, State{})
	if groups, in := counts(); groups+in != 0 {
		t.Errorf("%d groups and %d prefixes are left", groups, in)
	}
}

// What a process before has left of split users goes on, and is not written again where it is wanted as it is.
func TestNetTheNextProcessTakesSplitOver(t *testing.T) {
	pins := filepath.Join(testnet.New(t).BPFFS(), "fastpath")
	begin := func() *Fastpath {
		f, err := Open(Options{Owners: 1 << 8, Labels: 1 << 8, Hops: 1 << 8, Pins: pins})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	inForce := func(f *Fastpath) (generations []uint64) {
		var g, n uint32
		for it := f.objects.SteerGroups.Iterate(); it.Next(&g, &n); {
			var generation uint64
			if err := f.objects.SteerCurrent.Lookup(n, &generation); err != nil {
				t.Fatal(err)
			}
			generations = append(generations, generation)
		}
		return generations
	}
	in := frame(packet{src: "203.0.113.7", dst: vip4.String(), proto: 6, ttl: 64, payload: ports(1024, 80)}.ip())
	f := begin()
	set(t, f, splitState(t, splitNATs))
	_, want := give(t, f.objects.FastEdge, in)
	generations := inForce(f)
	if err := f.Close(true); err != nil {
		t.Fatal(err)
	}
	f = begin()
	for _, when := range []string{"before the first Set", "after it"} {
		if _, got := give(t, f.objects.FastEdge, in); !bytes.Equal(got, want) || !slices.Equal(inForce(f), generations) {
			t.Errorf("%s: %x, want %x; generations %v, want %v", when, got, want, inForce(f), generations)
		}
		set(t, f, splitState(t, splitNATs))
	}
	set(t, f, State{})
	var key [24]byte
	var n uint32
	if f.objects.VipsSplit.Iterate().Next(&key, &n) || len(inForce(f)) > 0 {
		t.Error("prefixes or plans of the process before are left")
	}
	if err := f.Close(false); err != nil {
		t.Fatal(err)
	}
}
