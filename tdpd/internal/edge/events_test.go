package edge

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/service"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// TestEventsOnTheBus: all that happens is told, in order; what is too much is counted.
func TestEventsOnTheBus(t *testing.T) {
	connect, _ := startBus(t)
	router, operator := connect("tdpd"), connect("admin")
	for _, c := range []*bus.Conn{router, operator} {
		if err := c.WaitConnected(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	heard := make(chan *tdpdv1.Events, 100)
	stop, err := operator.Subscribe("tdpd.events.>", func(m bus.Msg) {
		all := &tdpdv1.Events{}
		if err := proto.Unmarshal(m.Data, all); err != nil || m.Subject != "tdpd.events.r-2" {
			t.Errorf("%s: %v", m.Subject, err)
		}
		heard <- all
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	eventually(t, func() error {
		_, err := operator.Bucket(bus.BucketConfig{Name: bus.BucketServers}).List(t.Context())
		return err
	}) // the subscription is there
	e := NewEvents(router, "r.2", slog.New(slog.DiscardHandler))
	peer, at := wire.Identifier{LSR: wire.LSRID{2, 2, 2, 2}}, time.Unix(1_700_000_000, 0)
	e.Put(service.Event{Time: at, What: service.SessionUp, Peer: peer})
	for i := range eventsWaiting {
		e.Put(service.Event{Time: at, What: service.BindingLearned, Peer: peer, FEC: netip.MustParsePrefix("10.0.0.0/24"), Label: wire.Label(i)})
	}
	background(t, func(ctx context.Context) error { return e.Run(ctx) })
	var events []*tdpdv1.Event
	missed := uint64(0)
	for late := time.After(10 * time.Second); len(events) < eventsWaiting; {
		select {
		case all := <-heard:
			events, missed = append(events, all.GetEvents()...), missed+all.GetMissed()
			if all.GetRouter() != "r.2" || len(all.GetEvents()) > eventsAtOnce {
				t.Errorf("%d events of %s", len(all.GetEvents()), all.GetRouter())
			}
		case <-late:
			t.Fatalf("%d events", len(events))
		}
	}
	if up := events[0]; up.GetWhat() != "session-up" || up.GetNeighbor() != "2.2.2.2:0" || up.GetTime() != "2023-11-14T22:13:20Z" || up.GetFec() != "" {
		t.Errorf("first %v", up)
	}
	for i, b := range events[1:] {
		if b.GetWhat() != "learned" || b.GetFec() != "10.0.0.0/24" || b.GetLabel() != uint32(i) {
			t.Fatalf("event %d: %v", i, b)
		}
	}
	if missed != 1 {
		t.Errorf("%d missed", missed)
	}
}
