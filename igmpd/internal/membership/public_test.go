package membership

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/igmp"
)

var (
	start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	pub   = netip.MustParseAddr("225.1.2.3")
	own   = netip.MustParseAddr("10.3.0.1")
)

func testConfig() Config {
	return Config{QueryInterval: 125 * time.Second, QueryResponseInterval: 10 * time.Second, LastMemberQueryInterval: time.Second, Robustness: 2}
}

// newTable returns a table with one member port "lan" and one upstream port "up", its startup behind it.
func newTable(t testing.TB) (*Table, time.Time) {
	t.Helper()
	table := New(testConfig())
	table.SetPort(start, Port{Name: "lan", Address: own, Members: true})
	table.SetPort(start, Port{Name: "up", Address: netip.MustParseAddr("10.2.0.2"), Upstream: true})
	now := start
	for range 3 {
		now = now.Add(time.Minute)
		table.Tick(now)
	}
	return table, now
}

// sources makes addresses of the letters in s, so that tests read as the tables of RFC 3376.
func sources(s string) []netip.Addr {
	var all []netip.Addr
	for _, c := range s {
		all = append(all, netip.AddrFrom4([4]byte{192, 0, 2, byte(c)}))
	}
	return all
}

func letters(addrs []netip.Addr) string {
	var b strings.Builder
	for _, a := range addrs {
		b.WriteByte(a.As4()[3])
	}
	return b.String()
}

// state writes a group as "IN ab" or "EX x,y".
func state(g *group, now time.Time) string {
	if g == nil {
		return "none"
	}
	var wanted, blocked []netip.Addr
	for s, timer := range g.sources {
		if running(timer, now) {
			wanted = append(wanted, s)
		} else {
			blocked = append(blocked, s)
		}
	}
	if g.exclude {
		return fmt.Sprintf("EX %s,%s", letters(sorted(wanted)), letters(sorted(blocked)))
	}
	return "IN " + letters(sorted(wanted))
}

func record(kind igmp.RecordType, s string) igmp.Record {
	return igmp.Record{Type: kind, Group: pub, Sources: sources(s)}
}

func queries(actions []Action) string {
	var all []string
	for _, a := range actions {
		if q, ok := a.(SendQuery); ok {
			text := "Q"
			if !q.Query.General() {
				text = fmt.Sprintf("Q(G,%s)", letters(q.Query.Sources))
			}
			if q.Query.Suppress {
				text += "s"
			}
			all = append(all, text)
		}
	}
	return strings.Join(all, " ")
}

// RFC 3376 sections 6.4.1 and 6.4.2, line by line.
func TestStateTables(t *testing.T) {
	const (
		isIn, isEx, toIn, toEx = igmp.ModeIsInclude, igmp.ModeIsExclude, igmp.ChangeToInclude, igmp.ChangeToExclude
		allow, block           = igmp.AllowNewSources, igmp.BlockOldSources
	)
	include, exclude := []igmp.Record{record(isIn, "ab")}, []igmp.Record{record(isEx, "xy"), record(isIn, "x")} // EX x,y
	tests := []struct {
		before []igmp.Record
		kind   igmp.RecordType
		report string
		want   string
		ask    string
	}{
		{include, isIn, "bc", "IN abc", ""},
		{include, isEx, "bc", "EX b,c", ""},
		{exclude, isIn, "yz", "EX xyz,", ""},
		{exclude, isEx, "xyz", "EX xz,y", ""},
		{exclude, isEx, "z", "EX z,", ""},
		{include, allow, "bc", "IN abc", ""},
		{include, block, "bc", "IN ab", "Q(G,b)"},
		{include, toEx, "bc", "EX b,c", "Q(G,b)"},
		{include, toIn, "bc", "IN abc", "Q(G,a)"},
		{exclude, allow, "yz", "EX xyz,", ""},
		{exclude, block, "xyz", "EX xz,y", "Q(G,xz)"},
		{exclude, toEx, "xyz", "EX xz,y", "Q(G,xz)"},
		{exclude, toIn, "yz", "EX xyz,", "Q(G,) Q(G,x)"},
		{nil, isEx, "", "EX ,", ""},
		{nil, toEx, "y", "EX ,y", ""},
		{nil, allow, "a", "IN a", ""},
		{nil, toIn, "", "none", ""},
		{nil, block, "a", "none", ""},
	}
	for _, tt := range tests {
		name := fmt.Sprintf("%d records, %v %s", len(tt.before), tt.kind, tt.report)
		t.Run(name, func(t *testing.T) {
			table, now := newTable(t)
			table.Report(now, "lan", tt.before)
			actions := table.Report(now, "lan", []igmp.Record{record(tt.kind, tt.report)})
			if got := state(table.ports["lan"].groups[pub], now); got != tt.want {
				t.Errorf("state %q, want %q", got, tt.want)
			}
			if got := queries(actions); got != tt.ask {
				t.Errorf("queries %q, want %q", got, tt.ask)
			}
		})
	}
}

