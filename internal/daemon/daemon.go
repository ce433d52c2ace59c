// Package daemon is what every daemon of the suite shares: tasks, signals, readiness, the watchdog, configuration, logging, the lock.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// Task is a long-lived part of a daemon. One that has an event loop is a Looper, too.
type Task interface {
	// Run works until ctx is done, cleans up and returns nil; any error ends the daemon. See Keeps for what stays.
	Run(ctx context.Context) error
	// Ready is closed when the task does what the daemon is for; nil: at once.
	Ready() <-chan struct{}
	// String names the task in errors and in the daemon's status.
	String() string
}

// Func makes a Task of a function that is ready at once, and whose loops receive from turns (see Looper).
func Func(name string, run func(context.Context) error, turns ...chan<- struct{}) Task {
	return &funcTask{name, run, turns}
}

type funcTask struct {
	name  string
	run   func(context.Context) error
	turns []chan<- struct{}
}

func (t *funcTask) Run(ctx context.Context) error { return t.run(ctx) }
func (t *funcTask) Ready() <-chan struct{}        { return nil }
func (t *funcTask) Turns() []chan<- struct{}      { return t.turns }
func (t *funcTask) String() string                { return t.name }

// Run runs the tasks until SIGTERM, SIGINT, SIGUSR2, the end of ctx or the first error, then stops them all and waits. The
// service manager hears what is waited for, READY=1 when all tasks are ready, from then on WATCHDOG=1 while all loops turn,
// where it has a watchdog, and STOPPING=1 before the tasks end.
func Run(ctx context.Context, log *slog.Logger, tasks ...Task) error {
	ctx, stop := signals(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	for _, task := range tasks {
		group.Go(func() error {
			err := task.Run(ctx)
			if stopped := ctx.Err() != nil && errors.Is(err, context.Canceled); err != nil && !stopped {
				return fmt.Errorf("%s: %w", task, err)
			}
			return nil
		})
	}
	group.Go(func() error {
		newManager(log).accompany(ctx, tasks)
		return nil
	})
	return group.Wait()
}

var errRestart = errors.New("the daemon is restarted")

// signals ends ctx by a signal. SIGUSR2 is the restart of which Keeps tells. Another SIGTERM or SIGINT ends the process at once: an end
// that hangs needs no SIGKILL.
func signals(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	came := make(chan os.Signal, 1)
	signal.Notify(came, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR2)
	go func() {
		select {
		case s := <-came:
			signal.Reset(syscall.SIGTERM, syscall.SIGINT)
			if s == syscall.SIGUSR2 {
				cancel(errRestart)
			}
			cancel(nil)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(came)
		cancel(nil)
	}
}

// Keeps reports whether a task whose ctx is done leaves what it has in the kernel and in the network for the next run: after
// SIGUSR2, which is a restart, and where the daemon ends by an error, which is a crash that had time to say so.
func Keeps(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return cause != nil && !errors.Is(cause, context.Canceled)
}
