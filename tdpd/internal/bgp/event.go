package bgp

import "net/netip"

// Event is something that a speaker tells. Exactly one of its parts is there.
type Event struct {
	Learned  *Learned
	Lost     *Lost
	Neighbor *NeighborEvent
	// Refused is paths that passed the speaker's policy and not ours, or that make no sense.
	Refused *Refused
	// Began: the speaker answers, at first or after it was away. It may be another one, that has nothing of what was applied: apply it again.
	Began bool
	// Synced: all that the speaker had when the watch began, or began again after the speaker had gone, has been told. What had been told before is kept over the
	// speaker's restart until its neighbor has told all again, or had the time to; then it is Lost.
	Synced bool
}

// Learned is a best path of a neighbor's, new or changed. Exactly one of its parts is there.
type Learned struct {
	Unicast  *Path
	Labelled *LabelledPath
	FlowRule *FlowRule
}

// Lost is what there is no path of any neighbor to any more.
type Lost struct {
	Family Family
	Prefix netip.Prefix // of unicast and labelled families
	Match  FlowMatch    // of FlowSpec
}

// NeighborEvent is a session that came or went.
type NeighborEvent struct {
	Address netip.Addr
	State   SessionState
}

// Refused is paths that were not taken, and why.
type Refused struct {
	From   netip.Addr
	Prefix netip.Prefix // of the last one; invalid: it could not be read
	Why    string       // a word or two, few different ones: for counters
	Count  uint64
}
