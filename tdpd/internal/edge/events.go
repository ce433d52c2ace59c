package edge

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/manycast/manycast/internal/bus"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/service"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

const (
	eventsWaiting = 8192                   // beyond that they are counted only
	eventsAtOnce  = 1000                   // in one message
	eventsWithin  = 100 * time.Millisecond // come in one message
)

// Events publishes what happens on the bus.
type Events struct {
	c       *bus.Conn
	name    string
	log     *slog.Logger
	waiting chan service.Event
	missed  atomic.Uint64
}

// NewEvents publishes as the router of that name.
func NewEvents(c *bus.Conn, name string, log *slog.Logger) *Events {
	return &Events{c: c, name: name, log: log, waiting: make(chan service.Event, eventsWaiting)}
}

// Put takes an event, and does not wait.
func (e *Events) Put(event service.Event) {
	select {
	case e.waiting <- event:
	default:
		e.missed.Add(1)
	}
}

// Ready implements daemon.Task.
func (e *Events) Ready() <-chan struct{} { return nil }

// String implements daemon.Task.
func (e *Events) String() string { return "events" }

// Run publishes until ctx ends.
func (e *Events) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case first := <-e.waiting:
			e.publish(e.gather(ctx, first))
		}
	}
}

// gather waits a little for more.
func (e *Events) gather(ctx context.Context, first service.Event) *tdpdv1.Events {
	out := &tdpdv1.Events{Router: e.name, Missed: e.missed.Swap(0), Events: []*tdpdv1.Event{eventOf(first)}}
	late := time.NewTimer(eventsWithin)
	defer late.Stop()
	for len(out.Events) < eventsAtOnce {
		select {
		case more := <-e.waiting:
			out.Events = append(out.Events, eventOf(more))
		case <-late.C:
			return out
		case <-ctx.Done():
			return out
		}
	}
	return out
}

// publish counts what the bus does not take: it keeps some while it is away.
func (e *Events) publish(all *tdpdv1.Events) {
	if err := e.c.Publish(bus.Of(subjectEvents, e.name), all); err != nil {
		e.missed.Add(all.GetMissed() + uint64(len(all.GetEvents())))
		e.log.Debug("events not published", "err", err)
	}
}

func eventOf(e service.Event) *tdpdv1.Event {
	out := &tdpdv1.Event{Time: e.Time.UTC().Format(time.RFC3339Nano), What: string(e.What), Why: e.Why}
	if e.Peer != (wire.Identifier{}) {
		out.Neighbor = e.Peer.String()
	}
	if e.FEC != (netip.Prefix{}) {
		out.Fec, out.Label = e.FEC.String(), uint32(e.Label)
	}
	return out
}
