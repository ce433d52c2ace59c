package scenario

import (
	"math"
	"slices"
	"strings"

	"github.com/manycast/manycast/internal/lab/report"
)

// expected are the moves that each phase has to bring, by words of the leader's reasons. No others may move anybody.
var expected = map[string][]string{
	phaseWeights: {"shares changed"},
	phaseDrained: {"s1 is drained"},
	phaseKilled:  {"s2 is dead"},
	phaseBack:    {"s1 joined", "s2 joined"},
}

// missing are the expected reasons that no move of the phase has; where none is expected, every move is one too many.
func missing(phase string, moves []Move) (absent []string, ok bool) {
	want := expected[phase]
	for _, reason := range want {
		if !slices.ContainsFunc(moves, func(v Move) bool { return strings.Contains(v.Reason, reason) }) {
			absent = append(absent, reason)
		}
	}
	return absent, len(absent) == 0 && (len(want) > 0 || len(moves) == 0)
}

// checkMoves: each phase brought its own moves, and what moved is what had to.
func (m *multicast) checkMoves(spans []report.Span) {
	seen := map[string]bool{}
	for _, s := range spans {
		seen[s.Name] = true
		moves := m.web.between(s.Start, s.End)
		absent, ok := missing(s.Name, moves)
		var reasons []string
		for _, v := range moves {
			reasons = append(reasons, v.Epoch+" "+v.Reason)
		}
		detail := "none"
		if len(reasons) > 0 {
			detail = strings.Join(reasons, "; ")
		}
		if len(absent) > 0 {
			detail += "; missing: " + strings.Join(absent, ", ")
		}
		m.check("moves: "+s.Name, ok, "%s", detail)
	}
	for _, p := range m.plan() {
		if !seen[p.name] {
			m.check("moves: "+p.name, false, "the phase was not reached")
		}
	}
	all := m.web.all()
	var worst float64
	for _, v := range all {
		worst = max(worst, math.Abs(v.FractionMoved-v.FractionNeeded))
	}
	m.check("moved is needed", len(all) > 0 && worst < 1e-9, "%d moves, the largest difference %.6f of the source space", len(all), worst)
}
