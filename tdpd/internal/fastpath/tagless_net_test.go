package fastpath

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/manycast/manycast/internal/testnet"
)

// tagless are packets of halves' VIPs.
func tagless(src, dst string) []byte {
	p := packet{src: src, dst: dst, proto: 17, ttl: 64, payload: make([]byte, 20)}
	return frame(p.ip())
}

// A packet that came from a router without a tag, and is sent along a tree, is told of once a second and user, and forwarded all the same.
// What comes from users, has no tree, or is for another VIP is not.
func TestNetPacketsWithoutATagAreToldOf(t *testing.T) {
	f := open(t)
	s := halves(t)
	s.Tell = map[netip.Addr]bool{vip4: true, vip6: true}
	set(t, f, s)
	l, err := f.Listen()
	if err != nil {
		t.Fatal(err)
	}
	last := "10.1.255.254"
	heard := func() []Tagless { // with one that comes last
		t.Helper()
		give(t, f.objects.FastCore, tagless(last, "192.0.2.80"))
		var all []Tagless
		for {
			some, err := l.Read()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, some...)
			if i := slices.IndexFunc(all, func(x Tagless) bool { return x.User.String() == last }); i >= 0 {
				last = netip.MustParseAddr(last).Prev().Prev().String()
				return all[:i]
			}
		}
	}
	want := func(when string, want ...Tagless) {
		t.Helper()
		if diff := cmp.Diff(want, heard(), cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(Tagless{}, "Interface")); diff != "" {
			t.Errorf("%s: -want +got:\n%s", when, diff)
		}
	}
	from := net.HardwareAddr{2, 0, 0, 0, 9, 9}
	of := func(user string) Tagless { return Tagless{VIP: vip4, User: netip.MustParseAddr(user), From: from} }
	for range 3 {
		if verdict, out := give(t, f.objects.FastCore, tagless("10.1.0.12", "192.0.2.80")); verdict != redirect || out[12] != 0x88 {
			t.Errorf("verdict %d, %x", verdict, out)
		}
	}
	want("thrice within a second", of("10.1.0.12"))
	give(t, f.objects.FastCore, tagless("10.1.0.14", "192.0.2.80"))
	give(t, f.objects.FastCore, tagless("2001:db8:7::12", "2001:db8::80"))
	want("others", of("10.1.0.14"), Tagless{VIP: vip6, User: netip.MustParseAddr("2001:db8:7::"), From: from})
	give(t, f.objects.FastEdge, tagless("10.1.0.16", "192.0.2.80"))
	give(t, f.objects.FastCore, tagless("10.1.0.16", "192.0.2.81"))
	want("of users, and for others")
	s.Trees[1] = []Hop{{How: Kernel}}
	set(t, f, s)
	give(t, f.objects.FastCore, tagless("10.1.0.16", "192.0.2.80"))
	last = "10.1.255.253" // one of owner 2's, who has a tree
	want("by the route")
	set(t, f, halves(t))
	give(t, f.objects.FastCore, tagless("10.1.0.16", "192.0.2.80"))
	set(t, f, s)
	want("of a VIP that is not to be told of")
	s.Trees[1] = halves(t).Trees[1]
	set(t, f, s)
	again := of("10.1.0.12") // a second later
	testnet.Eventually(t, 5*time.Second, func() bool {
		give(t, f.objects.FastCore, tagless("10.1.0.12", "192.0.2.80"))
		all := heard()
		return len(all) == 1 && all[0].User == again.User && all[0].VIP == again.VIP
	}, "another word of a user")
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Read(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// Where nobody reads, packets are forwarded, and users told of when there is room again.
func TestNetPacketsWithoutATagFindNoRoom(t *testing.T) {
	f := open(t)
	s := halves(t)
	s.Tell = map[netip.Addr]bool{vip4: true}
	set(t, f, s)
	user := func(i int) string { return netip.AddrFrom4([4]byte{10, 2, byte(i >> 7), byte(2 * i)}).String() }
	const users = 6000
	for i := range users {
		if verdict, _ := give(t, f.objects.FastCore, tagless(user(i), "192.0.2.80")); verdict != redirect {
			t.Fatalf("user %d: verdict %d", i, verdict)
		}
	}
	l, err := f.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	read := func(until string) (n int) {
		t.Helper()
		for {
			some, err := l.Read()
			if err != nil || len(some) > taglessAtOnce {
				t.Fatalf("%d at once, %v", len(some), err)
			}
			if n += len(some); some[len(some)-1].User.String() == until {
				return n
			}
		}
	}
	first := (1 << 18) / (8 + taglessSize)
	if n := read(user(first - 1)); n != first {
		t.Errorf("%d are told of, want as many as there is room for, %d", n, first)
	}
	give(t, f.objects.FastCore, tagless(user(users-1), "192.0.2.80"))
	if n := read(user(users - 1)); n != 1 {
		t.Errorf("%d are told of later, want the one that had found no room", n)
	}
}
