// Package flows answers what live connections are here, what becomes of them, and what a reallocation would move: for `manycast flow`.
package flows

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/handover"
	"github.com/manycast/manycast/lbd/internal/mover"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

// Subject is what requests go to, with the server's name (bus.Of).
const Subject = "lbd.flows"

// Mover is what a Task uses of mover.Mover.
type Mover interface {
	Status(ctx context.Context) (mover.Status, error)
	Fetch(ctx context.Context, service string, flows []handover.Flow) error
	Cancel(ctx context.Context, service string) (stayed int, err error)
	Counters() mover.Counters
}

// Bus is what a Task uses of bus.Conn.
type Bus interface {
	Handle(subject string, handle func(bus.Msg) (proto.Message, error)) (stop func(), err error)
}

// Config is what a Task works with.
type Config struct {
	Name  string // this server's
	Bus   Bus
	Mover Mover // nil: connections do not move
	// Connected are the users of the TCP connections to addresses and ports: dataplane.ConnectedUsers.
	Connected func(ctx context.Context, vips []netip.Addr, ports []dataplane.Port) ([]netip.AddrPort, error)
	Totals    []func() []Counter // of strategies, beside what moves
}

// Counter is a total of a strategy.
type Counter struct {
	Strategy, Name, Reason string
	Value                  uint64
}

const (
	answerLimit = 4 * time.Second // one look at the socket table, and one question to the mover
	sweepEvery  = 10 * time.Second
)

// Task answers on the bus, one request after the other; a daemon's task.
type Task struct {
	cfg Config

	mu    sync.Mutex
	views []mover.View

	ctx   context.Context //nolint:containedctx // of requests; it ends with the task
	lists lists
}

// New returns a Task that has yet to run.
func New(cfg Config) *Task { return &Task{cfg: cfg, ctx: context.Background()} }

// String names the task.
func (t *Task) String() string { return "flows" }

// Ready is nil: nothing waits for it.
func (t *Task) Ready() <-chan struct{} { return nil }

// Set makes views all that this server executes. Any goroutine may call it.
func (t *Task) Set(all []mover.View) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.views = all
}

// Count adds totals to those that are shown. It is called before Run.
func (t *Task) Count(totals func() []Counter) { t.cfg.Totals = append(t.cfg.Totals, totals) }

// Run answers until ctx is done.
func (t *Task) Run(ctx context.Context) error {
	t.ctx = ctx
	stop, err := t.cfg.Bus.Handle(bus.Of(Subject, t.cfg.Name), func(m bus.Msg) (proto.Message, error) {
		request := &handoverv1.FlowsRequest{}
		if err := proto.Unmarshal(m.Data, request); err != nil {
			return nil, fmt.Errorf("request for connections: %w", err)
		}
		return t.Answer(time.Now(), request)
	})
	if err != nil {
		return err
	}
	defer stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case now := <-sweep.C:
			t.lists.sweep(now)
		case <-ctx.Done():
			return nil
		}
	}
}

// Answer answers a request.
func (t *Task) Answer(now time.Time, request *handoverv1.FlowsRequest) (*handoverv1.FlowsAnswer, error) {
	ctx, cancel := context.WithTimeout(t.ctx, answerLimit)
	defer cancel()
	answer := &handoverv1.FlowsAnswer{Server: t.cfg.Name}
	switch about := request.GetAbout().(type) {
	case *handoverv1.FlowsRequest_List:
		page, err := t.list(ctx, now, about.List)
		answer.About = &handoverv1.FlowsAnswer_List{List: page}
		return answer, err
	case *handoverv1.FlowsRequest_Status:
		status, err := t.status(ctx)
		answer.About = &handoverv1.FlowsAnswer_Status{Status: status}
		return answer, err
	case *handoverv1.FlowsRequest_Cost:
		cost, err := t.cost(ctx, about.Cost)
		answer.About = &handoverv1.FlowsAnswer_Cost{Cost: cost}
		return answer, err
	case *handoverv1.FlowsRequest_Fetch:
		answer.About = &handoverv1.FlowsAnswer_Fetch{Fetch: &handoverv1.Fetched{}}
		return answer, t.fetch(ctx, about.Fetch)
	case *handoverv1.FlowsRequest_Cancel:
		stayed, err := t.cancel(ctx, about.Cancel.GetService())
		answer.About = &handoverv1.FlowsAnswer_Cancel{Cancel: &handoverv1.Cancelled{Stayed: uint64(max(stayed, 0))}}
		return answer, err
	}
	return nil, errors.New("a request for connections that this agent does not know: it is older than who asks")
}

// maxFetched bounds the connections of one FetchRequest.
const maxFetched = 1024

func (t *Task) fetch(ctx context.Context, request *handoverv1.FetchRequest) error {
	if t.cfg.Mover == nil {
		return errors.New("no connections move to this server: its agent needs [control] and [handover] port and socket")
	}
	if n := len(request.GetFlows()); n > maxFetched {
		return fmt.Errorf("%d connections to fetch, at most %d", n, maxFetched)
	}
	var flows []handover.Flow
	for _, p := range request.GetFlows() {
		f, err := handover.DecodeFlow(p)
		if err != nil {
			return err
		}
		flows = append(flows, f)
	}
	return t.cfg.Mover.Fetch(ctx, request.GetService(), flows)
}

func (t *Task) cancel(ctx context.Context, service string) (stayed int, err error) {
	if t.cfg.Mover == nil {
		return 0, nil
	}
	return t.cfg.Mover.Cancel(ctx, service)
}

// ErrNoService says that the service asked for is none of this server's.
var ErrNoService = errors.New("no service of this server")

// executed are the services that are executed: the one of that name, or all.
func (t *Task) executed(name string) ([]mover.View, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if name == "" {
		return t.views, nil
	}
	for i, v := range t.views {
		if v.Service.Name == name {
			return t.views[i : i+1], nil
		}
	}
	return nil, fmt.Errorf("%w: %.80q", ErrNoService, name)
}

// each goes through the connections of a service.
func (t *Task) each(ctx context.Context, v mover.View, do func(handover.Flow)) error {
	for _, end := range v.Ends() {
		users, err := t.cfg.Connected(ctx, []netip.Addr{end.Addr()}, []dataplane.Port{{Proto: "tcp", Number: end.Port()}})
		if err != nil {
			return err
		}
		for _, user := range users {
			do(handover.Flow{Local: end, Remote: user})
		}
	}
	return nil
}
