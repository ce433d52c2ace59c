// Package store is what lbd keeps on the bus: a seam in front of the buckets, one in memory for tests, and the services.
package store

import (
	"context"

	"github.com/manycast/manycast/internal/bus"
)

// Bucket is what lbd uses of a key-value bucket, with the errors of internal/bus.
type Bucket interface {
	Get(ctx context.Context, key string) (bus.Entry, error)
	Put(ctx context.Context, key string, value []byte) (revision uint64, err error)
	Create(ctx context.Context, key string, value []byte) (revision uint64, err error)
	Update(ctx context.Context, key string, value []byte, last uint64) (revision uint64, err error)
	Delete(ctx context.Context, key string) error
	DeleteAt(ctx context.Context, key string, last uint64) error
	List(ctx context.Context) ([]bus.Entry, error)
	Watch(ctx context.Context) <-chan bus.Entry
}

var (
	_ Bucket = (*bus.Bucket)(nil)
	_ Bucket = (*Memory)(nil)
)

// Buckets are those that the leader and the agents share.
type Buckets struct {
	Services    Bucket
	Servers     Bucket
	Operator    Bucket
	Allocations Bucket
	Leases      Bucket
	Moves       Bucket
	Keys        Bucket
	Pins        Bucket
}

// OnBus returns the buckets of a connection.
func OnBus(c *bus.Conn) Buckets {
	bucket := func(name string) Bucket { return c.Bucket(bus.BucketConfig{Name: name}) }
	return Buckets{
		Services: bucket(bus.BucketServices), Servers: bucket(bus.BucketServers), Operator: bucket(bus.BucketOperator),
		Allocations: bucket(bus.BucketAllocations), Leases: bucket(bus.BucketLeases), Moves: bucket(bus.BucketMoves),
		Keys: bucket(bus.BucketKeys), Pins: bucket(bus.BucketPins),
	}
}
