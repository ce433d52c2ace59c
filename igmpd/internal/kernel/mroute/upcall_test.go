package mroute

import (
	"net/netip"
	"slices"
	"testing"
)

// A NOCACHE message of Linux: 10.0.1.5 to 239.1.1.1 by VIF 2.
var noCache = []byte{0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 10, 0, 1, 5, 239, 1, 1, 1}

func TestParseUpcall(t *testing.T) {
	u, err := ParseUpcall(noCache)
	want := Upcall{Kind: NoCache, VIF: 2, Source: netip.MustParseAddr("10.0.1.5"), Group: netip.MustParseAddr("239.1.1.1")}
	if err != nil || u != want {
		t.Errorf("%+v %v", u, err)
	}
	for what, change := range map[string]func([]byte) []byte{
		"an IGMP packet":   func(b []byte) []byte { b[9] = 2; return b },
		"cut short":        func(b []byte) []byte { return b[:19] },
		"VIF out of range": func(b []byte) []byte { b[11] = 1; return b },
		"not to a group":   func(b []byte) []byte { b[16] = 10; return b },
	} {
		if u, err := ParseUpcall(change(slices.Clone(noCache))); err == nil {
			t.Errorf("%s: %+v", what, u)
		}
	}
}

func FuzzParseUpcall(f *testing.F) {
	f.Add(noCache)
	f.Fuzz(func(t *testing.T, b []byte) {
		if u, err := ParseUpcall(b); err == nil && (u.VIF < 0 || u.VIF >= VIFsMax || !u.Group.IsMulticast()) {
			t.Errorf("%+v", u)
		}
	})
}

func FuzzDump(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, link, route []byte) {
		tables := map[uint32]Table{253: {VIFs: map[int]int{0: 1}}}
		if id, vifs, ok := parseTable(link); ok {
			tables[id] = Table{VIFs: vifs}
		}
		addRoute(tables, route)
		for _, table := range tables {
			for _, e := range table.Entries {
				if _, ok := table.VIFs[e.Parent]; !ok || !e.Group.Is4() {
					t.Errorf("%+v", e)
				}
			}
		}
	})
}

func TestVIFs(t *testing.T) {
	v := VIF(0) | VIF(31) | VIF(7)
	if got := slices.Collect(v.All()); !slices.Equal(got, []int{0, 7, 31}) || v.Count() != 3 || v.First() != 0 {
		t.Errorf("%v", got)
	}
	if VIFs(0).First() != VIFsMax {
		t.Error("the empty set has a first")
	}
}
