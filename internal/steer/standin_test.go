package steer

import (
	"encoding/binary"
	"math"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
)

// standins are what routers of any version have to agree on.
var standins = []struct {
	from          string // address and port
	standin, flow string
}{
	{"203.0.113.7:1024", "", "235.243.97.56"},
	{"203.0.113.7:1025", "", "130.3.159.33"},
	{"203.0.113.8:1024", "", "119.119.44.230"},
	{"0.0.0.0:1", "", "180.86.188.252"},
	{"255.255.255.255:65535", "", "13.112.203.254"},
	{"[2001:db8:77::1]:1024", "121.125.205.37", "187.75.217.236"},
	{"[2001:db8:77::2]:1025", "121.125.205.37", "233.193.254.91"},
	{"[2001:db8:77:1::1]:1024", "167.222.24.231", "161.179.58.193"},
}

func TestStandins(t *testing.T) {
	for _, c := range standins {
		from := netip.MustParseAddrPort(c.from)
		if got := Flow(from).String(); got != c.flow {
			t.Errorf("%s: for the flow %s, want %s", c.from, got, c.flow)
		}
		if from.Addr().Is4() {
			continue
		}
		if got := Standin(from.Addr()).String(); got != c.standin {
			t.Errorf("%s: for the user %s, want %s", c.from, got, c.standin)
		}
	}
}

func TestNetStandinsOfThePrograms(t *testing.T) {
	o, _ := load(t, "", 64)
	for _, c := range standins {
		from := netip.MustParseAddrPort(c.from)
		b, user := from.Addr().As16(), from.Addr()
		if user.Is6() {
			user = Standin(user)
		}
		in := make([]byte, 64)
		binary.NativeEndian.PutUint64(in, binary.BigEndian.Uint64(b[:8]))
		binary.NativeEndian.PutUint32(in[8:], toUint32(user))
		binary.NativeEndian.PutUint32(in[12:], uint32(from.Port()))
		out := make([]byte, len(in))
		if ret, err := o.StandIn.Run(&ebpf.RunOptions{Data: in, DataOut: out}); err != nil || ret != 2 {
			t.Fatalf("%d, %v", ret, err)
		}
		standin, flow := fromUint32(binary.NativeEndian.Uint32(out)), fromUint32(binary.NativeEndian.Uint32(out[4:]))
		if flow.String() != c.flow || from.Addr().Is6() && standin.String() != c.standin {
			t.Errorf("%s: %v for the user, %v for the flow, want %q and %q", c.from, standin, flow, c.standin, c.flow)
		}
	}
}

func fromUint32(a uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], a)
	return netip.AddrFrom4(b)
}

// The ports of one NAT are spread evenly over slots by suffix and by prefix, as chance would: chi-squared within four standard deviations.
func TestFlowsAreSpread(t *testing.T) {
	const first, ports = 1024, 60_000
	for _, nat := range []string{"203.0.113.7", "0.0.0.1", "10.0.0.0", "2001:db8:77::1"} {
		for _, bits := range []int{1, 4, 8, 12} {
			slots := 1 << bits
			low, high := make([]float64, slots), make([]float64, slots)
			for port := first; port < first+ports; port++ {
				a := toUint32(Flow(netip.AddrPortFrom(netip.MustParseAddr(nat), uint16(port))))
				low[a&uint32(slots-1)]++
				high[a>>(32-bits)]++
			}
			for name, in := range map[string][]float64{"last": low, "first": high} {
				mean, chi := float64(ports)/float64(slots), 0.0
				for _, n := range in {
					chi += (n - mean) * (n - mean) / mean
				}
				if free := float64(slots - 1); math.Abs(chi-free) > 4*math.Sqrt(2*free) {
					t.Errorf("%s by the %s %d bits: chi-squared %.0f of %d slots", nat, name, bits, chi, slots)
				}
			}
		}
	}
}

func TestWhomSplitTellsApart(t *testing.T) {
	s := Split{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:77::/48")}
	for from, flow := range map[string]bool{
		"203.0.113.7:1024": true, "[::ffff:203.0.113.7]:1024": true, "203.0.113.7:0": false, "203.0.114.7:1024": false,
		"[2001:db8:77:5::1]:9": true, "[2001:db8:77:5::1]:0": false, "[2001:db8:78::1]:9": false,
	} {
		p := netip.MustParseAddrPort(from)
		want, wantStandin := p.Addr().Unmap(), false
		switch {
		case flow:
			want, wantStandin = Flow(p), true
		case want.Is6():
			want, wantStandin = Standin(want), true
		}
		if got, standin := s.User(p); got != want || standin != wantStandin {
			t.Errorf("%s: %v, %t, want %v, %t", from, got, standin, want, wantStandin)
		}
	}
	if p, ok := s.Of(netip.MustParseAddr("203.0.113.9")); !ok || p != s[0] {
		t.Errorf("split by %v, %t", p, ok)
	}
}
