package handover_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/manycast/manycast/lbd/internal/handover"
)

var (
	seedFlag = flag.Uint64("seed", 0, "repeat the run of TestSimulation with this seed alone")
	runsFlag = flag.Uint64("runs", 300, "runs of TestSimulation for each kind of faults, and 15 times as many as of TestCrashAtEachStep for each step; a tenth with -short")
)

// kinds of faults, one after the other and all together.
var kinds = []struct {
	name   string
	faults faults
}{
	{"no faults", faults{}},
	{"channel", faults{lose: 300, double: 200}},
	{"links", faults{snap: 20, lose: 100, stall: 20}},
	{"refusals", faults{refuse: 60, stall: 10}},
	{"crashes", faults{crash: 4, lose: 50}},
	{"pauses", faults{pause: 5, snap: 10, deaf: 10}},
	{"everything", faults{lose: 200, double: 100, packet: 30, snap: 15, crash: 2, refuse: 20, stall: 15, deaf: 3, pause: 1}},
}

// TestSimulation runs pools of servers through reallocations. No connection ever speaks at two servers, and no byte is lost, doubled or
// out of its place; at the end each is live at one server, or is gone for a cause that is allowed: its holder crashed, or its giver was
// told, or had to think, that nobody knows what became of it.
func TestSimulation(t *testing.T) {
	runs := *runsFlag
	if testing.Short() {
		runs /= 10
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			total, why := map[string]int{}, map[handover.Reason]int{}
			first, last := uint64(1), runs
			if *seedFlag != 0 {
				first, last = *seedFlag, *seedFlag
			}
			for seed := first; seed <= last && !t.Failed(); seed++ {
				simulate(t, seed, kind.faults, total, why, crashes{})
			}
			t.Logf("%v; %v", total, why)
			switch {
			case total["given"] == 0:
				t.Error("nothing was ever given")
			case kind.faults == faults{} && total["lost"]+total["gone"] > 0:
				t.Error("connections were lost without faults")
			}
		})
	}
}

// steps are all that giver and taker do, as stepOf names it.
var steps = []string{
	"Dial", "Export", "GiveBack", "Pass", "Unpass", "Freeze", "Thaw", "Close", "Hold", "Restore", "Import", "GoLive", "Discard", "Open", "Report", "Arrived", "Finished",
	"Offer", "Ready", "Refused", "State", "Took", "Failed", "Cancel", "Ask", "Query", "Verdict",
}

// TestCrashAtEachStep kills the server that comes to a step, or another one, at each step in turn, again and again, while links break, words are lost and
// somebody says no.
func TestCrashAtEachStep(t *testing.T) {
	runs := max(*runsFlag/15, 1)
	if testing.Short() {
		runs = max(runs/10, 1)
	}
	for _, step := range steps {
		for _, peer := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,peer=%t", step, peer), func(t *testing.T) {
				t.Parallel()
				total, why, crashed := map[string]int{}, map[handover.Reason]int{}, 0
				first, last := uint64(1), runs
				if *seedFlag != 0 {
					first, last = *seedFlag, *seedFlag
				}
				for seed := first; seed <= last && !t.Failed(); seed++ {
					c := simulate(t, seed, faults{snap: 20, lose: 100, refuse: 60, stall: 20}, total, why, crashes{at: step, after: int(seed % 8), peer: peer})
					if c.done {
						crashed++
					}
				}
				if crashed == 0 && last-first >= 15 && !t.Failed() { // some come seldom
					t.Error("no server came to it")
				}
				t.Logf("%d crashes in %d runs: %v", crashed, last-first+1, total)
			})
		}
	}
}

func simulate(t *testing.T, seed uint64, f faults, total map[string]int, why map[handover.Reason]int, c crashes) crashes {
	failed := true
	defer func() {
		if failed {
			t.Errorf("go test -run '%s' . -args -seed %d", t.Name(), seed)
		}
	}()
	f.moves = time.Duration(1+seed%10) * 20 * time.Millisecond // from moves that cross each other to such that have time
	w := newWorld(t, seed, f, 3+int(seed%2), 5)
	w.crashes = c
	w.run(800 * time.Millisecond)
	w.calm = true
	w.run(4 * time.Second)
	alive, gone := w.check()
	total["alive"] += alive
	total["gone"] += gone
	for outcome, n := range w.reports {
		total[fmt.Sprint(outcome)] += n
	}
	for reason, n := range w.why {
		why[reason] += n
	}
	failed = false
	return w.crashes
}