func routes(table *Table, now time.Time) string {
	var all []string
	for _, r := range table.Public(now) {
		source := "*"
		if r.Source.IsValid() {
			source = letters([]netip.Addr{r.Source})
		}
		all = append(all, source+"->"+strings.Join(r.Out, "+"))
	}
	return strings.Join(all, " ")
}

func TestRoutesOfSeveralPorts(t *testing.T) {
	table, now := newTable(t)
	table.SetPort(now, Port{Name: "lan2", Address: netip.MustParseAddr("10.4.0.1"), Members: true})
	steps := []struct {
		port   string
		record igmp.Record
		want   string
	}{
		{"lan", record(igmp.ChangeToExclude, ""), "*->lan"},
		{"lan2", record(igmp.AllowNewSources, "a"), "*->lan a->lan+lan2"},
		{"lan2", record(igmp.ChangeToExclude, "b"), "*->lan+lan2 b->lan"},
	}
	for _, s := range steps {
		actions := table.Report(now, s.port, []igmp.Record{s.record})
		if got := routes(table, now); got != s.want {
			t.Fatalf("after %v on %s: %q, want %q", s.record.Type, s.port, got, s.want)
		}
		if !changed(actions) {
			t.Fatalf("no change told after %v on %s", s.record.Type, s.port)
		}
	}
	if changed(table.Report(now, "lan", []igmp.Record{record(igmp.ModeIsExclude, "")})) {
		t.Fatal("a refresh is told as a change")
	}
	table.Report(now, "lan", []igmp.Record{record(igmp.ChangeToExclude, "b")})
	run(table, now, now.Add(2*time.Second)) // nobody else asked for b meanwhile
	if got := routes(table, now.Add(2*time.Second)); got != "*->lan+lan2 b->" {
		t.Fatalf("source that nobody wants: %q", got)
	}
}

func changed(actions []Action) bool {
	for _, a := range actions {
		if _, ok := a.(Changed); ok {
			return true
		}
	}
	return false
}

// run ticks the table until the given time and returns the queries with their seconds since from.
func run(table *Table, from, until time.Time) (log []string) {
	for !table.Next().IsZero() && !table.Next().After(until) {
		at := table.Next()
		if q := queries(table.Tick(at)); q != "" {
			log = append(log, fmt.Sprintf("%v %s", at.Sub(from), q))
		}
	}
	return log
}

func TestLeave(t *testing.T) {
	table, now := newTable(t)
	table.V2Report(now, "lan", pub)
	if q := queries(table.Leave(now, "lan", pub)); q != "Q(G,)" {
		t.Fatalf("asked %q at the leave", q)
	}
	got := run(table, now, now.Add(1900*time.Millisecond))
	if want := "[1s Q(G,)]"; fmt.Sprint(got) != want {
		t.Fatalf("asked %v, want %v", got, want)
	}
	if routes(table, now.Add(1999*time.Millisecond)) == "" {
		t.Fatal("gone before the last member had its time")
	}
	run(table, now, now.Add(2*time.Second))
	if got := routes(table, now.Add(2*time.Second)); got != "" {
		t.Fatalf("still there: %s", got)
	}
}

func TestLeaveWhileAnotherMemberAnswers(t *testing.T) {
	table, now := newTable(t)
	table.V2Report(now, "lan", pub)
	table.Leave(now, "lan", pub)
	table.V2Report(now.Add(500*time.Millisecond), "lan", pub)
	got := run(table, now, now.Add(4*time.Second))
	if want := "[1s Q(G,)s]"; fmt.Sprint(got) != want {
		t.Fatalf("asked %v, want %v: the member has answered", got, want)
	}
	if routes(table, now.Add(10*time.Second)) != "*->lan" {
		t.Fatal("the other member lost the group")
	}
}

func TestSourceQueriesAreRepeated(t *testing.T) {
	table, now := newTable(t)
	table.Report(now, "lan", []igmp.Record{record(igmp.AllowNewSources, "ab")})
	table.Report(now, "lan", []igmp.Record{record(igmp.BlockOldSources, "ab")})
	table.Report(now.Add(100*time.Millisecond), "lan", []igmp.Record{record(igmp.ModeIsInclude, "a")})
	got := run(table, now, now.Add(4*time.Second))
	if want := "[1s Q(G,a)s Q(G,b)]"; fmt.Sprint(got) != want {
		t.Fatalf("asked %v, want %v", got, want)
	}
	if got := routes(table, now.Add(10*time.Second)); got != "a->lan" {
		t.Fatalf("routes %q", got)
	}
}

