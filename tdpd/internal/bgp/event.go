package bgp

import "net/netip"

// Event is something that a speaker tells. Exactly one of its parts is there.
type Event struct {
	Learned  *Learned
	Lost     *Lost
	Neighbor *NeighborEvent
	// Refused is a path that passed the speaker's policy and not ours, or that makes no sense.
	Refused *Refused
	// Synced: all that the speaker had when the watch began, or began again after the speaker had gone, has been told; what it did not tell again is Lost.
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

// Refused is a path that was not taken, and why.
type Refused struct {
	From   netip.Addr
	Prefix netip.Prefix // invalid: it could not be read
	Why    string       // a word or two, few different ones: for counters
}
