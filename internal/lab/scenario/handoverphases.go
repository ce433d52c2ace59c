package scenario

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
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

// turnEvery is the time between two moves of many users.
const turnEvery = 900 * time.Millisecond

func (h *handover) plan(strategy string) []phase {
	plan := []phase{
		{name: strategy + phaseToAndFro, weight: toAndFroWeight, act: h.toAndFro},
		{name: strategy + phaseEmptied, weight: otherWeight, act: h.empty},
		{name: strategy + phaseGiverKilled, weight: otherWeight, act: func(ctx context.Context) error { return h.killHandingOver(ctx, true) }},
		{name: strategy + phaseTakerKilled, weight: otherWeight, act: func(ctx context.Context) error { return h.killHandingOver(ctx, false) }},
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
		expected[s+phaseGiverKilled] = []string{"s2 joined"}
		expected[s+phaseTakerKilled] = []string{"s2 joined"}
		expected[s+phaseInOrder], expected[s+phaseBreak] = []string{"shares changed"}, []string{"shares changed"}
	}
	return expected
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

func (h *handover) next(group int) { h.first[group] = (h.first[group] + 1) % len(h.servers) }

// move tells of the groups' new servers and waits until they have them.
func (h *handover) move(ctx context.Context) error {
	if err := h.apply(ctx); err != nil {
		return err
	}
	_, err := h.awaitGroups(ctx)
	return err
}

// awaitGroups waits until each group is where it is to be: at the first server of its turn that is not away.
func (h *handover) awaitGroups(ctx context.Context, away ...string) (time.Time, error) {
	return h.web.awaitAllocation(ctx, "each group has its server", func(a alloc.Allocation) bool {
		for _, user := range h.users {
			in := h.turn(int(user.As4()[3]) % groups)
			i := slices.IndexFunc(in, func(s string) bool { return !slices.Contains(away, s) })
			why, err := a.Why(user)
			if err != nil || why.Owner != in[i] {
				return false
			}
		}
		return true
	})
}

// empty drains a server, and has its users come back.
func (h *handover) empty(ctx context.Context) error {
	const name = "s1"
	if err := h.cli(ctx, "server", "drain", h.member(name)); err != nil {
		return err
	}
	if _, err := h.awaitGroups(ctx, name); err != nil {
		return err
	}
	if err := h.watchUntil(ctx, time.Now().Add(turnEvery)); err != nil {
		return err
	}
	if err := h.cli(ctx, "server", "undrain", h.member(name)); err != nil {
		return err
	}
	_, err := h.awaitGroups(ctx)
	return err
}

// killHandingOver takes a server's power away while users go from it, or to it, and has it come back.
func (h *handover) killHandingOver(ctx context.Context, gives bool) error {
	const victim = "s2"
	g := slices.IndexFunc(h.first[:], func(first int) bool { return (h.servers[first] == victim) == gives })
	if g < 0 {
		return fmt.Errorf("no group goes from %s, or to it", victim)
	}
	if h.transfers() { // what it counted dies with it
		if err := h.readStates(ctx, victim); err != nil {
			return err
		}
	}
	before := h.web.epoch()
	h.next(g)
	for !gives && h.servers[h.first[g]] != victim {
		h.next(g)
	}
	if err := h.apply(ctx); err != nil {
		return err
	}
	if err := h.web.awaitEpoch(ctx, before); err != nil {
		return err
	}
	if err := h.kill(victim); err != nil {
		return err
	}
	found, err := h.awaitGroups(ctx, victim)
	if err != nil {
		return err
	}
	h.isFound(found)
	if err := h.revive(ctx, victim, "app", "plain", "relay", "agent"); err != nil {
		return err
	}
	if _, err := h.web.await(ctx, "all servers serve", h.everybody); err != nil { // perhaps no group is the victim's now
		return err
	}
	if _, err := h.awaitGroups(ctx); err != nil {
		return err
	}
	h.isBack()
	return nil
}
