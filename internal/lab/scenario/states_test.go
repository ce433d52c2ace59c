package scenario

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manycast/manycast/internal/lab/report"
)

func TestParseStates(t *testing.T) {
	got, err := parseStates([]byte(`[{"server":"s1","counters":[],"state_sizes":[{"up_to":288,"count":3},{"up_to":5120,"count":1}],"state_max":4711}]`))
	want := report.States{UpTo: map[uint64]uint64{288: 3, 5120: 1}, Max: 4711}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	if _, err := parseStates([]byte("no agent")); err == nil {
		t.Error("taken for an answer")
	}
}
