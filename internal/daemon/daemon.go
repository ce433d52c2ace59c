// Package daemon is what every daemon of the suite shares: tasks, signals, readiness, configuration, logging, the lock.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"sync"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
)

// Task is a long-lived part of a daemon.
type Task interface {
	// Run works until ctx is done, cleans up and returns nil; any error ends the daemon.
	Run(ctx context.Context) error
	// Ready is closed when the task does what the daemon is for; nil: at once.
	Ready() <-chan struct{}
	// String names the task in errors.
	String() string
}

// Func makes a Task of a function that is ready at once.
func Func(name string, run func(context.Context) error) Task { return &funcTask{name, run} }

type funcTask struct {
	name string
	run  func(context.Context) error
}

func (t *funcTask) Run(ctx context.Context) error { return t.run(ctx) }
func (t *funcTask) Ready() <-chan struct{}        { return nil }
func (t *funcTask) String() string                { return t.name }

// Run runs the tasks until SIGTERM, SIGINT, the end of ctx or the first error, then stops them all and waits. The service
// manager hears READY=1 when all tasks are ready and STOPPING=1 before they end.
func Run(ctx context.Context, log *slog.Logger, tasks ...Task) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	var ready sync.WaitGroup
	for _, task := range tasks {
		group.Go(func() error {
			err := task.Run(ctx)
			if stopped := ctx.Err() != nil && errors.Is(err, context.Canceled); err != nil && !stopped {
				return fmt.Errorf("%s: %w", task, err)
			}
			return nil
		})
		ready.Go(func() { waitReady(ctx, task) })
	}
	group.Go(func() error {
		ready.Wait()
		if ctx.Err() == nil {
			log.Info("ready")
			notify(log, sd.SdNotifyReady)
		}
		<-ctx.Done()
		log.Info("stopping")
		notify(log, sd.SdNotifyStopping)
		return nil
	})
	return group.Wait()
}

func waitReady(ctx context.Context, task Task) {
	ready := task.Ready()
	if ready == nil {
		return
	}
	select {
	case <-ready:
	case <-ctx.Done():
	}
}

// notify tells the service manager, where there is one.
func notify(log *slog.Logger, state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		log.Warn("service manager not told", "state", state, "err", err)
	}
}
