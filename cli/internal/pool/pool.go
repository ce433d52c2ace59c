// Package pool reads what the bus holds of services, their servers and their allocations, as the leader does, and says what
// follows from it. It speaks to the daemons by proto alone.
package pool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/bus"
)

// Store is a connection to the bus. The caller closes it.
type Store struct {
	f    *cmdutil.Factory
	conn *bus.Conn
}

// Open connects within the Factory's timeout. What is damaged on the bus is told on the Factory's Err.
func Open(ctx context.Context, f *cmdutil.Factory) (*Store, error) {
	conn, err := f.Bus(ctx)
	if err != nil {
		return nil, err
	}
	return &Store{f, conn}, nil
}

// Close ends the connection.
func (s *Store) Close() { s.conn.Close() }

// Bucket returns one of the suite's buckets.
func (s *Store) Bucket(name string) *bus.Bucket { return s.conn.Bucket(bus.BucketConfig{Name: name}) }

// Write writes m as the revision after last (0: the first). Somebody else's write in between is bus.ErrConflict.
func (s *Store) Write(ctx context.Context, bucket, key string, m proto.Message, last uint64) error {
	data, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("%s/%s: %w", bucket, key, err)
	}
	if last != 0 {
		_, err = s.Bucket(bucket).Update(ctx, key, data, last)
		return err
	}
	if _, err = s.Bucket(bucket).Create(ctx, key, data); errors.Is(err, bus.ErrExists) {
		return fmt.Errorf("%w: %w", bus.ErrConflict, err)
	}
	return err
}

// lookEvery is how often Wait looks.
const lookEvery = 100 * time.Millisecond

// ErrNotYet says that what Wait waited for did not come in time.
var ErrNotYet = errors.New("not taken in yet")

// Wait loads again and again until done is content, at most for the Factory's timeout; then its error wraps ErrNotYet.
func (s *Store) Wait(ctx context.Context, done func(*Snapshot) bool) (*Snapshot, error) {
	late := time.NewTimer(s.f.Timeout)
	defer late.Stop()
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	for {
		snap, err := s.Load(ctx)
		if err != nil || done(snap) {
			return snap, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-late.C:
			if snap.Leader == "" {
				return nil, fmt.Errorf("%w after %v: no director leads; start an lbd director with [leader] enabled = true", ErrNotYet, s.f.Timeout)
			}
			return nil, fmt.Errorf("%w after %v by director %s: its log says why; wait longer with --timeout", ErrNotYet, s.f.Timeout, snap.Leader)
		}
	}
}

// Request asks one daemon, within the Factory's timeout. bus.ErrNotFound: nobody listens there.
func (s *Store) Request(ctx context.Context, subject string, request, answer proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, s.f.Timeout)
	defer cancel()
	return s.conn.Request(ctx, subject, request, answer)
}
