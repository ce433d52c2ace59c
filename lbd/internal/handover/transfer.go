package handover

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/epoch"
)

// ID names a transfer. No two have the same: numbers are counted by the giver, from 1, and each of its starts has another boot.
type ID struct {
	Giver  string
	Boot   uint64
	Number uint64
}

// String is giver/boot/number, for logs.
func (i ID) String() string { return fmt.Sprintf("%s/%x/%d", i.Giver, i.Boot, i.Number) }

// Flow is a TCP connection as its server sees it; both ends are of one family.
type Flow struct{ Local, Remote netip.AddrPort }

// String is the user, then the server's end.
func (f Flow) String() string { return f.Remote.String() + " > " + f.Local.String() }

// Transfer is a connection on its way.
type Transfer struct {
	ID
	Flow Flow
}

// Reason is why something was not done, as the counters have it. The numbers are those of handoverv1.Reason.
type Reason uint8

// Reasons; proto/handover/v1/link.proto says what each means.
const (
	None Reason = iota
	Stale
	Foreign
	Busy
	Here
	Full
	Kernel
	Application
	Late
	Deadline
	Cancelled
	LinkLost
	Gone
	Doubt
	reasons // how many there are
)

// String is the reason in a word.
func (r Reason) String() string {
	words := [...]string{"none", "stale", "foreign", "busy", "here", "full", "kernel", "application", "late", "deadline",
		"cancelled", "link", "gone", "doubt"}
	if r < reasons {
		return words[r]
	}
	return fmt.Sprintf("reason %d", r)
}

// Why is a reason and what there is to say of it.
type Why struct {
	Reason Reason
	Text   string // for people, at most MaxText bytes on the wire
}

// String is the reason, and the text where there is one.
func (w Why) String() string {
	if w.Text == "" {
		return w.Reason.String()
	}
	return w.Reason.String() + ": " + w.Text
}

// Outcome is how a transfer ended, for the giver.
type Outcome uint8

// Given connections are the taker's. Stayed ones go on here; their packets are forwarded. Lost ones were closed here without a word,
// for nobody knows whether the taker has them.
const (
	Given Outcome = iota
	Stayed
	Lost
)

// String is the outcome in a word.
func (o Outcome) String() string { return [...]string{"given", "stayed", "lost"}[o] }

// Fate is what a taker says of a transfer that its giver asks for. The numbers are those of handoverv1.Fate.
type Fate uint8

// Taken: the connection is the taker's, or was. Never: it has not taken it, and never will. Untold: it cannot tell, for it was started
// anew since, or it is too long ago.
const (
	Taken Fate = iota + 1
	Never
	Untold
)

// String is the fate in a word.
func (f Fate) String() string {
	switch f {
	case Taken:
		return "taken"
	case Never:
		return "never"
	case Untold:
		return "untold"
	}
	return fmt.Sprintf("fate %d", uint8(f))
}

// Step is where a transfer is: the rows of the tables.
type Step string

// Steps of a giver.
const (
	Wanted    Step = "wanted"    // in its batch's queue
	Offered   Step = "offered"   // the taker was told
	Exporting Step = "exporting" // the application lets go of it
	Freezing  Step = "freezing"  // packets go to the taker; the kernel's state is read
	Sent      Step = "sent"      // the taker has the state, or will have
	Doubting  Step = "doubting"  // nobody said what became of the state: the taker is asked
	given     Step = "given"     // ended: Outcome Given
	stayed    Step = "stayed"    // ended: Outcome Stayed
	lost      Step = "lost"      // ended: Outcome Lost
)

// Steps of a taker.
const (
	Held      Step = "held"      // its packets wait for the state
	Receiving Step = "receiving" // as held, and a part of the state has come
	Restoring Step = "restoring" // a socket is made of the kernel's state, in repair mode
	Importing Step = "importing" // the application takes it
	Thawing   Step = "thawing"   // the socket begins to speak
	live      Step = "live"      // ended: it is ours
	never     Step = "never"     // ended: it is not ours, and never will be by this transfer
)

// BatchID names a batch: what one taker wants of the users that are its own since an epoch.
type BatchID struct {
	Taker   string
	Service string
	Epoch   epoch.Epoch
}

// Progress is how far a batch is, in connections.
type Progress struct {
	BatchID
	Wanted int // not begun
	Moving int
	Given  int
	Stayed int
	Lost   int
	Bytes  uint64 // of states sent
}

// Status is a transfer under way, for those who look.
type Status struct {
	Transfer // without a number: not begun
	Peer     string
	Step     Step
	Since    time.Time
}