func TestExpiry(t *testing.T) {
	table, now := newTable(t)
	table.Report(now, "lan", []igmp.Record{record(igmp.ModeIsExclude, "xy"), record(igmp.ModeIsInclude, "x")})
	later := now.Add(200 * time.Second)
	table.Report(later, "lan", []igmp.Record{record(igmp.ModeIsInclude, "x")})
	run(table, now, now.Add(260*time.Second))
	if got := routes(table, now.Add(260*time.Second)); got != "x->lan" {
		t.Fatalf("after the group timer: %q, want the source whose timer runs", got)
	}
	run(table, now, later.Add(260*time.Second))
	if got := routes(table, later.Add(260*time.Second)); got != "" {
		t.Fatalf("after all timers: %q", got)
	}
}

func TestOlderHosts(t *testing.T) {
	t.Run("IGMPv2: no source lists", func(t *testing.T) {
		table, now := newTable(t)
		table.V2Report(now, "lan", pub)
		table.Report(now, "lan", []igmp.Record{record(igmp.BlockOldSources, "a"), record(igmp.ChangeToExclude, "b")})
		if got := routes(table, now); got != "*->lan" {
			t.Fatalf("routes %q", got)
		}
	})
	t.Run("IGMPv1: no leaves", func(t *testing.T) {
		table, now := newTable(t)
		table.V1Report(now, "lan", pub)
		if q := queries(table.Leave(now, "lan", pub)); q != "" {
			t.Fatalf("asked %q", q)
		}
		run(table, now, now.Add(10*time.Second))
		if got := routes(table, now); got != "*->lan" {
			t.Fatalf("routes %q", got)
		}
	})
	t.Run("IGMPv3 again when they have gone", func(t *testing.T) {
		table, now := newTable(t)
		table.V1Report(now, "lan", pub)
		now = now.Add(260 * time.Second)
		table.Report(now, "lan", []igmp.Record{record(igmp.ChangeToExclude, "b")})
		if got := state(table.ports["lan"].groups[pub], now); got != "EX b," && got != "EX ,b" {
			t.Fatalf("state %q", got)
		}
	})
}

func TestQuerier(t *testing.T) {
	table := New(testConfig())
	if q := queries(table.SetPort(start, Port{Name: "lan", Address: own, Members: true})); q != "Q" {
		t.Fatalf("a new port is asked %q", q)
	}
	got := run(table, start, start.Add(200*time.Second))
	if want := "[31.25s Q 2m36.25s Q]"; fmt.Sprint(got) != want {
		t.Fatalf("general queries %v, want %v", got, want)
	}
	now := start.Add(200 * time.Second)
	table.Query(now, "lan", netip.MustParseAddr("10.3.0.9"), igmp.Query{Version: 3})
	if table.Querier(now, "lan") != own {
		t.Fatal("a higher address won")
	}
	lower := netip.MustParseAddr("10.3.0.0")
	table.Query(now, "lan", lower, igmp.Query{Version: 3})
	if table.Querier(now, "lan") != lower {
		t.Fatal("the lower address did not win")
	}
	// The other's queries lower our timers; its silence makes us the querier again.
	table.V2Report(now, "lan", pub)
	if q := queries(table.Leave(now, "lan", pub)); q != "" {
		t.Fatalf("asked %q though another router is the querier", q)
	}
	table.Query(now, "lan", lower, igmp.Query{Version: 3, Group: pub, Suppress: true})
	run(table, now, now.Add(3*time.Second))
	if routes(table, now) == "" {
		t.Fatal("a query with the S flag lowered the timer")
	}
	table.Query(now.Add(3*time.Second), "lan", lower, igmp.Query{Version: 3, Group: pub})
	got = run(table, now.Add(3*time.Second), now.Add(300*time.Second))
	if want := "[4m15s Q 4m46.25s Q]"; fmt.Sprint(got) != want && fmt.Sprint(got) != "[4m15s Q]" {
		t.Fatalf("general queries %v, want %v", got, want)
	}
	if got := routes(table, now); got != "" {
		t.Fatalf("the querier's query did not lower the timer: %s", got)
	}
}

func TestOnlyPublicGroupsTakePlainReports(t *testing.T) {
	table, now := newTable(t)
	for _, g := range []string{"224.0.0.5", "232.0.0.1", "239.80.80.80", "10.0.0.1", "ff02::1"} {
		table.V2Report(now, "lan", netip.MustParseAddr(g))
		table.Report(now, "lan", []igmp.Record{{Type: igmp.ModeIsExclude, Group: netip.MustParseAddr(g)}})
	}
	table.V2Report(now, "up", pub) // not a member port
	table.V2Report(now, "none", pub)
	if got := routes(table, now); got != "" {
		t.Fatalf("routes %q", got)
	}
}
