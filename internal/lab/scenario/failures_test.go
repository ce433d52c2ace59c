package scenario

import (
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/lab/traffic"
)

// What fails, and what is chosen of it, without a lab.
func TestFailuresAreChosen(t *testing.T) {
	source, err := lab.BuiltIn("failures")
	if err != nil {
		t.Fatal(err)
	}
	topology, err := lab.ParseTopology(source.Text)
	if err != nil {
		t.Fatal(err)
	}
	chosen := func(o Options) map[string]int {
		f := &failures{stage: stage{o: o, servers: []string{"s1", "s2", "s3", "s4"}}, topology: topology}
		kinds := map[string]int{}
		for _, x := range f.plan() {
			kinds[x.kind()]++
		}
		return kinds
	}
	all := chosen(Options{})
	for _, kind := range report.Kinds {
		if all[kind] == 0 {
			t.Errorf("no failure of kind %s in %v", kind, all)
		}
		delete(all, kind)
	}
	if len(all) != 0 {
		t.Errorf("other kinds: %v", all)
	}
	// A server without a quorum belongs to the bus, which lost it.
	if some := chosen(Options{Only: []string{"bus"}}); some["bus"] != 5 || some["server"] != 1 || len(some) != 2 {
		t.Errorf("of the bus: %v", some)
	}
	if few := chosen(Options{Only: []string{"server", "link"}, Few: true}); few["server"] != 1 || few["link"] != 1 || len(few) != 2 {
		t.Errorf("one of each: %v", few)
	}
}

func TestUnknownKind(t *testing.T) {
	_, err := Failures(t.Context(), &lab.Store{Root: t.TempDir()}, Options{Only: []string{"weather"}})
	if err == nil || !strings.Contains(err.Error(), "weather") || !strings.Contains(err.Error(), "application") {
		t.Errorf("error %v, want one that names the kinds", err)
	}
}

func TestStallsAreRead(t *testing.T) {
	const line = `time=2026-11-25T20:14:45.632Z level=WARN msg="takes nobody until 20:14:50, unless nobody else does: it was silent for too long" agent=s4 service=""`
	if m := stalledRE.FindStringSubmatch(line); m == nil || m[1] != "2026-11-25T20:14:45.632Z" {
		t.Errorf("%q in %s", m, line)
	}
	at := time.Date(2026, 11, 25, 20, 14, 45, 0, time.UTC)
	f := &failures{stage: stage{began: at.Add(-time.Minute)}, failures: []outcome{
		{Failure: report.Failure{What: "server s1: power loss"}, victims: []string{"s1"}, start: at.Add(-time.Second), end: at.Add(time.Second)},
	}}
	long := func(server string) bool { return f.bySelf(server, at.Add(-2*time.Second), at.Add(time.Minute)) }
	if f.bySelf("s1", at, at) || long("s1") || !f.bySelf("s2", at, at) || !long("s2") || f.bySelf("s2", at.Add(-time.Hour), at) {
		t.Error("whose silence was made is mixed up")
	}
	var found stalls
	f.stalled(&found, "s2", at, 60*time.Millisecond, 300*time.Millisecond)
	f.stalled(&found, "s3", at, 300*time.Millisecond, 20*time.Millisecond)
	if len(f.tally.Deaths) != 0 || len(found.heard) != 1 || len(found.hung) != 1 {
		t.Errorf("excused %+v, found %+v", f.tally.Deaths, found)
	}
	f.planned = span{at.Add(-time.Second), at.Add(time.Second)}
	if f.bySelf("s2", at, at) {
		t.Error("who was started anew was silent by itself")
	}
	f.stalled(&found, "s4", at, 300*time.Millisecond, 300*time.Millisecond)
	if len(f.tally.Deaths) != 1 || f.tally.Deaths[0].Server != "s4" || len(found.kept) != 1 || !slices.Equal(f.failures[0].stalled, []string{"s4"}) {
		t.Errorf("deaths %+v, found %+v, in %v", f.tally.Deaths, found, f.failures[0].stalled)
	}
}

