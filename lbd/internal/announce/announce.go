// Package announce is the seam through which a reallocation is told: the leader announces an allocation and commits it, the
// agents say when they are prepared and done. The bus carries it now; a control multicast channel (Fig 13) fits behind the
// same interface. Every message is idempotent and may be lost or late: whoever waits has a deadline, and what was committed
// lies in the bucket "allocations" as well.
package announce

import (
	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
)

// Message is one of Announce, Prepared, Commit, Ceased and Done.
type Message interface{ message() }

// Announce tells all agents an allocation before it is executed.
type Announce struct {
	Service    string
	Allocation alloc.Allocation
	Previous   alloc.Allocation // what it replaces
}

// Prepared answers Announce: this server will execute the epoch as soon as it is committed.
type Prepared struct {
	Service string
	Epoch   epoch.Epoch
	Server  string
}

// Commit says that the allocation holds from now on.
type Commit struct {
	Service    string
	Allocation alloc.Allocation
}

// Ceased says that a server takes the portions no more that it lost to servers on its own link: they may begin.
type Ceased struct {
	Service string
	Epoch   epoch.Epoch
	Server  string
}

// Done ends a server's part: it has joined and has closed the connections of lost portions.
type Done struct {
	Service string
	Epoch   epoch.Epoch
	Server  string
	Closed  int // connections
}

func (Announce) message() {}
func (Prepared) message() {}
func (Commit) message()   {}
func (Ceased) message()   {}
func (Done) message()     {}

// Announcer carries messages to all who listen.
type Announcer interface {
	// Send hands m over without waiting for anybody. An error means that it certainly went to nobody.
	Send(m Message) error
	// Listen calls handle for each message that comes, also for those of this process, one at a time, until stop. handle
	// must not block for long.
	Listen(handle func(Message)) (stop func(), err error)
}
