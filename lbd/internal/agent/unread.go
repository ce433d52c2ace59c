package agent

import (
	"fmt"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/lbd/internal/announce"
)

// Unread tells that the committed allocation of that epoch is not understood: a leader of a newer release may have made it, and all agents
// but this one have prepared for it. Whom the server was given by it is not known, and whom it had others may serve on the same link: it
// takes nobody of the service until it understands a later one.
func (c *Core) Unread(now time.Time, name string, e epoch.Epoch) []Action {
	if !c.serves(name) || !c.held[name].Epoch.Less(e) || !c.unread[name].Less(e) {
		return nil
	}
	c.unread[name] = e
	c.closings = append(c.closings, closing{service: name, at: now.Add(c.settle)})
	if s, ok := c.specs[name]; !ok || s.Static() {
		return nil
	}
	apply := c.apply()
	apply.Ceased = []announce.Ceased{{Service: name, Epoch: e, Server: c.name}}
	return []Action{apply, Warn{name, fmt.Sprintf("allocation %v is not understood: nobody is taken until a later one is; is this release older than the leader's?", e)}}
}

// current is the allocation of a service that the server executes; the zero one where it does not understand the newest.
func (c *Core) current(name string) alloc.Allocation {
	if c.isUnread(name) {
		return alloc.Allocation{}
	}
	return c.held[name]
}

func (c *Core) isUnread(name string) bool { return c.held[name].Epoch.Less(c.unread[name]) }
