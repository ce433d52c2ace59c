package service

import (
	"net/netip"
	"time"

	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// What says what an Event is about.
type What string

// Events.
const (
	SessionUp      What = "session-up"
	SessionDown    What = "session-down"
	BindingBound   What = "bound"   // this router gave the FEC the label
	BindingUnbound What = "unbound" // and took it back
	BindingLearned What = "learned" // the peer bound it
	BindingLost    What = "lost"    // and does so no longer
)

// Event is what others may want to know.
type Event struct {
	Time  time.Time
	What  What
	Peer  wire.Identifier // zero: about no peer
	FEC   netip.Prefix
	Label wire.Label
	Why   string // of SessionDown
}

func whatOf(w labels.What) What {
	return map[labels.What]What{labels.Bound: BindingBound, labels.Unbound: BindingUnbound, labels.Learned: BindingLearned, labels.Lost: BindingLost}[w]
}

func (s *Service) publish(e Event) {
	if s.Publish != nil {
		s.Publish(e)
	}
}
