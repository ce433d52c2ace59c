package scenario

import (
	"bytes"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/service"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

func TestPacketsOfTcpdump(t *testing.T) {
	for _, tt := range []struct {
		text string
		want int
		ok   bool
	}{
		{"tcpdump: listening on mgmt\n0 packets captured\n0 packets received by filter\n0 packets dropped by kernel\n", 0, true},
		{"12 packets captured\n13 packets received by filter\n2 packets dropped by kernel\n", 14, true},
		{"0 packets captured\n4 packets received by filter\n0 packets dropped by kernel\n", 0, true}, // before there was a filter
		{"1 packet captured\n1 packet received by filter\n0 packets dropped by kernel\n", 1, true},
		{"tcpdump: mgmt: No such device exists\n", 0, false},
	} {
		got, err := packets("x", tt.text)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%q: %d, %v", tt.text, got, err)
		}
	}
}

func TestLedgerAddsOverRestarts(t *testing.T) {
	var l ledger
	l.enter(counters{Started: "a", Admitted: 5, Refused: map[string]uint64{"unsigned": 1}})
	l.enter(counters{Started: "a", Admitted: 7, Refused: map[string]uint64{"unsigned": 2}})
	l.enter(counters{Started: "b", Admitted: 1, Refused: map[string]uint64{"duplicate": 1}})
	l.enter(counters{Started: "b", Admitted: 3, Refused: map[string]uint64{"duplicate": 1}})
	j := joins(map[string]*ledger{"r1": &l, "r2": {now: counters{Admitted: 10}}})
	if j.Admitted != 20 || j.Refused["unsigned"] != 2 || j.Refused["duplicate"] != 1 || len(j.Refused) != len(report.Reasons) {
		t.Errorf("joins %+v", j)
	}
}

