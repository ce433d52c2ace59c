package report

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manycast/manycast/internal/lab/numbered"
	"github.com/manycast/manycast/internal/lab/traffic"
)

// Under one strategy Alice goes from s1 to s2 at 10 s and back at 20 s, Bob stays at s3. s2 dies at 21 s.
func under(strategy string) *Tally {
	return &Tally{
		Timeline: Timeline{
			{At: at(0), Epoch: "1.1", Owner: owners(map[netip.Addr]string{alice: "s1", bob: "s3"})},
			{At: at(10), Epoch: "1.2", Owner: owners(map[netip.Addr]string{alice: "s2", bob: "s3"})},
			{At: at(20), Epoch: "1.3", Owner: owners(map[netip.Addr]string{alice: "s1", bob: "s3"})},
		},
		Deaths:  []Death{{Server: "s2", At: at(20.1), Gone: at(20.2), Found: at(20.5), Back: at(25)}},
		Periods: []Period{{Strategy: strategy, Start: at(1), End: at(30)}},
	}
}

func TestMovesOfConnections(t *testing.T) {
	for _, tt := range []struct {
		name  string
		close traffic.Event
		reset Handover // under strategy reset
		keeps Handover // under the others
	}{
		{"there all the time", closed(alice, "s1", traffic.Own, 2, 29), Handover{Moves: 2}, Handover{Moves: 2}},
		{"there for the first move", closed(alice, "s1", traffic.Own, 2, 12), Handover{Moves: 1}, Handover{Moves: 1}},
		{"of a user who stays", closed(bob, "s3", traffic.Own, 2, 29), Handover{}, Handover{}},
		{"reset by a move", closed(alice, "s1", traffic.Reset, 2, 10.2), Handover{Moves: 1, Reset: 1}, Handover{Moves: 1, Broken: 1}},
		{"reset of a user who stays", closed(bob, "s3", traffic.Reset, 2, 10.2), Handover{Broken: 1}, Handover{Broken: 1}},
		{"silent after a move", closed(alice, "s1", traffic.Timeout, 2, 10.2), Handover{Moves: 1, Broken: 1}, Handover{Moves: 1, Broken: 1}},
		{"at the dead server", closed(alice, "s2", traffic.Timeout, 12, 22), Handover{Moves: 1, LostWithServer: 1}, Handover{Moves: 1, LostWithServer: 1}},
		// s1 was taking it over from s2 when that died.
		{"handed over by the dead server", closed(alice, "s1", traffic.Reset, 2, 21), Handover{Moves: 2, Reset: 1}, Handover{Moves: 2, LostWithServer: 1}},
		{"elsewhere when the server died", closed(bob, "s3", traffic.Reset, 2, 21), Handover{Broken: 1}, Handover{Broken: 1}},
	} {
		for strategy, want := range map[string]Handover{Reset: tt.reset, "forward": tt.keeps} {
			tally := under(strategy)
			tally.Add(tt.close)
			got, broken := tally.Handovers()
			want.Connections = 1
			if diff := cmp.Diff(want, got[strategy]); diff != "" || len(broken[strategy]) != want.Broken {
				t.Errorf("%s, %s: %d broken, %s", tt.name, strategy, len(broken[strategy]), diff)
			}
		}
	}
}

// A connection that says nothing after its user has gone to another server dies with that; one that was answered by its old server since did not go along.
func TestConnectionsThatSayNothing(t *testing.T) {
	for heard, want := range map[float64]Handover{
		9:    {Connections: 1, Moves: 3, LostWithServer: 1},
		10.3: {Connections: 1, Moves: 3, LostWithServer: 1}, // of an answer on its way
		20.2: {Connections: 1, Moves: 3, LostWithServer: 1},
		22.3: {Connections: 1, Moves: 3, LostWithServer: 1}, // while it was handed over
		23:   {Connections: 1, Moves: 3, Broken: 1},
		0:    {Connections: 1, Moves: 3, Broken: 1}, // nobody knows
	} {
		for _, end := range []float64{26, 29} { // while the server is away, and when it is back
			tally := under("transfer")
			tally.Timeline = append(tally.Timeline, Era{At: at(22), Epoch: "1.4", Owner: tally.Timeline[1].Owner})
			tally.Deaths = []Death{{Server: "s2", At: at(25), Gone: at(25.1), Found: at(25.5), Back: at(28)}}
			e := closed(alice, "s1", traffic.Reset, 2, end)
			if heard > 0 {
				e.Heard = at(heard)
			}
			tally.Add(e)
			got, _ := tally.Handovers()
			if diff := cmp.Diff(want, got["transfer"]); diff != "" {
				t.Errorf("heard at %v, reset at %v: %s", heard, end, diff)
			}
		}
	}
}

