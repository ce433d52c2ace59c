package control

import (
	"slices"
	"strings"
	"sync"
)

// Mailbox is between a Channel and a loop that has other things to do as well: of each member it keeps the newest news alone, and
// of messages as many as it has room for. One goroutine takes, others put.
type Mailbox struct {
	room int
	kick chan struct{}

	mu       sync.Mutex
	members  map[string]Member
	messages []Received
	lost     uint64
}

// NewMailbox returns an empty mailbox with room for so many messages.
func NewMailbox(room int) *Mailbox {
	return &Mailbox{room: room, kick: make(chan struct{}, 1), members: map[string]Member{}}
}

// Put takes an event; it is a Channel's listener. A message too many is lost like one on the way.
func (b *Mailbox) Put(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := e.(type) {
	case Changed:
		b.members[e.Member.Name] = e.Member
	case Received:
		if len(b.messages) >= b.room {
			b.lost++
			return
		}
		b.messages = append(b.messages, e)
	}
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

// Ready speaks when there is something to take.
func (b *Mailbox) Ready() <-chan struct{} { return b.kick }

// Take empties the mailbox: who has changed, in order of names, and what came, in its order.
func (b *Mailbox) Take() ([]Member, []Received) {
	b.mu.Lock()
	defer b.mu.Unlock()
	members := make([]Member, 0, len(b.members))
	for _, m := range b.members {
		members = append(members, m)
	}
	clear(b.members)
	messages := b.messages
	b.messages = nil
	slices.SortFunc(members, func(x, y Member) int { return strings.Compare(x.Name, y.Name) })
	return members, messages
}

// Lost returns how many messages there was no room for.
func (b *Mailbox) Lost() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lost
}
