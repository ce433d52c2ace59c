package agent

import (
	"net/netip"
	"testing"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/portion"
)

// inside lies in a fixed portion; its address is even.
var inside = netip.MustParseAddr("10.2.0.2")

// withFixed adds 10.2.0.0/16.
func withFixed(a alloc.Allocation, owner, standby uint16) alloc.Allocation {
	a.Fixed = []portion.Portion{portion.MustParse("10.2.0.0/16")}
	a.Owner, a.Standby = append(a.Owner, owner), append(a.Standby, standby)
	return a
}

func TestFixedPortionIsJoinedAndDenied(t *testing.T) {
	c := newS2(t)
	for name, test := range map[string]struct {
		a    alloc.Allocation
		want bool
	}{
		"its own, of another's slots":  {withFixed(allocation(2, s3, s2), s2, alloc.None), true},
		"another's, of its own slots":  {withFixed(allocation(3, s2, s3), s3, alloc.None), false},
		"its own, of its own slots":    {withFixed(allocation(4, s2, s3), s2, alloc.None), true},
		"another's, and no slots here": {withFixed(allocation(5, s3, s3), s3, alloc.None), false},
	} {
		c.held["web"] = test.a
		a := c.apply()
		if a.Join[0].Owner.Contains(inside) != test.want || a.Accept[0].Accept.Contains(inside) != test.want {
			t.Errorf("%s: joins %v, accepts %v", name, a.Join[0].Owner, a.Accept[0].Accept)
		}
		if owns := test.a.OwnerOf(0) == "s2"; a.Join[0].Owner.Contains(even) != owns {
			t.Errorf("%s: joins %v, want even users beside: %t", name, a.Join[0].Owner, owns)
		}
	}
}

func TestFixedPortionTakenFromAServer(t *testing.T) {
	for name, test := range map[string]struct {
		to      uint16
		lingers bool
	}{"by one on another link": {s1, true}, "by one on its link": {s3, false}} {
		c := newS2(t)
		a := applied(t, c.Committed(start, "web", withFixed(allocation(2, s2, s2), test.to, alloc.None)))
		if accept := a.Accept[0].Accept; accept.Contains(inside) != test.lingers || !accept.Contains(even) || len(a.Ceased) != 1 {
			t.Errorf("%s: accepts %v, says %v", name, accept, a.Ceased)
		}
		if a.Join[0].Owner.Contains(inside) || !a.Join[0].Owner.Contains(even) {
			t.Errorf("%s: joins %v", name, a.Join[0].Owner)
		}
		late := c.Tick(start.Add(settle))
		if accepted(t, late).Contains(inside) || closes(late) != 1 {
			t.Errorf("%s: after settle: %+v", name, late)
		}
		for _, action := range late {
			d, ok := action.(Close)
			if ok && (!d.Lost(netip.AddrPortFrom(inside, 4711)) || d.Lost(netip.AddrPortFrom(even, 4711))) {
				t.Errorf("%s: closes the wrong connections", name)
			}
		}
	}
}

// TestFixedPortionThatGoes gives its users back to the owner of their slots, which waits for the loser of its link.
func TestFixedPortionThatGoes(t *testing.T) {
	before, after := withFixed(allocation(2, s2, s1), s3, alloc.None), allocation(3, s2, s1)
	c := newS2(t)
	c.held["web"] = before
	c.Announced(start, "web", after, before)
	if early := c.Committed(start, "web", after); early != nil {
		t.Errorf("at the commit: %+v, though s3 perhaps takes them", early)
	}
	if accept := c.apply().Accept[0].Accept; accept.Contains(inside) || !accept.Contains(even) {
		t.Errorf("while it waits: accepts %v, want those that it had", accept)
	}
	if got := accepted(t, c.CeasedBy("web", after.Epoch, "s3")); !got.Contains(inside) {
		t.Errorf("then: accepts %v", got)
	}
}

func TestStandbyOfAFixedPortion(t *testing.T) {
	c := listening(t, withFixed(withStandbys(allocation(1, s2, s3), s3, s1), s3, s2))
	if accept := c.apply().Accept[0].Accept; accept.Contains(inside) || !accept.Contains(even) || accept.Contains(odd) {
		t.Fatalf("accepts %v, want its own: s3 is there", accept)
	}
	if joined := c.apply().Join[0].Standby; !joined.Contains(inside) || joined.Contains(even) || joined.Contains(odd) {
		t.Errorf("stands by for %v, want the fixed portion", joined)
	}
	if got := accepted(t, turns(c, start, "s3", control.Silent, "")); !got.Contains(inside) || got.Contains(odd) {
		t.Errorf("accepts %v, want the fixed portion, too", got)
	}
}

// TestFinerSlotsAreNoReallocation: the same users by twice as many slots.
func TestFinerSlotsAreNoReallocation(t *testing.T) {
	c := newS2(t)
	before := withFixed(allocation(2, s2, s1), s3, alloc.None)
	c.Committed(start, "web", before)
	c.Tick(start.Add(settle))
	after := before
	after.Epoch.Number, after.Slots.Bits = 3, 2
	after.Owner, after.Standby = []uint16{s2, s1, s2, s1, s3}, []uint16{alloc.None, alloc.None, alloc.None, alloc.None, alloc.None}
	actions := c.Committed(start, "web", after)
	if a := applied(t, actions); len(a.Ceased) != 0 || !a.Accept[0].Accept.Contains(even) || a.Accept[0].Accept.Contains(inside) {
		t.Errorf("%+v, want nothing lost", a)
	}
}