func TestBytesOfStreamsAddUp(t *testing.T) {
	tally := under("transfer")
	e := closed(alice, "s1", traffic.Own, 2, 5)
	e.Bytes = &traffic.Bytes{Down: numbered.Counts{Received: 80, Lost: 8}, Up: &numbered.Counts{Received: 40, Doubled: 16}}
	tally.Add(e)
	e = closed(alice, "s1", traffic.Reset, 2, 10.2)
	e.Bytes = &traffic.Bytes{Down: numbered.Counts{Received: 8, Reordered: 24, Garbled: 3}}
	tally.Add(e)
	tally.Add(closed(alice, "s1", traffic.Own, 0.5, 0.9)) // before
	by, _ := tally.Handovers()
	got := by["transfer"]
	want := Handover{
		Connections: 2, Moves: 1, Broken: 1, StreamsEnded: 1,
		BytesReceived: 128, BytesLost: 8, BytesDoubled: 16, BytesReordered: 24, BytesGarbled: 3,
	}
	if diff := cmp.Diff(want, got); diff != "" || got.Whole() {
		t.Error(diff)
	}
}

func TestBlackouts(t *testing.T) {
	tally := under("transfer")
	tally.Add(closed(alice, "s1", traffic.Own, 2, 29)) // who moves is known of those who had connections
	silence := func(kind traffic.Kind, stream string, from, to float64, same bool) {
		tally.Add(traffic.Event{Kind: kind, User: alice, Stream: stream, Start: at(from), End: at(to), Pace: time.Millisecond, OK: same})
	}
	silence(traffic.Wait, traffic.Paced, 9.900, 9.903, false)    // before the move: somebody's, but not its
	silence(traffic.Wait, traffic.Paced, 10.001, 10.006, false)  // 5 ms without the pace: 4
	silence(traffic.Switch, traffic.Paced, 10.010, 10.013, true) // 2
	silence(traffic.Wait, traffic.Paced, 10.600, 10.602, false)  // nothing moves: 1
	silence(traffic.Wait, traffic.Bulk, 10.050, 10.091, false)   // 40
	silence(traffic.Wait, traffic.Paced, 20.100, 20.900, false)  // a server is dead
	by, _ := tally.Handovers()
	got := by["transfer"]
	one := func(ms float64) Spread { return Spread{1, ms, ms, ms} }
	for name, s := range map[string][2]Spread{
		"blackout": {got.Blackout, one(4)}, "switch": {got.Switch, one(2)}, "quiet": {got.Quiet, one(1)}, "bulk": {got.Bulk, one(40)},
	} {
		if s[0] != s[1] {
			t.Errorf("%s: %+v, want %+v", name, s[0], s[1])
		}
	}
	if got.Switched != 1 {
		t.Errorf("%d switched", got.Switched)
	}
}

// On connections that outlive moves those may answer who had the user since they were opened, and shares are of others.
func TestKeptConnectionsAnswer(t *testing.T) {
	for strategy, strangers := range map[string]int{Reset: 2, "pin": 1} {
		tally := under(strategy)
		e := request(alice, "s1", 15, 15.1)
		e.Opened = at(3)
		tally.Add(e)
		e = request(alice, "s1", 15, 15.1)
		tally.Add(e)
		if got := tally.Strangers(); len(got) != strangers {
			t.Errorf("%s: %d strangers, want %d", strategy, len(got), strangers)
		}
		want := 2
		if strategy != Reset {
			want = 1
		}
		if got := tally.Shares([]string{"s1"}, []netip.Addr{alice}, at(14), at(16)); got[0].Requests != want {
			t.Errorf("%s: %d requests count, want %d", strategy, got[0].Requests, want)
		}
	}
}

// Of Alice's two connections by the relay one is answered by both servers, as transfer has it.
func TestRelayedConnections(t *testing.T) {
	tally := under("transfer")
	ask := func(server string, opened, from float64) {
		e := request(alice, server, from, from+0.1)
		e.Opened, e.Via = at(opened), traffic.Relay
		tally.Add(e)
	}
	ask("s1", 2, 9)
	ask("s2", 2, 11)
	ask("s2", 3, 12)
	ask("s1", 0.5, 0.6) // before
	tally.Add(request(alice, "s1", 13, 13.1))
	for opened, how := range map[float64]traffic.How{2: traffic.Own, 3: traffic.Reset} {
		e := closed(alice, "s2", how, opened, 13)
		e.Via = traffic.Relay
		tally.Add(e)
	}
	tally.Add(closed(alice, "s2", traffic.Own, 4, 13))
	by, _ := tally.Handovers()
	if diff := cmp.Diff(Relayed{Connections: 2, Requests: 3, Moves: 2, Switched: 1, Broken: 1}, by["transfer"].Relay); diff != "" {
		t.Error(diff)
	}
}

