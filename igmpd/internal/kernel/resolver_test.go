package kernel

import (
	"net/netip"
	"testing"

	"github.com/manycast/manycast/igmpd/internal/kernel/mroute"
	"github.com/manycast/manycast/internal/steer"
)

func TestAnswer(t *testing.T) {
	config := ownerConfig()
	config.Mode = ModeSource
	want, err := compile(State{
		Interfaces: interfaces("u", "v", "a", "b"),
		Private:    map[netip.Addr]Private{group: {Plan: quarters(t, 1, 2, 3), Owners: map[steer.Owner]string{1: "a", 2: "b"}, In: []string{"u", "v"}}},
		Public: []Route{
			{Group: publicGrp, In: []string{"u", "v"}, Out: []string{"u", "v", "a"}},
			{Group: publicGrp, Source: source, In: []string{"u", "v"}, Out: []string{"b"}},
			{Group: netip.MustParseAddr("224.6.6.6"), In: []string{"u"}, Out: []string{"a"}},
		},
	}, config, vifs())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, source, group string
		vif                 int
		parent              int
		out                 mroute.VIFs
		ok                  bool
	}{
		{"its owner's", "10.0.1.4", "239.1.1.1", 1, 1, 0b0100, true},
		{"another owner's", "10.0.1.5", "239.1.1.1", 0, 0, 0b1000, true},
		{"an owner without interface", "10.0.1.6", "239.1.1.1", 0, 0, 0, true},
		{"nobody's", "10.0.1.7", "239.1.1.1", 0, 0, 0, true},
		{"by a forbidden interface", "10.0.1.4", "239.1.1.1", 3, 0, 0b0100, true},
		{"public, not back", "10.0.1.4", "224.5.5.5", 0, 0, 0b0110, true},
		{"the source's own route", "10.0.1.9", "224.5.5.5", 1, 1, 0b1000, true},
		{"the group has standing entries", "10.0.1.4", "224.6.6.6", 3, 0, 0, false},
		{"unknown group", "10.0.1.4", "239.9.9.9", 2, 2, 0, true},
	} {
		e, ok := want.demand.answer(netip.MustParseAddr(c.source), netip.MustParseAddr(c.group), c.vif)
		if ok != c.ok || ok && (e.Parent != c.parent || e.Out != c.out) {
			t.Errorf("%s: %v %v", c.what, e, ok)
		}
	}
}

func TestSourcesPutTheOldestUnusedOut(t *testing.T) {
	s := newSources(3)
	at := func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, i}) }
	for i := range byte(3) {
		s.put(mroute.Entry{Source: at(i), Group: group})
	}
	if !s.full() {
		t.Fatal("3 of 3 is not full")
	}
	packets := map[netip.Addr]uint64{at(0): 5, at(2): 1} // 1 is idle
	count := func(k sg) uint64 { return packets[k.source] }
	if v, ok := s.victim(count); !ok || v.Source != at(1) {
		t.Errorf("first out: %v", v)
	}
	s.remove(sg{at(1), group})
	// 0 was passed over and has had nothing since; 2 is looked at for the first time.
	if v, _ := s.victim(count); v.Source != at(0) {
		t.Errorf("second out: %v", v)
	}
	s.put(mroute.Entry{Source: at(2), Group: group, Out: 1})
	if e, ok := s.get(sg{at(2), group}); !ok || e.Out != 1 || s.len() != 2 {
		t.Errorf("changed: %v, %d entries", e, s.len())
	}
}
