package handover

import "github.com/manycast/manycast/internal/epoch"

// Message is what the two say on the link: Offer, State and Cancel by the giver, Ready, Refused, Took and Failed by the taker. The
// link says Coming by itself.
type Message interface{ message() }

// Offer begins a transfer.
type Offer struct {
	Transfer
	Service string
	Epoch   epoch.Epoch
}

// Ready says that the taker holds the flow's packets and waits for its state.
type Ready struct{ ID ID }

// Refused answers an Offer.
type Refused struct {
	ID  ID
	Why Why
}

// State is the connection.
type State struct {
	ID          ID
	Kernel      []byte // what the kernel knows: repair's encoding
	Application []byte // what the application knows, in its own words
}

// Coming says that a part of a State has come.
type Coming struct{ ID ID }

// Cancel says that there will be no State.
type Cancel struct {
	ID  ID
	Why Why
}

// Took says that the connection is the taker's.
type Took struct{ ID ID }

// Failed says that the taker has not taken the connection, and never will by this transfer.
type Failed struct {
	ID  ID
	Why Why
}

func (Offer) message()   {}
func (Ready) message()   {}
func (Refused) message() {}
func (State) message()   {}
func (Coming) message()  {}
func (Cancel) message()  {}
func (Took) message()    {}
func (Failed) message()  {}

// Word is what is said on the control channel: Ask, Query or Verdict.
type Word interface{ word() }

// Ask wants connections of these givers: all of the sender's users since Epoch, or the one of Flow.
type Ask struct {
	Service string
	Epoch   epoch.Epoch
	From    []string // empty, with a Flow: whoever has it
	Flow    *Flow    // nil: all
	Address string   // of the sender's link, address:port
	Again   uint64   // by a higher one of the epoch what stayed is tried again
}

// Query asks what became of a transfer.
type Query struct {
	ID    ID
	Taker string
	Boot  uint64 // of the taker when the transfer was offered to it
}

// Verdict answers a Query.
type Verdict struct {
	ID   ID
	Fate Fate
}

func (Ask) word()     {}
func (Query) word()   {}
func (Verdict) word() {}
