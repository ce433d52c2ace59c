package scenario

import (
	"context"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/service"
)

// The phases of each strategy, as the report has them behind its name.
const (
	phaseToAndFro    = ": to and fro"
	phaseEmptied     = ": one server drained and back"
	phaseGiverKilled = ": a server killed while it hands over"
	phaseTakerKilled = ": a server killed while it takes over"
)

// The parts of a strategy's time.
const (
	toAndFroWeight = 6
	otherWeight    = 2
	allWeights     = toAndFroWeight + 3*otherWeight
)

func (h *handover) plan(strategy string) []phase {
	victim := victimOf(strategy)
	plan := []phase{
		{name: strategy + phaseToAndFro, weight: toAndFroWeight, act: h.toAndFro},
		{name: strategy + phaseEmptied, weight: otherWeight, act: h.empty},
		{name: strategy + phaseGiverKilled, weight: otherWeight, act: func(ctx context.Context) error { return h.killHandingOver(ctx, victim, true) }},
		{name: strategy + phaseTakerKilled, weight: otherWeight, act: func(ctx context.Context) error { return h.killHandingOver(ctx, victim, false) }},
	}
	switch service.Strategy(strategy) { // beside the others' time
	case service.Reset:
		plan = append(plan, phase{name: strategy + phaseInOrder, act: h.closeInOrder})
	case service.Forward:
		plan = append(plan, phase{name: strategy + phaseBreak, act: h.closeAtBreaks})
	}
	return plan
}

// expectedHandover are the moves that the phases have to bring, by words of the leader's reasons.
func expectedHandover(strategies []string) map[string][]string {
	expected := map[string][]string{}
	for _, s := range strategies {
		expected[s+phaseToAndFro] = []string{"shares changed"}
		expected[s+phaseEmptied] = []string{"s1 is drained", "s1 joined"}
		// Its death may come with the move in whose midst it is, as a server that did not prepare.
		expected[s+phaseGiverKilled] = []string{victimOf(s) + " joined"}
		expected[s+phaseTakerKilled] = []string{victimOf(s) + " joined"}
		expected[s+phaseInOrder], expected[s+phaseBreak] = []string{"shares changed"}, []string{"shares changed"}
	}
	return expected
}

// victimOf is the server that is killed under a strategy: who dies again and again is kept out for longer each time.
func victimOf(strategy string) string {
	return []string{"s2", "s3", "s1"}[slices.Index(StrategyNames(), strategy)%3]
}

// toAndFro has all users go from server to server: after three turns each is back where it was.
func (h *handover) toAndFro(ctx context.Context) error {
	end := time.Now().Add(h.o.Duration*toAndFroWeight/allWeights - turnEvery)
	for turns := 0; turns < len(h.servers) || time.Now().Before(end); turns++ {
		next := time.Now().Add(turnEvery)
		for g := range h.first {
			h.next(g)
		}
		if err := h.move(ctx); err != nil {
			return err
		}
		if err := h.watchUntil(ctx, next); err != nil {
			return err
		}
	}
	return nil
}

// killHandingOver is the group's; what the victim counted dies with it.
func (h *handover) killHandingOver(ctx context.Context, victim string, gives bool) error {
	if h.transfers() {
		if err := h.readStates(ctx, victim); err != nil {
			return err
		}
	}
	return h.grouped.killHandingOver(ctx, victim, gives)
}
