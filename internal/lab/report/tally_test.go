package report

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/manycast/manycast/internal/lab/traffic"
)

var (
	zero  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	alice = netip.MustParseAddr("10.1.0.11")
	bob   = netip.MustParseAddr("10.1.0.12")
)

func at(s float64) time.Time { return zero.Add(time.Duration(s * float64(time.Second))) }

func owners(m map[netip.Addr]string) func(netip.Addr) string {
	return func(a netip.Addr) string { return m[a] }
}

// Alice moves from s1 to s2 at 10 s, s2 dies at 20 s, which is found at 23 s: she is s1's again. From 25 to 28 s a way is dead.
func tally() *Tally {
	return &Tally{
		Timeline: Timeline{
			{At: at(0), Epoch: "1.1", Owner: owners(map[netip.Addr]string{alice: "s1", bob: "s1"})},
			{At: at(10), Epoch: "1.2", Owner: owners(map[netip.Addr]string{alice: "s2", bob: "s1"})},
			{At: at(23), Epoch: "1.3", Owner: owners(map[netip.Addr]string{alice: "s1", bob: "s1"})},
		},
		Deaths:  []Death{{Server: "s2", At: at(20), Gone: at(20.2), Found: at(23)}},
		Outages: []Outage{{At: at(25), Over: at(28)}},
		Spans:   []Span{{"equal", at(0), at(10)}, {"moved", at(10), at(20)}, {"killed", at(20), at(30)}},
	}
}

func closed(user netip.Addr, server string, how traffic.How, start, end float64) traffic.Event {
	return traffic.Event{Kind: traffic.Close, User: user, Server: server, How: how, Start: at(start), End: at(end)}
}

func request(user netip.Addr, server string, start, end float64) traffic.Event {
	return traffic.Event{Kind: traffic.Request, User: user, Server: server, OK: server != "", Start: at(start), End: at(end), Retry: at((start + end) / 2)}
}

