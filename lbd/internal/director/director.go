// Package director keeps the director's data plane at what the services say, and at who is there to serve them.
package director

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/outage"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/store"
)

// Config is what a Loop works with.
type Config struct {
	Services <-chan []service.Service
	Plane    dataplane.DirectorPlane
	Keep     bool // the plane stays as it is when the Loop ends
	Log      *slog.Logger

	Channel     control.Channel // users of a service without servers are refused; nil: they are not
	Allocations store.Bucket    // where the servers of a service stand; with a Channel alone
	StateDir    string          // they are kept here for a restart without a bus
}

// Loop sets the data plane to the services as they come; a daemon's task. It owns the plane.
type Loop struct {
	cfg    Config
	outage *outage.Outage // nil without a channel
	mail   *control.Mailbox
	shelf  store.Shelf
	ready  chan struct{}
	turn   chan struct{}

	services []service.Service
	want     []dataplane.DirectorService // as it is set; nil: it has to be
	setAgain time.Time
	refused  map[string]bool // as told
	isReady  bool
	changed  bool   // since the last line logged
	failed   string // the last error logged
}

const (
	retryAfter = time.Second     // services that the plane refused are tried again
	checkEvery = 5 * time.Second // the plane is set anew: an interface that was deleted and made again has lost its program
)

// New returns a Loop that has yet to run.
func New(cfg Config) *Loop {
	return &Loop{cfg: cfg, mail: control.NewMailbox(1), shelf: store.Shelf{Dir: cfg.StateDir}, ready: make(chan struct{}), turn: make(chan struct{})}
}

// String names the task.
func (l *Loop) String() string { return "director" }

// Ready is closed when the services are known and set.
func (l *Loop) Ready() <-chan struct{} { return l.ready }

// Turns is the loop's.
func (l *Loop) Turns() []chan<- struct{} { return []chan<- struct{}{l.turn} }

// Run works until ctx is done, then removes the data plane unless it is kept.
func (l *Loop) Run(ctx context.Context) error {
	services, known := l.cfg.Services, false
	var allocations <-chan bus.Entry
	if l.cfg.Channel != nil {
		l.listen()
		defer l.cfg.Channel.Listen(l.mail.Put)()
		allocations = l.cfg.Allocations.Watch(ctx)
	}
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			if err := l.cfg.Plane.Close(l.cfg.Keep || daemon.Keeps(ctx)); err != nil {
				return fmt.Errorf("remove the data plane: %w", err)
			}
			return nil
		case all, ok := <-services:
			if !ok {
				services = nil
				continue
			}
			l.services, known, l.changed = grouped(all), true, true
			l.want = nil
		case e, ok := <-allocations:
			if !ok {
				allocations = nil
				continue
			}
			l.allocation(e)
		case <-l.mail.Ready():
			members, _ := l.mail.Take()
			l.outage.Hear(time.Now(), members)
		case <-again.C:
		case <-l.turn:
			continue
		}
		if known {
			again.Reset(l.set(time.Now()))
		}
	}
}

// grouped are the services that have a group. One of mode tags that has one, too, is reached by it where no router takes its users.
func grouped(all []service.Service) []service.Service {
	return slices.DeleteFunc(slices.Clone(all), func(s service.Service) bool { return !s.Group.IsValid() })
}

// listen begins with what an earlier run knew.
func (l *Loop) listen() {
	l.outage = outage.New(time.Now(), l.cfg.Channel.Silence())
	kept, err := l.shelf.Load()
	if err != nil {
		l.cfg.Log.Warn("allocations of the last run", "err", err)
	}
	for name, a := range kept {
		l.outage.Allocate(name, a)
	}
}

// allocation takes what the bus says of a service's servers.
func (l *Loop) allocation(e bus.Entry) {
	if e.Synced || e.Key == "" {
		return
	}
	if e.Deleted {
		l.outage.Allocate(e.Key, alloc.Allocation{})
		return
	}
	s, err := store.DecodeState(e.Value)
	if err != nil {
		l.cfg.Log.Warn("allocation on the bus is damaged; the last one counts", "service", e.Key, "err", err)
		return
	}
	l.outage.Allocate(e.Key, s.Committed)
	if s.Committed.Zero() {
		return
	}
	if err := l.shelf.Keep(e.Key, s.Committed); err != nil {
		l.cfg.Log.Warn("a restart without a bus would not know who serves", "err", err)
	}
}

// set makes the plane match if it does not, and returns when to look again.
func (l *Loop) set(now time.Time) time.Duration {
	want := l.planeServices(now)
	if l.want == nil || !now.Before(l.setAgain) || !slices.EqualFunc(want, l.want, sameRefusal) {
		if err := l.cfg.Plane.Set(want); err != nil {
			if text := err.Error(); text != l.failed {
				l.cfg.Log.Error("services not set, trying again", "err", err)
				l.failed, l.changed = text, true
			}
			l.want = nil
			return retryAfter
		}
		l.tell(want)
		l.want, l.failed, l.setAgain = want, "", now.Add(checkEvery)
	}
	wait := l.setAgain.Sub(now)
	if l.outage != nil {
		if at := l.outage.Next(now); !at.IsZero() {
			wait = min(wait, at.Sub(now))
		}
	}
	return wait
}

// tell logs what has changed, and says that the task is ready.
func (l *Loop) tell(want []dataplane.DirectorService) {
	refused := map[string]bool{}
	for i, s := range want {
		name := l.services[i].Name
		refused[name] = s.Refuse
		switch {
		case s.Refuse && !l.refused[name]:
			l.cfg.Log.Error("no server is there: users are refused at once", "service", name)
		case !s.Refuse && l.refused[name]:
			l.cfg.Log.Info("a server is there again", "service", name)
		}
	}
	l.refused = refused
	if l.changed {
		l.cfg.Log.Info("directs", "services", len(want))
		l.changed = false
	}
	if !l.isReady {
		l.isReady = true
		close(l.ready)
	}
}

func sameRefusal(a, b dataplane.DirectorService) bool { return a.Refuse == b.Refuse }

func (l *Loop) planeServices(now time.Time) []dataplane.DirectorService {
	out := make([]dataplane.DirectorService, len(l.services))
	for i, s := range l.services {
		out[i] = dataplane.DirectorService{VIP: s.VIP, Group: s.Group, Ports: s.Ports}
		out[i].Refuse = l.outage != nil && !s.Static() && l.outage.Of(now, s.Name)
	}
	return out
}
