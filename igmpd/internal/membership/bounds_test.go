package membership

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/portion"
)

func TestPublicBounds(t *testing.T) {
	cfg := testConfig()
	cfg.Limits = Limits{Groups: 2, Sources: 3}
	table := New(cfg)
	table.SetPort(start, Port{Name: "lan", Address: own, Members: true})
	for i := range 5 {
		table.V2Report(start, "lan", netip.AddrFrom4([4]byte{225, 0, 0, byte(i)}))
	}
	if n := len(table.ports["lan"].groups); n != 2 || table.Dropped() != 3 {
		t.Fatalf("%d groups, %d dropped", n, table.Dropped())
	}
	table.Report(start, "lan", []igmp.Record{{Type: igmp.AllowNewSources, Group: netip.MustParseAddr("225.0.0.0"), Sources: sources("abcd")}})
	if n := len(table.ports["lan"].groups[netip.MustParseAddr("225.0.0.0")].sources); n != 0 {
		t.Fatalf("%d sources", n)
	}
}

func TestSourcesOfAPortAreBounded(t *testing.T) {
	cfg := testConfig()
	cfg.Limits = Limits{Sources: 3, PortSources: 4}
	table := New(cfg)
	table.SetPort(start, Port{Name: "lan", Address: own, Members: true})
	first, second := netip.MustParseAddr("225.0.0.1"), netip.MustParseAddr("225.0.0.2")
	allow := func(at time.Time, g netip.Addr, s string) {
		table.Report(at, "lan", []igmp.Record{{Type: igmp.AllowNewSources, Group: g, Sources: sources(s)}})
	}
	has := func(g netip.Addr) int {
		if g := table.ports["lan"].groups[g]; g != nil {
			return len(g.sources)
		}
		return -1
	}
	allow(start, first, "abc")
	allow(start, second, "ab")
	if has(first) != 3 || has(second) != -1 {
		t.Fatalf("%d and %d sources, want 3 and no second group", has(first), has(second))
	}
	allow(start, second, "a")
	later := start.Add(200 * time.Second)
	allow(later, first, "abc") // a refresh needs no room
	run(table, later, start.Add(300*time.Second))
	if has(first) != 3 || has(second) != -1 {
		t.Fatalf("%d and %d sources, want 3 refreshed ones and the second group expired", has(first), has(second))
	}
	allow(start.Add(300*time.Second), second, "x") // there is room again
	if has(second) != 1 {
		t.Fatalf("%d sources after others have expired", has(second))
	}
}

// A report may name a group as often as it fits: that is no way to make the router ask as often, or to keep it busy.
func TestOneReportOfManyRecords(t *testing.T) {
	table, now := newTable(t)
	table.Report(now, "lan", []igmp.Record{record(igmp.AllowNewSources, "abc")})
	actions := table.Report(now, "lan", slices.Repeat([]igmp.Record{record(igmp.ChangeToInclude, "")}, 180))
	if got := queries(actions); got != "Q(G,abc)" {
		t.Errorf("asked %q, want once", got)
	}
}

func TestEntriesOfAGroupAreBounded(t *testing.T) {
	table := New(testConfig())
	for i, requester := range []netip.Addr{s1, s2, netip.MustParseAddr("10.3.0.13")} {
		var own portion.Set
		for n := range uint32(12000) {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], (uint32(i)<<14|n)*2654435761) // anywhere
			own.Permit = append(own.Permit, portion.Portion{Addr: netip.AddrFrom4(b), Mask: netip.AddrFrom4([4]byte{255, 255, 255, 255})})
		}
		_, err := table.Join(start, "lan", extended(start, requester, 1, 1, own))
		if full := errors.Is(err, ErrComplex); full != (i == 2) {
			t.Fatalf("requester %d: %v", i, err)
		}
	}
	if n := table.Private()[private].Plan.Entries(); n == 0 || n > entriesMax {
		t.Fatalf("%d entries", n)
	}
}
