package channel

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/daemon"
	controlv1 "github.com/manycast/manycast/proto/control/v1"
)

// Answer is the task that tells on the bus whom this process hears; daemon is "lbd", "igmpd" or "tdpd", the bus' name for who may speak.
func (c *Channel) Answer(conn *bus.Conn, daemonName string) daemon.Task {
	return daemon.Func("control members", func(ctx context.Context) error {
		id := c.cfg.Identity
		subject := daemonName + ".control.members"
		subjects := []string{bus.Of(subject, id.Name)}
		if id.Leader || id.Role == control.Router || c.cfg.listens() { // not each of a thousand servers
			subjects = append(subjects, subject)
		}
		for _, s := range subjects {
			stop, err := conn.Handle(s, func(bus.Msg) (proto.Message, error) { return c.answer(time.Now()), nil })
			if err != nil {
				return err
			}
			defer stop()
		}
		<-ctx.Done()
		return nil
	})
}

func (c *Channel) answer(now time.Time) *controlv1.MembersAnswer {
	a := &controlv1.MembersAnswer{Name: c.cfg.Identity.Name, Refused: make(map[string]uint64)}
	if c.cfg.listens() { // a member beside it may be called the same
		a.Name += " (listens)"
	}
	for reason, n := range c.Counters().Refused {
		a.Refused[string(reason)] = n
	}
	ago := func(t time.Time) int64 {
		if t.IsZero() { // known from before a restart
			return -1
		}
		return max(now.Sub(t), 0).Milliseconds()
	}
	for _, m := range c.Members() {
		a.Members = append(a.Members, &controlv1.Member{
			Name: m.Name, Role: m.Role.String(), Leader: m.Leader, Address: m.Address.String(), Health: m.Health.String(), Why: m.Why,
			Via: m.Via, HeardMs: ago(m.Heard), SinceMs: ago(m.Since),
		})
	}
	return a
}
