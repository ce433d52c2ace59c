package scenario

// expected are the moves that each phase has to bring, by words of the leader's reasons. No others may move anybody.
var expected = map[string][]string{
	phaseWeights: {"shares changed"},
	phaseDrained: {"s1 is drained"},
	phaseKilled:  {"s2 is dead"},
	phaseBack:    {"s1 joined", "s2 joined"},
}