func TestConnectionsAreJudged(t *testing.T) {
	tests := []struct {
		name string
		e    traffic.Event
		want Connections
	}{
		{"own end", closed(alice, "s1", traffic.Own, 1, 2), Connections{}},
		{"reset by a move", closed(alice, "s1", traffic.Reset, 1, 10.1), Connections{Reset: 1}},
		{"reset found late", closed(alice, "s1", traffic.Reset, 1, 15), Connections{Reset: 1}},
		{"closed by a move", closed(alice, "s1", traffic.EOF, 1, 10.1), Connections{Reset: 1}},
		{"opened while packets still went to the old server", closed(alice, "s1", traffic.Reset, 10.2, 10.3), Connections{Reset: 1}},
		{"no answer yet", closed(alice, "", traffic.Reset, 9.9, 10.1), Connections{Reset: 1}},
		{"silence is no reset", closed(alice, "s1", traffic.Timeout, 1, 11), Connections{Broken: 1}},
		{"reset without a move", closed(bob, "s1", traffic.Reset, 1, 10.1), Connections{Broken: 1}},
		{"reset long before the move", closed(alice, "s1", traffic.Reset, 1, 5), Connections{Broken: 1}},
		{"lost with the server", closed(alice, "s2", traffic.Timeout, 12, 21), Connections{LostWithServer: 1}},
		{"reset by the dead server's successor", closed(alice, "s2", traffic.Reset, 12, 23.1), Connections{LostWithServer: 1}},
		{"opened while the server was being killed", closed(alice, "", traffic.Timeout, 20.1, 22), Connections{LostWithServer: 1}},
		{"opened with nobody", closed(alice, "", traffic.Timeout, 20.3, 22), Connections{Broken: 1}},
		{"another server's timeout", closed(bob, "s1", traffic.Timeout, 12, 21), Connections{Broken: 1}},
		{"given up on a dead way", closed(bob, "s1", traffic.Timeout, 12, 27), Connections{LostWithDirector: 1}},
		{"opened on a dead way, given up a little later", closed(bob, "", traffic.Timeout, 27.9, 30.2), Connections{LostWithDirector: 1}},
		{"reset on a dead way", closed(bob, "s1", traffic.Reset, 12, 27), Connections{Broken: 1}},
		{"opened when others had found out", closed(bob, "", traffic.Timeout, 28.1, 30.2), Connections{Broken: 1}},
		{"given up long after that", closed(bob, "s1", traffic.Timeout, 12, 31), Connections{Broken: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tl := tally()
			tl.Add(tt.e)
			got, broken := tl.Connections()
			if got != tt.want || len(broken) != tt.want.Broken {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestRequestsAreJudged(t *testing.T) {
	tests := []struct {
		name string
		e    traffic.Event
		want Requests
	}{
		{"answered", request(alice, "s1", 1, 1.1), Requests{Total: 1}},
		{"failed", request(alice, "", 5, 7), Requests{Total: 1, Failed: 1}},
		{"failed while nobody knew", request(alice, "", 21, 23.5), Requests{Total: 1, FailedInDetection: 1}},
		{"failed after all knew", request(alice, "", 23, 25), Requests{Total: 1, Failed: 1}},
		{"not the dead server's user", request(bob, "", 21, 22), Requests{Total: 1, Failed: 1}},
		{"failed on a dead way", request(bob, "", 25.5, 28.4), Requests{Total: 1, FailedInDetection: 1}},
		{"tried again when others had found out", request(bob, "", 27, 29.2), Requests{Total: 1, Failed: 1}},
		{"failed before the way was dead", request(bob, "", 23.5, 24.9), Requests{Total: 1, Failed: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tl := tally()
			tl.Add(tt.e)
			got, failed := tl.Requests()
			if got != tt.want || len(failed) != tt.want.Failed {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestPhasesHaveFailuresAndBlackouts(t *testing.T) {
	tl := tally()
	for _, e := range []traffic.Event{
		request(alice, "s1", 1, 1.05), request(bob, "s1", 2, 2.1),
		request(bob, "", 12, 14), request(bob, "s1", 14, 14.5), // 2.5 s without an answer, begun in the second phase
		request(alice, "", 20.5, 22.5), request(alice, "s1", 22.5, 23.5),
		request(alice, "s1", 19.9, 23.1), request(bob, "s1", 19.8, 22.9), // of the dead server's user, and of another's
	} {
		tl.Add(e)
	}
	want := []Phase{{"equal", 0, 100}, {"moved", 1, 3100}, {"killed", 0, 3200}}
	if diff := cmp.Diff(want, tl.Phases()); diff != "" {
		t.Error(diff)
	}
}

func TestLongWaitsAreFound(t *testing.T) {
	tests := []struct {
		name   string
		events []traffic.Event
		want   int
	}{
		{"short", []traffic.Event{request(bob, "s1", 2, 2.4)}, 0},
		{"answered late", []traffic.Event{request(bob, "s1", 2, 3)}, 1},
		{"over failures", []traffic.Event{request(bob, "", 12, 12.3), request(bob, "s1", 12.3, 12.6)}, 1},
		{"for a dead server", []traffic.Event{request(alice, "s1", 19.9, 23.4)}, 0},
		{"after it was found", []traffic.Event{request(alice, "s1", 23.1, 24.1)}, 1},
		{"not for a dead server", []traffic.Event{request(bob, "s1", 20.5, 21.5)}, 1},
		{"for a dead way", []traffic.Event{request(bob, "s1", 26, 28.5)}, 0},
		{"after others had found out", []traffic.Event{request(bob, "s1", 28.2, 29.2)}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tl := tally()
			for _, e := range tt.events {
				tl.Add(e)
			}
			if got := tl.Waited(500 * time.Millisecond); len(got) != tt.want {
				t.Errorf("%d waits, want %d: %+v", len(got), tt.want, got)
			}
		})
	}
}

// With pins all that a user sends comes to the last former owner that holds something of theirs: its death is the user's, too.
func TestThePinnedWaitForTheDead(t *testing.T) {
	flow := func(server string, start, end float64) traffic.Event {
		e := closed(bob, server, traffic.Own, start, end)
		e.Kind = traffic.Flow
		return e
	}
	for _, tt := range []struct {
		name string
		had  []string // bob, from 0, 2, 4, ... seconds on
		held []traffic.Event
		pins bool
	}{
		{"a connection", []string{"s2", "s1"}, []traffic.Event{closed(bob, "s2", traffic.Reset, 1, 24)}, true},
		{"a connection that was over", []string{"s2", "s1"}, []traffic.Event{closed(bob, "s2", traffic.Own, 1, 19)}, false},
		{"a flow", []string{"s2", "s1"}, []traffic.Event{flow("s2", 1, 24)}, true},
		{"a flow that was silent", []string{"s2", "s1"}, []traffic.Event{flow("s2", -20, -9)}, true},
		{"a flow that was silent for too long", []string{"s2", "s1"}, []traffic.Event{flow("s2", -20, -11)}, false},
		{"its owner's", []string{"s2", "s1"}, []traffic.Event{closed(bob, "s1", traffic.Reset, 3, 24)}, false},
		{"one that was never its owner's", []string{"s3", "s1"}, []traffic.Event{closed(bob, "s2", traffic.Reset, 1, 24)}, false},
		{"at a later owner, too", []string{"s2", "s3", "s1"}, []traffic.Event{flow("s2", 1, 19), closed(bob, "s3", traffic.Own, 3, 24)}, false},
		{"at an earlier owner, too", []string{"s3", "s2", "s1"}, []traffic.Event{flow("s2", 3, 19), closed(bob, "s3", traffic.Own, 1, 24)}, true},
		{"at an owner that had them later and now", []string{"s1", "s2", "s1"}, []traffic.Event{flow("s2", 3, 19), closed(bob, "s1", traffic.Own, 1, 24)}, true},
	} {
		for _, strategy := range []string{Pin, "forward"} {
			tl := tally()
			tl.Timeline = nil
			for i, owner := range tt.had {
				tl.Timeline = append(tl.Timeline, Era{At: at(2 * float64(i)), Owner: owners(map[netip.Addr]string{bob: owner})})
			}
			tl.Periods = []Period{{Strategy: strategy, Start: at(-30)}}
			for _, e := range tt.held {
				tl.Add(e)
			}
			tl.Add(request(bob, "s1", 20.5, 21.5))
			tl.Add(request(bob, "s1", 24, 25))
			pins, want := tt.pins && strategy == Pin, 2
			if pins {
				want = 1
			}
			if stands := tl.StoodBy(request(bob, "s2", 20.1, 20.2)); stands != pins || tl.StoodBy(tt.held[0]) {
				t.Errorf("%s, %s: s2 may answer while it cannot tell whether s1 lives: %t", strategy, tt.name, stands)
			}
			if got := tl.Waited(500 * time.Millisecond); len(got) != want {
				t.Errorf("%s, %s: %d waits, want %d: %+v", strategy, tt.name, len(got), want, got)
			}
		}
	}
}

func TestStrangersAndShares(t *testing.T) {
	tl := tally()
	tl.Add(request(alice, "s1", 1, 1.1))
	tl.Add(request(bob, "s1", 2, 2.1))
	tl.Add(request(bob, "s2", 5, 5.1))        // never bob's
	tl.Add(request(alice, "s1", 10.2, 10.3))  // the move settles
	tl.Add(request(alice, "s1", 12.2, 12.21)) // it has long settled
	if wrong := tl.Strangers(); len(wrong) != 2 || wrong[0].User != bob || wrong[1].User != alice {
		t.Errorf("strangers: %+v", wrong)
	}
	got := tl.Shares([]string{"s1", "s2"}, []netip.Addr{alice, bob}, at(0), at(6))
	want := []Share{{"s1", 0.75, 1, 3}, {"s2", 0.25, 0, 3}} // of bob's two answers one
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := tl.PerServer([]string{"s1", "s2", "s3"}); got["s1"] != 4 || got["s2"] != 1 || len(got) != 3 {
		t.Errorf("per server: %v", got)
	}
}

// The names and where they are are agreed with whoever reads reports: no more, no fewer, nowhere else.
const agreed = `
checks[].detail checks[].name checks[].ok
connections.broken connections.lost_with_server connections.opened connections.reset
duration_s
joins.admitted joins.refused.bad_signature joins.refused.unsigned
moves[].connections_affected moves[].epoch moves[].fraction_moved moves[].fraction_needed moves[].ms
per_server.s1 per_server.s2
phases[].blackout_ms phases[].name phases[].requests_failed
requests.failed requests.failed_in_detection requests.total
scenario`

func TestReportHasTheAgreedNames(t *testing.T) {
	r := Report{
		Scenario: "multicast", PerServer: map[string]int{"s1": 1, "s2": 2}, Moves: []Move{{Epoch: "1.2"}}, Phases: []Phase{{}},
		Joins: Joins{Refused: map[string]uint64{"unsigned": 1, "bad_signature": 2}}, Checks: []Check{{Name: "x", OK: true}},
	}
	var out bytes.Buffer
	if err := r.Write(&out); err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(out.Bytes(), &tree); err != nil {
		t.Fatal(err)
	}
	got := slices.Sorted(maps.Keys(leaves(tree, "", map[string]bool{})))
	if diff := cmp.Diff(strings.Fields(agreed), got); diff != "" {
		t.Error(diff)
	}
	if !r.OK() || (&Report{}).OK() || (&Report{Checks: []Check{{OK: true}, {}}}).OK() {
		t.Error("OK does not mean that all checks hold")
	}
}

// leaves adds the paths of all values that are neither objects nor lists.
func leaves(v any, path string, to map[string]bool) map[string]bool {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			leaves(value, strings.TrimPrefix(path+"."+name, "."), to)
		}
	case []any:
		for _, value := range v {
			leaves(value, path+"[]", to)
		}
	default:
		to[path] = true
	}
	return to
}
