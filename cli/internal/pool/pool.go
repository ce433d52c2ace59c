// Package pool reads what the bus holds of services, their servers and their allocations, as the leader does, and says what
// follows from it. It speaks to the daemons by proto alone.
package pool

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/bus"
)

// Store is a connection to the bus. The caller closes it.
type Store struct {
	conn *bus.Conn
}

// Open connects within the Factory's timeout.
func Open(ctx context.Context, f *cmdutil.Factory) (*Store, error) {
	conn, err := f.Bus(ctx)
	if err != nil {
		return nil, err
	}
	return &Store{conn}, nil
}

// Close ends the connection.
func (s *Store) Close() { s.conn.Close() }

// Bucket returns one of the suite's buckets.
func (s *Store) Bucket(name string) *bus.Bucket { return s.conn.Bucket(bus.BucketConfig{Name: name}) }

// Put writes m whatever is there.
func (s *Store) Put(ctx context.Context, bucket, key string, m proto.Message) error {
	data, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("%s/%s: %w", bucket, key, err)
	}
	_, err = s.Bucket(bucket).Put(ctx, key, data)
	return err
}
