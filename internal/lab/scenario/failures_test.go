package scenario

import (
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/report"
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
	if f.stalled("s1", at) || !f.stalled("s2", at) || f.stalled("s2", at.Add(-time.Hour)) || len(f.tally.Deaths) != 1 {
		t.Errorf("deaths %+v, want one of s2", f.tally.Deaths)
	}
}
