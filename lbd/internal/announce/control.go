package announce

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/control"
)

// kinds are the messages on the control channel, by their subjects on the bus.
var kinds = map[string]control.Kind{
	subjectAnnounce: control.KindAnnounce,
	subjectPrepared: control.KindPrepared,
	subjectCommit:   control.KindCommit,
	subjectCeased:   control.KindCeased,
	subjectDone:     control.KindDone,
}

// Control is an Announcer over the control channel. The channel sees to it that only leaders lead; that a server speaks for itself
// alone is seen to here.
type Control struct {
	channel control.Channel
	log     *slog.Logger

	mu        sync.Mutex
	listeners map[int]func(Message)
	next      int
}

var _ Announcer = (*Control)(nil)

// NewControl returns an Announcer over the channel; what cannot be decoded is logged.
func NewControl(channel control.Channel, log *slog.Logger) *Control {
	return &Control{channel: channel, log: log, listeners: map[int]func(Message){}}
}

// Send hands m to all other members and to the listeners of this process.
func (c *Control) Send(m Message) error {
	subject, p := encode(m)
	body, err := proto.Marshal(p)
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	for _, handle := range c.all() {
		handle(m)
	}
	return c.channel.Send(kinds[subject], body)
}

func (c *Control) all() []func(Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []func(Message)
	for _, id := range slices.Sorted(maps.Keys(c.listeners)) {
		out = append(out, c.listeners[id])
	}
	return out
}

// Listen implements Announcer.
func (c *Control) Listen(handle func(Message)) (stop func(), err error) {
	c.mu.Lock()
	id := c.next
	c.next++
	c.listeners[id] = handle
	c.mu.Unlock()
	end := c.channel.Listen(func(e control.Event) {
		if r, ok := e.(control.Received); ok {
			c.received(r, handle)
		}
	})
	return func() {
		end()
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.listeners, id)
	}, nil
}

func (c *Control) received(r control.Received, handle func(Message)) {
	for subject, kind := range kinds {
		if kind != r.Kind {
			continue
		}
		m, err := decode(subject, r.Body)
		if err == nil {
			err = speaksFor(r.From.Name, m)
		}
		if err != nil {
			c.log.Warn("message on the control channel is not taken", "from", r.From.Name, "kind", r.Kind, "err", err)
			return
		}
		handle(m)
	}
}

// speaksFor returns an error where a server speaks for another one.
func speaksFor(name string, m Message) error {
	said := name
	switch m := m.(type) {
	case Prepared:
		said = m.Server
	case Ceased:
		said = m.Server
	case Done:
		said = m.Server
	}
	if said != name {
		return fmt.Errorf("%T speaks for server %s", m, said)
	}
	return nil
}
