package scenario

import (
	"io"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/lab/report"
)

func because(reasons ...string) (moves []Move) {
	for _, r := range reasons {
		moves = append(moves, Move{Reason: r})
	}
	return moves
}

func TestEachPhaseHasItsMoves(t *testing.T) {
	for _, tt := range []struct {
		phase string
		moves []Move
		want  bool
	}{
		{phaseEqual, nil, true},
		{phaseEqual, because("s2 is dead"), false},
		{phaseWeights, because("shares changed"), true},
		{phaseWeights, nil, false},
		{phaseDrained, because("shares changed"), false},
		{phaseKilled, because("s2 is dead"), true},
		{phaseIntruders, because("s3 joined"), false},
		{phaseBack, because("s1 joined", "s2 joined", "shares changed"), true},
		{phaseBack, because("s1 joined, s2 joined"), true},
		{phaseBack, because("s1 joined"), false},
	} {
		if absent, ok := missing(expected[tt.phase], tt.moves); ok != tt.want {
			t.Errorf("%s, %v: %v, missing %q", tt.phase, tt.moves, ok, absent)
		}
	}
}

func TestPhasesOfMovesAreChecked(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	m := &multicast{stage: stage{web: newFollower("web", func(string, ...any) {}), o: Options{Progress: NewProgress(io.Discard, false)}}}
	spans := []report.Span{{Name: phaseEqual, Start: at(1), End: at(2)}, {Name: phaseWeights, Start: at(2), End: at(3)}, {Name: phaseDrained, Start: at(3), End: at(4)}}
	first := Move{report.Move{Epoch: "1.1"}, "first allocation"}
	second := Move{report.Move{Epoch: "1.2"}, "shares changed"}
	m.web.hear(News{At: at(0), Moves: []Move{first}})
	m.web.hear(News{At: at(2), Moves: []Move{first, second}})
	m.tally.Spans = spans
	m.checkMoves(m.plan(), expected)
	failed := func() (names []string) {
		for _, c := range m.checks {
			if !c.OK {
				names = append(names, c.Name)
			}
		}
		return names
	}
	want := []string{"moves: " + phaseDrained, "moves: " + phaseKilled, "moves: " + phaseIntruders, "moves: " + phaseRouters, "moves: " + phaseBack}
	if got := failed(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	m.checks = nil
	second.FractionMoved = 0.1
	m.web.hear(News{At: at(2), Moves: []Move{first, second}})
	m.tally.Spans = spans
	m.checkMoves(m.plan(), expected)
	if got := failed(); !slices.Contains(got, "moved is needed") {
		t.Errorf("%q", got)
	}
}
