package agent

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/internal/steer"
)

// Routers bring a server what is its own by mode tags: it joins nothing, and closes the connections of users who have moved, of both VIPs.
func TestTaggedServiceIsNotJoined(t *testing.T) {
	tags := web
	tags.Mode, tags.Group, tags.VIP6, tags.Refuse = service.Tags, netip.Addr{}, netip.MustParseAddr("2001:db8::80"), service.RefuseReset
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{tags})
	a := applied(t, c.Committed(start, "web", allocation(1, s2, s2)))
	if len(a.Join) != 0 || len(a.Accept) != 1 || !a.Accept[0].Tagged || a.Accept[0].VIP6 != tags.VIP6 {
		t.Fatalf("%+v", a)
	}
	c.Committed(start, "web", allocation(2, s2, s1))
	var closed *Close
	for _, a := range c.Tick(start.Add(settle)) {
		if a, ok := a.(Close); ok {
			closed = &a
		}
	}
	if closed == nil || !slices.Equal(closed.VIPs, []netip.Addr{tags.VIP, tags.VIP6}) {
		t.Fatalf("closes %+v", closed)
	}
	if closed.Lost(netip.AddrPortFrom(even, 1)) || !closed.Lost(netip.AddrPortFrom(odd, 1)) {
		t.Error("want odd users to be lost, even ones not")
	}
	six := netip.MustParseAddr("2001:db8:1::1")
	for ; steer.Standin(six).As4()[3]&1 == 0; six = netip.AddrFrom16(nextSubnet(six.As16())) {
	}
	if !closed.Lost(netip.AddrPortFrom(six, 1)) {
		t.Errorf("user %v, for whom %v stands in, is not lost", six, steer.Standin(six))
	}
}

// Whom connections of split users belong to follows from address and port, whatever fixed portions there are; what is split changes without
// an epoch, and then routers have switched after settle.
func TestConnectionsOfSplitUsers(t *testing.T) {
	tags := web
	tags.Mode, tags.Group, tags.VIP6, tags.Refuse = service.Tags, netip.Addr{}, netip.MustParseAddr("2001:db8::80"), service.RefuseReset
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{tags})
	a := withFixed(allocation(1, s2, s1), s1, alloc.None)
	c.Committed(start, "web", a)
	closed := func(now time.Time) (closed []Close) {
		for _, a := range c.Tick(now) {
			if a, ok := a.(Close); ok {
				closed = append(closed, a)
			}
		}
		return closed
	}
	tags.Split = steer.Split{netip.MustParsePrefix("10.2.0.0/24"), netip.MustParsePrefix("2001:db8:77::/48")}
	c.SetServices(start, []service.Service{tags})
	if early := closed(start); len(early) > 0 || !c.Next().Equal(start.Add(settle)) {
		t.Fatalf("closes %+v at once", early)
	}
	all := closed(start.Add(settle))
	if len(all) != 1 || c.Closed("web", all[0].Epoch, 3) != nil {
		t.Fatalf("closes %+v", all)
	}
	lost := map[bool]int{}
	for port := uint16(1); port <= 1000; port++ {
		for _, user := range []string{"10.2.0.2", "2001:db8:77::1"} {
			from := netip.AddrPortFrom(netip.MustParseAddr(user), port)
			want := steer.Flow(from).As4()[3]&1 == 1
			if got := all[0].Lost(from); got != want {
				t.Fatalf("%v is lost: %t, want %t", from, got, want)
			}
			lost[want]++
		}
	}
	if lost[true] < 900 || lost[false] < 900 {
		t.Errorf("of 2000 connections %d are lost", lost[true])
	}
	if !all[0].Lost(netip.MustParseAddrPort("10.2.1.2:7")) || all[0].Lost(netip.AddrPortFrom(even, 7)) {
		t.Error("users who are not split go by a port")
	}
}

func nextSubnet(a [16]byte) [16]byte {
	a[7]++
	return a
}

// A service that has a group, too, is joined in both modes, and the modes have the same users: it moves without anybody losing anything.
func TestModesAreChangedUnderUsers(t *testing.T) {
	c := newS2(t)
	before := applied(t, c.Committed(start, "web", allocation(2, s2, s1)))
	tags := web
	tags.Mode, tags.Refuse = service.Tags, service.RefuseReset
	actions := c.SetServices(start, []service.Service{tags})
	after := applied(t, actions)
	if len(after.Join) != 1 || !after.Join[0].Owner.Contains(even) || after.Join[0].Epoch != before.Join[0].Epoch || closes(actions) != 0 {
		t.Errorf("%+v", actions)
	}
	if moved := closes(c.SetServices(start, []service.Service{web})); moved != 0 {
		t.Error("connections are closed on the way back")
	}
}