func TestStallsAreCountedByTheirTimes(t *testing.T) {
	at := func(s float64) time.Time { return time.UnixMilli(int64(s * 1000)) }
	for n, times := range [][]time.Time{nil, {at(1)}, {at(20), at(1), at(1.5), at(3)}} {
		if got := (&stalls{keptAt: times}).times(); got != n {
			t.Errorf("%d times in %v, want %d", got, times, n)
		}
	}
}

// Whose waits and answers are the machine's doing, a cut link's, or the servers' word that they have too much to do.
func TestWhatIsLeftOut(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(100_000 + ms)) }
	f := &failures{stage: stage{starvation: &starvation{}}, failures: []outcome{
		{bounds: failure{between: true}.bounds(), start: at(0), end: at(5000)},
		{start: at(5000), end: at(9000), refused: true},
		{start: at(9000), end: at(12000), sheds: true},
	}}
	waits := func(start, end int) traffic.Event { return traffic.Event{Start: at(start), End: at(end)} }
	if !f.interrupted(waits(10, 1030)) || !f.interrupted(waits(3000, 4100)) {
		t.Error("a SYN that was lost when a link was cut, or healed")
	}
	if f.interrupted(waits(10, 1400)) || f.interrupted(waits(6000, 7010)) {
		t.Error("a wait that is longer than that, or another time's")
	}
	failed := func(start int, text string) traffic.Event {
		return traffic.Event{Start: at(start), End: at(start + 10), Err: text}
	}
	for _, tt := range []struct {
		e    traffic.Event
		want bool
	}{
		{failed(6000, "i/o timeout"), true}, // there was nobody
		{failed(10000, "dial: connection refused; again: dial: connection refused"), true},
		{failed(10000, "dial: connection refused; again: i/o timeout"), false}, // shedding drops nothing
		{failed(4000, "dial: connection refused"), false},
	} {
		if got := f.refused(tt.e); got != tt.want {
			t.Errorf("%s at %v: refused %v", tt.e.Err, tt.e.Start, got)
		}
	}
	f.starvation.add(starved{node: "s1", process: "agent", at: at(3000), waited: silentFor})
	f.starvation.add(starved{node: "s1", process: "agent", at: at(8000), waited: silentFor - 1})
	if !f.disturbed(waits(3500, 4000)) || f.disturbed(waits(100, 200)) || f.disturbed(waits(8000, 8100)) {
		t.Error("what the machine's doing is")
	}
	if got := f.starvation.longest(at(0), at(9000), "s1"); got != 0 {
		t.Errorf("%v of others", got)
	}
}

// A connection to a standby that gave the user back is the machine's doing only where it kept somebody from running.
func TestBrokenByTheMachine(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(100_000 + ms)) }
	name := func(s string) func(netip.Addr) string { return func(netip.Addr) string { return s } }
	f := &failures{stage: stage{starvation: &starvation{}}}
	f.tally.Timeline = report.Timeline{{At: at(0), Epoch: "1.1", Owner: name("s1"), Standby: name("s2")}}
	f.starvation.add(starved{at: at(3000), waited: silentFor})
	closed := func(server string, end int, how traffic.How) traffic.Event {
		return traffic.Event{Kind: traffic.Close, Server: server, Start: at(end - 100), End: at(end), How: how}
	}
	broken := []traffic.Event{
		closed("s2", 3500, traffic.Reset),
		closed("s2", 3500, traffic.Timeout),
		closed("s1", 3500, traffic.Reset),
		closed("s3", 3500, traffic.Reset),
		closed("s2", 9000, traffic.Reset),
	}
	if got := f.unexcused(slices.Clone(broken)); !slices.Equal(got, broken[1:]) {
		t.Errorf("%+v", got)
	}
}

func TestLongestSilence(t *testing.T) {
	ms := func(n int) time.Time { return time.UnixMilli(int64(n)) }
	heard := []time.Time{ms(0), ms(50), ms(350), ms(400), ms(1400)}
	if got := longestSilence(heard, ms(380)); got != 300*time.Millisecond {
		t.Errorf("%v, want 300 ms: a later one tells nothing", got)
	}
	if got := longestSilence(heard[:1], ms(380)); got != 0 {
		t.Errorf("one frame: %v", got)
	}
}