func TestNewsOfTheBus(t *testing.T) {
	a, _, err := alloc.Next(alloc.Allocation{}, alloc.Want{
		Slots:   alloc.Slots{By: alloc.Suffix, Bits: 2},
		Servers: []alloc.Server{{Name: "s1", Weight: 1, Alive: true}, {Name: "s2", Weight: 1, Alive: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	a.Epoch.Term = 3
	value, err := proto.Marshal(&allocv1.State{Committed: alloc.ToProto("web", a)})
	if err != nil {
		t.Fatal(err)
	}
	n, err := allocationNews(value)
	if err != nil || n.Allocation == nil || !n.Allocation.Same(a) || n.Allocation.Epoch != a.Epoch {
		t.Errorf("news %+v, %v", n, err)
	}
	if n, err := allocationNews(nil); n != nil || err != nil {
		t.Errorf("nothing committed: %+v, %v", n, err)
	}
	value, err = proto.Marshal(&allocv1.Moves{Moves: []*allocv1.Move{{Epoch: alloc.EpochToProto(a.Epoch), FractionMoved: 0.5, FractionNeeded: 0.25, ConnectionsAffected: 7, Ms: 1.5, Reason: "s2 joined"}}})
	if err != nil {
		t.Fatal(err)
	}
	n, err = movesNews(value)
	if err != nil {
		t.Fatal(err)
	}
	want := []Move{{report.Move{Epoch: a.Epoch.String(), FractionMoved: 0.5, FractionNeeded: 0.25, ConnectionsAffected: 7, MS: 1.5}, "s2 joined"}}
	if diff := cmp.Diff(want, n.Moves); diff != "" {
		t.Error(diff)
	}
	var l leaderNews
	for _, tt := range []struct{ holder, want string }{{"d1", "d1"}, {"d1", "none"}, {"d2", "d2"}, {"", ""}, {"", "none"}} {
		value, err := proto.Marshal(&allocv1.Lease{Holder: tt.holder})
		if err != nil {
			t.Fatal(err)
		}
		n, err := l.parse(value)
		if got := (n != nil); err != nil || got != (tt.want != "none") || got && *n.Leader != tt.want {
			t.Errorf("lease of %q: %+v, %v", tt.holder, n, err)
		}
	}
	for _, f := range []func([]byte) (*News, error){allocationNews, movesNews, (&leaderNews{}).parse} {
		if _, err := f([]byte{0xff}); err == nil {
			t.Error("garbage was taken for news")
		}
	}
}

func TestStaticOwner(t *testing.T) {
	services, err := service.Parse([]byte(`
name: web
vip: 192.0.2.80
group: 239.80.80.80
ports: [tcp/80]
servers:
  - {name: s1, address: 10.3.1.10, portions: [0.0.0.0/0.0.0.1]}
  - {name: s2, address: 10.3.2.20, portions: [0.0.0.1/0.0.0.1]}
`))
	if err != nil {
		t.Fatal(err)
	}
	owner := staticOwner(services[0])
	if a, b := owner(netip.MustParseAddr("10.1.0.12")), owner(netip.MustParseAddr("10.1.0.13")); a != "s1" || b != "s2" {
		t.Errorf("owners %q and %q", a, b)
	}
}

func TestStaticPlanNeedsNoBus(t *testing.T) {
	for _, static := range []bool{true, false} {
		m := &multicast{stage: stage{o: Options{Static: static}}}
		var names []string
		for _, p := range m.plan() {
			names = append(names, p.name)
		}
		want := "equal, weights changed, one server drained, one server killed, intruders, igmpd killed and restarted, back"
		if static {
			want = "equal, igmpd killed and restarted"
		}
		if got := strings.Join(names, ", "); got != want {
			t.Errorf("static %v: %s", static, got)
		}
	}
}

func TestStrategyHasToExist(t *testing.T) {
	if _, err := Handover(t.Context(), nil, Options{Duration: time.Minute, Strategy: "teleport"}); err == nil || !strings.Contains(err.Error(), "transfer") {
		t.Errorf("error %v", err)
	}
}

// Three turns have each group back where it was, at all servers in between.
func TestGroupsGoRound(t *testing.T) {
	h := &handover{grouped: grouped{stage: stage{servers: []string{"s1", "s2", "s3"}}}}
	h.settle(1)
	for g := range groups {
		var seen []string
		for range 4 {
			seen = append(seen, h.turn(g)[0])
			h.next(g)
		}
		if seen[0] == seen[1] || seen[1] == seen[2] || seen[0] == seen[2] || seen[3] != seen[0] {
			t.Errorf("group %d: %v", g, seen)
		}
	}
}

func TestDurationHasAMinimum(t *testing.T) {
	if _, err := Multicast(t.Context(), nil, Options{Duration: time.Second}); err == nil || !strings.Contains(err.Error(), "at least") {
		t.Errorf("error %v", err)
	}
}

// The gate's demo has to last long enough.
func TestGateLastsLongEnough(t *testing.T) {
	text, err := os.ReadFile("../../../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^make demo DURATION=(\S+)$`).FindSubmatch(text)
	if found == nil {
		t.Fatal("the gate has no demo")
	}
	if d, err := time.ParseDuration(string(found[1])); err != nil || d < MinDuration {
		t.Errorf("the gate's demo lasts %s, at least %v are needed: %v", found[1], MinDuration, err)
	}
}

func TestProgress(t *testing.T) {
	for live, want := range map[bool]string{
		true:  "== equal\n\r\x1b[K     1.0 s  equal: 10 requests, 0 unanswered\r\x1b[K     6.0 s  equal: 60 requests, 1 unanswered\r\x1b[K   FAIL c: d\n",
		false: "== equal\n     6.0 s  equal: 60 requests, 1 unanswered\n   FAIL c: d\n",
	} {
		var out bytes.Buffer
		p := NewProgress(&out, live)
		p.Phase("equal")
		p.Tick(time.Second, 10, 0)
		p.Tick(6*time.Second, 60, 1)
		p.Check(report.Check{Name: "c", Detail: "d"})
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("live %v: %s", live, diff)
		}
	}
}