func TestFlows(t *testing.T) {
	for _, tt := range []struct {
		name     string
		server   string
		how      traffic.How
		from, to float64
		reset    Flows // under strategy reset
		keeps    Flows // under the others
	}{
		{"there all the time", "s1", traffic.Own, 2, 29, Flows{Moves: 2}, Flows{Moves: 2}},
		{"another server went on after a move", "s1", traffic.Other, 2, 10.2, Flows{Moves: 1, Reset: 1}, Flows{Moves: 1, Broken: 1}},
		{"another server went on without one", "s1", traffic.Other, 2, 5, Flows{Broken: 1}, Flows{Broken: 1}},
		{"silent after a move", "s1", traffic.Timeout, 2, 11.2, Flows{Moves: 1, Broken: 1}, Flows{Moves: 1, Broken: 1}},
		{"at the dead server", "s2", traffic.Timeout, 12, 22, Flows{Moves: 1, LostWithServer: 1}, Flows{Moves: 1, LostWithServer: 1}},
		{"began at another server", "s2", traffic.Own, 4, 5, Flows{Strange: 1}, Flows{Strange: 1}},
		{"began just before the move", "s1", traffic.Own, 9.9, 10.5, Flows{Moves: 1}, Flows{Moves: 1}},
		{"some came twice", "s1", traffic.Own, 4, 5, Flows{Doubled: 1}, Flows{Doubled: 1}},
		{"never answered", "", traffic.Timeout, 4, 5, Flows{Broken: 1}, Flows{Broken: 1}},
	} {
		for strategy, want := range map[string]Flows{Reset: tt.reset, "pin": tt.keeps} {
			tally := under(strategy)
			tally.Add(closed(alice, "s1", traffic.Own, 2, 29)) // who moves is known of those who had connections
			tally.Add(traffic.Event{
				Kind: traffic.Flow, User: alice, Server: tt.server, How: tt.how, Start: at(tt.from), End: at(tt.to),
				Datagrams: &traffic.Datagrams{Sent: 9, Answered: 7, Doubled: want.Doubled},
			})
			by, _ := tally.Handovers()
			got := by[strategy].UDP
			if len(got.Wrong) != want.Broken+want.Strange {
				t.Errorf("%s, %s: wrong are %v", tt.name, strategy, got.Wrong)
			}
			got.Wrong, want.Flows, want.Sent, want.Lost = nil, 1, 9, 2
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, %s: %s", tt.name, strategy, diff)
			}
		}
	}
}

func TestEnded(t *testing.T) {
	tally := under(Reset)
	for _, e := range []traffic.Event{
		closed(alice, "s1", traffic.EOF, 2, 10.5), closed(alice, "s1", traffic.EOF, 3, 10.6), closed(alice, "s1", traffic.Reset, 3, 10.7),
		closed(alice, "s1", traffic.Own, 3, 10.7), closed(alice, "s1", traffic.EOF, 3, 12),
	} {
		tally.Add(e)
	}
	stream := closed(alice, "s1", traffic.Reset, 3, 10.7)
	stream.Stream = traffic.Bulk
	tally.Add(stream)
	if diff := cmp.Diff(map[traffic.How]int{traffic.EOF: 2, traffic.Reset: 1}, tally.Ended(at(10), at(11))); diff != "" {
		t.Error(diff)
	}
}

// What a server closes at a break point is not broken; before that, and of users who stay, it is.
func TestBreakPoints(t *testing.T) {
	tally := under("forward")
	tally.Periods[0].Breaks = at(12)
	tally.Add(closed(alice, "s1", traffic.Reset, 2, 11))
	tally.Add(closed(alice, "s1", traffic.Reset, 2, 13))
	tally.Add(closed(alice, "s1", traffic.Timeout, 2, 13))
	tally.Add(closed(bob, "s3", traffic.Reset, 2, 13))
	by, _ := tally.Handovers()
	if got := by["forward"]; got.Reset != 1 || got.Broken != 3 {
		t.Errorf("%+v", got)
	}
}

func TestStatesOfServers(t *testing.T) {
	var s States
	if s.Sizes() != nil {
		t.Errorf("%+v of nothing", s.Sizes())
	}
	s.Add(States{UpTo: map[uint64]uint64{288: 3, 5120: 1}, Max: 5000})
	s.Add(States{UpTo: map[uint64]uint64{288: 1, 320: 4}, Max: 310})
	s.Add(States{})
	if got := s.Sizes(); *got != (Sizes{320, 5000}) || s.Count() != 9 {
		t.Errorf("%+v of %d", got, s.Count())
	}
	few := States{UpTo: map[uint64]uint64{288: 3}, Max: 281}
	if got := few.Sizes(); *got != (Sizes{281, 281}) {
		t.Errorf("%+v: more than the largest", got)
	}
}

// Whoever reads reports goes by these names.
func TestNamesInReports(t *testing.T) {
	text, err := json.Marshal(Handover{State: &Sizes{}})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"connections", "moves", "broken", "lost_with_server", "bytes_lost", "bytes_doubled", "bytes_reordered", "blackout_ms p50 p99 max", "state_bytes p50 max"} {
		fields := strings.Fields(name)
		value, there := got[fields[0]]
		for _, field := range fields[1:] {
			inner, _ := value.(map[string]any)
			_, is := inner[field]
			there = there && is
		}
		if !there {
			t.Errorf("no %s in %s", name, text)
		}
	}
}

func TestSpread(t *testing.T) {
	var times []time.Duration
	for i := range 200 {
		times = append(times, time.Duration(200-i)*time.Millisecond)
	}
	if got, want := spread(times), (Spread{200, 100, 198, 200}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := spread(nil); got != (Spread{}) {
		t.Errorf("%+v of nothing", got)
	}
}
