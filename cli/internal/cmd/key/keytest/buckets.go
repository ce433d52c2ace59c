// Package keytest has a bus of its own for tests of commands that use keys.
package keytest

import (
	"context"
	"slices"
	"sync"

	"github.com/manycast/manycast/cli/internal/keybus"
	"github.com/manycast/manycast/internal/bus"
)

// Bucket is a bucket in memory. Fail, if set, is what writing returns.
type Bucket struct {
	mu     sync.Mutex
	values map[string][]byte
	Fail   func(key string) error
}

// Buckets are two empty buckets and the function that opens them.
func Buckets() (members, keys *Bucket, open keybus.OpenFunc) {
	members, keys = &Bucket{values: map[string][]byte{}}, &Bucket{values: map[string][]byte{}}
	return members, keys, func(context.Context) (keybus.Buckets, error) {
		return keybus.Buckets{Members: members, Keys: keys, Close: func() {}}, nil
	}
}

// Get is keybus.Bucket's.
func (b *Bucket) Get(_ context.Context, k string) (bus.Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, ok := b.values[k]
	if !ok {
		return bus.Entry{}, bus.ErrNotFound
	}
	return bus.Entry{Key: k, Value: v}, nil
}

// Put is keybus.Bucket's.
func (b *Bucket) Put(_ context.Context, k string, value []byte) (uint64, error) {
	if b.Fail != nil {
		if err := b.Fail(k); err != nil {
			return 0, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.values[k] = slices.Clone(value)
	return 1, nil
}

// Create is keybus.Bucket's.
func (b *Bucket) Create(ctx context.Context, k string, value []byte) (uint64, error) {
	if _, err := b.Get(ctx, k); err == nil {
		return 0, bus.ErrExists
	}
	return b.Put(ctx, k, value)
}

// Delete is keybus.Bucket's.
func (b *Bucket) Delete(_ context.Context, k string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.values, k)
	return nil
}

// List is keybus.Bucket's.
func (b *Bucket) List(context.Context) (out []bus.Entry, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, v := range b.values {
		out = append(out, bus.Entry{Key: k, Value: v})
	}
	return out, nil
}
