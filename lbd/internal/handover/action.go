package handover

import "time"

// Action is what the caller has to do. Those of one flow are done in order, each when the one before it is over; results that come
// after the transfer went another way mean nothing to the machines.
type Action interface{ action() }

// Send says something on the link with a peer. Where that link is down, it is dropped.
type Send struct {
	To      string
	Message Message
}

// Say says something on the control channel.
type Say struct{ Word Word }

// Dial opens a link to a taker; Giver.LinkUp or Giver.LinkDown has to follow.
type Dial struct {
	To      string
	Address string // as the taker said it
}

// Of the giver.
type (
	// Export has the application let go of the connection; Giver.Exported follows.
	Export struct{ Transfer }
	// GiveBack undoes Export, also one that has no result yet: the application goes on.
	GiveBack struct{ Transfer }
	// Pass shuts the gate: packets of the flow that come here go on to the taker, and the kernel's own are dropped.
	Pass struct {
		Transfer
		To string
	}
	// Unpass opens the gate again.
	Unpass struct{ Transfer }
	// Freeze puts the socket in repair mode and reads its state; Giver.Frozen follows.
	Freeze struct{ Transfer }
	// Thaw undoes Freeze, also one that has no result yet.
	Thaw struct{ Transfer }
	// Close closes the frozen socket without a word, and then opens the gate: others know whose the packets are.
	Close struct{ Transfer }
	// Report tells how a transfer ended.
	Report struct {
		Transfer
		Batch   BatchID
		Outcome Outcome
		Why     Why // of Stayed and Lost
		Bytes   int // of the state, where it was sent
		Took    time.Duration
	}
	// Finished tells that there is nothing left to do of a batch.
	Finished struct{ Progress }
)

// Of the taker.
type (
	// Hold shuts the gate: packets of the flow wait.
	Hold struct{ Transfer }
	// Restore makes a socket of the kernel's state, in repair mode; Taker.Restored follows.
	Restore struct {
		Transfer
		Kernel []byte
	}
	// Import hands it to the application; Taker.Imported follows.
	Import struct {
		Transfer
		Service     string
		Application []byte
	}
	// GoLive ends repair mode; Taker.Thawed follows.
	GoLive struct{ Transfer }
	// Discard closes the socket without a word, also one that is still being made, and takes it from the application.
	Discard struct{ Transfer }
	// Open opens the gate, for packets that waited first: to the socket where there is one, else they go the forward way.
	Open struct{ Transfer }
	// Arrived tells how a transfer ended for the taker.
	Arrived struct {
		Transfer
		Live bool
		Why  Why // where it is not
		Took time.Duration
	}
)

func (Send) action()     {}
func (Say) action()      {}
func (Dial) action()     {}
func (Export) action()   {}
func (GiveBack) action() {}
func (Pass) action()     {}
func (Unpass) action()   {}
func (Freeze) action()   {}
func (Thaw) action()     {}
func (Close) action()    {}
func (Report) action()   {}
func (Finished) action() {}
func (Hold) action()     {}
func (Restore) action()  {}
func (Import) action()   {}
func (GoLive) action()   {}
func (Discard) action()  {}
func (Open) action()     {}
func (Arrived) action()  {}
