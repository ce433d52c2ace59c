// Package director keeps the director's data plane at what the services say.
package director

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

// Loop sets the data plane to the services as they come; a daemon's task. It owns the plane.
type Loop struct {
	services <-chan []service.Service
	plane    dataplane.DirectorPlane
	keep     bool
	log      *slog.Logger
	ready    chan struct{}
}

const (
	retryAfter = time.Second     // services that the plane refused are tried again
	checkEvery = 5 * time.Second // the plane is set anew: an interface that was deleted and made again has lost its program
)

// New returns a Loop that has yet to run. keep leaves the plane as it is when the Loop ends.
func New(services <-chan []service.Service, plane dataplane.DirectorPlane, keep bool, log *slog.Logger) *Loop {
	return &Loop{services: services, plane: plane, keep: keep, log: log, ready: make(chan struct{})}
}

// String names the task.
func (l *Loop) String() string { return "director" }

// Ready is closed when the services are known and set.
func (l *Loop) Ready() <-chan struct{} { return l.ready }

// Run works until ctx is done, then removes the data plane unless it is kept.
func (l *Loop) Run(ctx context.Context) error {
	var want []dataplane.DirectorService
	var again <-chan time.Time
	services, isReady := l.services, false
	changed, failed := false, "" // since the last line logged
	for {
		select {
		case <-ctx.Done():
			if err := l.plane.Close(l.keep); err != nil {
				return fmt.Errorf("remove the data plane: %w", err)
			}
			return nil
		case all, ok := <-services:
			if !ok {
				services = nil
				continue
			}
			want = planeServices(all)
			changed = true
		case <-again:
		}
		if err := l.plane.Set(want); err != nil {
			if text := err.Error(); text != failed {
				l.log.Error("services not set, trying again", "err", err)
				failed, changed = text, true
			}
			again = time.After(retryAfter)
			continue
		}
		again, failed = time.After(checkEvery), ""
		if changed {
			l.log.Info("directs", "services", len(want))
			changed = false
		}
		if !isReady {
			isReady = true
			close(l.ready)
		}
	}
}

func planeServices(all []service.Service) []dataplane.DirectorService {
	out := make([]dataplane.DirectorService, len(all))
	for i, s := range all {
		out[i] = dataplane.DirectorService{VIP: s.VIP, Group: s.Group, Ports: s.Ports}
	}
	return out
}