func TestStarvationIsAddedUp(t *testing.T) {
	if d, ok := parseSchedstat("960601 90319 2\n"); !ok || d != 90319 {
		t.Errorf("%v, %v", d, ok)
	}
	for _, bad := range []string{"", "1 2", "1 x 3"} {
		if _, ok := parseSchedstat(bad); ok {
			t.Errorf("%q was taken", bad)
		}
	}
	at := time.UnixMilli(1000)
	s := &starvation{}
	s.add(starved{node: "s1", process: "agent", at: at, waited: 80 * time.Millisecond})
	s.add(starved{node: "s1", process: "agent", at: at, waited: notable - 1})
	s.add(starved{node: "s2", process: "agent", at: at, waited: time.Second})
	s.add(starved{at: at, waited: 50 * time.Millisecond}) // everybody's
	if got := s.between("s1", "agent", at.Add(-1), at.Add(1)); got != 130*time.Millisecond {
		t.Errorf("s1 was kept for %v", got)
	}
	if got := s.between("s1", "agent", at, at.Add(1)); got != 0 {
		t.Errorf("later: %v", got)
	}
	if got := s.worst(at.Add(-1), at.Add(1)); got != "s1/agent 80 ms, s2/agent 1000 ms" {
		t.Errorf("worst: %s", got)
	}
}

// What a failure may cost, by what it is; and that more is found.
func TestBounds(t *testing.T) {
	for want, x := range map[bounds]failure{
		{detect: detectWithin, outage: excused, lost: true}: {victim: "s1"},
		{outage: excused, lost: true}:                       {victim: "s1", lives: true},
		{outage: rerouted}:                                  {between: true},
		{outage: unnoticed}:                                 {},
		{lost: true}:                                        {refused: true},
	} {
		if got := x.bounds(); got != want {
			t.Errorf("%+v: %+v, want %+v", x, got, want)
		}
	}
	judged := func(o outcome) (ok []bool) {
		f := &failures{stage: stage{o: Options{Progress: NewProgress(io.Discard, false)}}, failures: []outcome{o}}
		f.checkDetection()
		f.checkOutage()
		f.checkLost()
		for _, c := range f.checks {
			ok = append(ok, c.OK)
		}
		return ok
	}
	server, other := failure{victim: "s1"}.bounds(), failure{}.bounds()
	for name, tt := range map[string]struct {
		o    outcome
		want []bool
	}{
		"in time":               {outcome{bounds: server, Failure: report.Failure{DetectMS: 300, OutageMS: 400, LostWithServer: 5}}, []bool{true, true, true}},
		"found out late":        {outcome{bounds: server, Failure: report.Failure{DetectMS: 301}}, []bool{false, true, true}},
		"the machine was late":  {outcome{bounds: server, late: 100 * time.Millisecond, Failure: report.Failure{DetectMS: 400, OutageMS: 500}}, []bool{true, true, true}},
		"and it was, too":       {outcome{bounds: server, late: 100 * time.Millisecond, Failure: report.Failure{DetectMS: 401, OutageMS: 501}}, []bool{false, false, true}},
		"answered late":         {outcome{bounds: server, Failure: report.Failure{OutageMS: 401}}, []bool{true, false, true}},
		"lost for nothing":      {outcome{bounds: other, Failure: report.Failure{LostWithServer: 1}}, []bool{true, false}},
		"out for nothing":       {outcome{bounds: other, Failure: report.Failure{OutageMS: 101}}, []bool{false, true}},
		"the machine's doing":   {outcome{bounds: other, stalled: []string{"s1"}, Failure: report.Failure{LostWithServer: 1, OutageMS: 250}}, []bool{true, true}},
		"nobody there to serve": {outcome{bounds: bounds{lost: true}, Failure: report.Failure{OutageMS: 2000, LostWithServer: 24}}, []bool{true}},
	} {
		if got := judged(tt.o); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
