package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// Looper is a Task with event loops.
type Looper interface {
	Task
	// Turns are channels, one for each loop that owns state. The loop receives from it as from its other inputs, and nobody
	// else does: who receives has turned. They are asked from the time when all tasks are ready until ctx is done.
	Turns() []chan<- struct{}
}

// Stater is a Task that may be less well than ready.
type Stater interface {
	Task
	// State says what is not as it should be, for the daemon's status; empty: nothing. Any goroutine may call it at any time.
	State() string
}

// status is what the tasks do.
func status(tasks []Task) string {
	var all []string
	for _, task := range tasks {
		if s, ok := task.(Stater); ok && s.State() != "" {
			all = append(all, task.String()+" "+s.State())
		}
	}
	if len(all) == 0 {
		return "STATUS=serves"
	}
	return "STATUS=" + strings.Join(all, "; ")
}

// A start may wait for other machines for as long as it likes, but it has to say so again and again: one that hangs as a whole is ended
// after TimeoutStartSec= of the unit.
const (
	extendBy    = time.Minute
	extendEvery = 20 * time.Second
)

// manager is the service manager, where there is one, see sd_notify(3).
type manager struct {
	log      *slog.Logger
	tell     func(state string)
	watchdog time.Duration // it ends a daemon that is silent for that long; 0: it does not
}

func newManager(log *slog.Logger) *manager {
	m := &manager{log: log, tell: func(state string) {
		if _, err := sd.SdNotify(false, state); err != nil {
			log.Warn("service manager not told", "state", state, "err", err)
		}
	}}
	var err error
	if m.watchdog, err = sd.SdWatchdogEnabled(false); err != nil {
		log.Warn("the service manager's watchdog is not fed", "err", err)
	}
	return m
}

// accompany tells the manager how the tasks are until ctx is done.
func (m *manager) accompany(ctx context.Context, tasks []Task) {
	for _, task := range tasks {
		m.waitReady(ctx, task)
	}
	if ctx.Err() == nil {
		m.log.Info("ready")
		m.tell(sd.SdNotifyReady + "\n" + status(tasks))
		m.feed(ctx, tasks)
	}
	<-ctx.Done()
	does := "ends and removes what it made"
	if Keeps(ctx) {
		does = "ends and leaves its state to the next one"
	}
	m.log.Info("stopping", "keeps", Keeps(ctx))
	m.tell(sd.SdNotifyStopping + "\nSTATUS=" + does)
}

func (m *manager) waitReady(ctx context.Context, task Task) {
	ready := task.Ready()
	if ready == nil {
		return
	}
	select {
	case <-ready:
		return
	default:
	}
	extend := fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", extendBy.Microseconds())
	m.tell("STATUS=starts, waits for: " + task.String() + "\n" + extend)
	tick := time.NewTicker(extendEvery)
	defer tick.Stop()
	for {
		select {
		case <-ready:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			m.tell(extend)
		}
	}
}

// feed tells the manager three times within its patience that all loops have turned. While one of them does not, it hears
// nothing: it is the loops that feed, not this one.
func (m *manager) feed(ctx context.Context, tasks []Task) {
	if m.watchdog <= 0 {
		return
	}
	every := m.watchdog / 3
	tick := time.NewTicker(every)
	defer tick.Stop()
	said := status(tasks)
	for {
		for _, task := range tasks {
			looper, ok := task.(Looper)
			if !ok {
				continue
			}
			for _, turn := range looper.Turns() {
				m.ask(ctx, task, turn, every)
			}
		}
		if ctx.Err() != nil {
			return
		}
		m.tell(sd.SdNotifyWatchdog)
		if now := status(tasks); now != said {
			m.tell(now)
			said = now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask waits until a loop has turned, and says who it is when that takes long: the manager's patience is at an end soon.
func (m *manager) ask(ctx context.Context, task Task, turn chan<- struct{}, long time.Duration) {
	late := time.NewTimer(long)
	defer late.Stop()
	select {
	case turn <- struct{}{}:
		return
	case <-ctx.Done():
		return
	case <-late.C:
	}
	m.log.Error("an event loop does not turn", "task", task.String(), "since", long)
	m.tell(fmt.Sprintf("STATUS=the event loop of %s has not turned for %s", task, long))
	select {
	case turn <- struct{}{}:
		m.log.Warn("the event loop turns again", "task", task.String())
		m.tell("STATUS=serves")
	case <-ctx.Done():
	}
}
