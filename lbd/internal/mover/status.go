package mover

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/handover"
)

// Status is what is under way.
type Status struct {
	Giving  []handover.Status
	Taking  []handover.Status
	Batches []handover.Progress // of what others take
}

// Status asks the loop, which is to run.
func (m *Mover) Status(ctx context.Context) (s Status, err error) {
	err = m.ask(ctx, func(time.Time) ([]handover.Action, error) {
		s = Status{m.giver.Status(), m.taker.Status(), m.giver.Batches()}
		return nil, nil
	})
	return s, err
}

// Fetch asks the other servers for connections of this server's users: for these, whoever has them, or for all there are.
func (m *Mover) Fetch(ctx context.Context, name string, flows []handover.Flow) error {
	return m.ask(ctx, func(now time.Time) ([]handover.Action, error) {
		view, known := m.views[name]
		if !known {
			return nil, fmt.Errorf("no connections of service %s move here: its handover has no %s, or nothing is allocated yet", name, service.Transfer)
		}
		if len(flows) == 0 {
			return m.taker.WantAgain(now, name, view.Allocation.Epoch, view.givers(m.cfg.Name), view.deadline(now)), nil
		}
		var out []handover.Action
		for _, f := range flows {
			if owner := view.owner(f.Remote); owner != m.cfg.Name {
				return nil, fmt.Errorf("user %s is %s's, who alone may take its connections", f.Remote, owner)
			}
			out = append(out, m.taker.WantFlow(now, name, view.Allocation.Epoch, f, nil, view.deadline(now))...)
		}
		return out, nil
	})
}

// ErrEnded says that the mover does not run.
var ErrEnded = errors.New("nothing moves any more: the agent ends")

// ask has the loop do something, and waits until it has.
func (m *Mover) ask(ctx context.Context, do func(now time.Time) ([]handover.Action, error)) error {
	done := make(chan error, 1)
	e := event(func(now time.Time) []handover.Action {
		actions, err := do(now)
		done <- err
		return actions
	})
	select {
	case m.events <- e:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrEnded, ctx.Err())
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrEnded, ctx.Err())
	}
}

// Cancel stops what is being given away of a service's connections. It returns how many stay for that; those whose state was sent go.
func (m *Mover) Cancel(ctx context.Context, name string) (stayed int, err error) {
	err = m.ask(ctx, func(now time.Time) ([]handover.Action, error) {
		if _, known := m.views[name]; !known {
			return nil, fmt.Errorf("no connections of service %s move from here", name)
		}
		actions := m.giver.Cancel(now, name)
		for _, a := range actions {
			if r, is := a.(handover.Report); is && r.Outcome == handover.Stayed {
				stayed++
			}
		}
		return actions, nil
	})
	return stayed, err
}

// Owner is whose a user is; "": nothing is allocated.
func (v View) Owner(user netip.AddrPort) string {
	if v.Allocation.Zero() {
		return ""
	}
	return v.owner(user)
}

// Cell is the user's, as at the routers. Something is allocated.
func (v View) Cell(user netip.AddrPort) int { return v.cell(user) }
