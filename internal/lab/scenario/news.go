package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/lab/report"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// News is something that the bus said: a service's committed allocation, or its moves so far, or who leads.
type News struct {
	At         time.Time         `json:"at"`      // when it was heard
	Written    time.Time         `json:"written"` // when the bus wrote it
	Allocation *alloc.Allocation `json:"allocation,omitempty"`
	Moves      []Move            `json:"moves,omitempty"`
	Leader     *string           `json:"leader,omitempty"` // "": nobody has the lease
}

// Move is one reallocation and why it was made.
type Move struct {
	report.Move
	Reason string `json:"reason"`
}

// leaseKey is where the leader's lease lies in its bucket.
const leaseKey = "director"

// Watch writes the news of a service to out, one JSON object a line, until ctx is done.
func Watch(ctx context.Context, c *bus.Conn, service string, now func() time.Time, out io.Writer) error {
	enc := json.NewEncoder(out)
	allocations := c.Bucket(bus.BucketConfig{Name: bus.BucketAllocations}).Watch(ctx)
	moves := c.Bucket(bus.BucketConfig{Name: bus.BucketMoves}).Watch(ctx)
	leases := c.Bucket(bus.BucketConfig{Name: bus.BucketLeases}).Watch(ctx)
	var leader leaderNews
	for {
		var e bus.Entry
		var ok bool
		key, parse := service, allocationNews
		select {
		case e, ok = <-allocations:
		case e, ok = <-moves:
			parse = movesNews
		case e, ok = <-leases:
			key, parse = leaseKey, leader.parse
		}
		if !ok {
			return nil // ctx is done
		}
		if e.Key != key || e.Deleted && key == service {
			continue
		}
		n, err := parse(e.Value)
		if err != nil {
			return fmt.Errorf("news of %s: %w", service, err)
		}
		if n == nil {
			continue
		}
		n.At, n.Written = now(), e.Created
		if err := enc.Encode(n); err != nil {
			return fmt.Errorf("news of %s: %w", service, err)
		}
	}
}

// allocationNews is nil where nothing is committed yet.
func allocationNews(value []byte) (*News, error) {
	var p allocv1.State
	if err := proto.Unmarshal(value, &p); err != nil {
		return nil, err
	}
	if p.GetCommitted() == nil {
		return nil, nil
	}
	a, err := alloc.FromProto(p.GetCommitted())
	if err != nil {
		return nil, err
	}
	return &News{Allocation: &a}, nil
}

func movesNews(value []byte) (*News, error) {
	var p allocv1.Moves
	if err := proto.Unmarshal(value, &p); err != nil {
		return nil, err
	}
	n := &News{}
	for _, m := range p.GetMoves() {
		n.Moves = append(n.Moves, Move{report.Move{
			Epoch: alloc.EpochFromProto(m.GetEpoch()).String(), FractionMoved: m.GetFractionMoved(), FractionNeeded: m.GetFractionNeeded(),
			ConnectionsAffected: int(m.GetConnectionsAffected()), MS: m.GetMs(),
		}, m.GetReason()})
	}
	return n, nil
}

// leaderNews says who leads where that changes; the lease is renewed all the time.
type leaderNews struct{ told *string }

func (l *leaderNews) parse(value []byte) (*News, error) {
	var p allocv1.Lease
	if err := proto.Unmarshal(value, &p); err != nil {
		return nil, err
	}
	name := p.GetHolder()
	if l.told != nil && *l.told == name {
		return nil, nil
	}
	l.told = &name
	return &News{Leader: &name}, nil
}
