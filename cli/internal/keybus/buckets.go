// Package keybus hands private keys over: who gets one, and the buckets of the bus that they are sealed into.
package keybus

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/keyfile"
)

// Bucket is what the commands need of a bus bucket.
type Bucket interface {
	Get(ctx context.Context, key string) (bus.Entry, error)
	Put(ctx context.Context, key string, value []byte) (revision uint64, err error)
	Create(ctx context.Context, key string, value []byte) (revision uint64, err error)
	Delete(ctx context.Context, key string) error
	List(ctx context.Context) ([]bus.Entry, error)
}

// Buckets are the two that keys are in.
type Buckets struct {
	Members, Keys Bucket
	Close         func()
}

// Open connects to the bus.
func Open(ctx context.Context, f *cmdutil.Factory) (Buckets, error) {
	c, err := f.Bus(ctx)
	if err != nil {
		return Buckets{}, err
	}
	return Buckets{
		Members: c.Bucket(bus.BucketConfig{Name: bus.BucketMembers}),
		Keys:    c.Bucket(bus.BucketConfig{Name: bus.BucketKeys}),
		Close:   c.Close,
	}, nil
}

// OpenFunc is Open with its factory; tests have another.
type OpenFunc func(ctx context.Context) (Buckets, error)

// Lookup finds a member's public key on the bus.
func (b Buckets) Lookup(ctx context.Context, name string) (keyfile.MemberPublic, error) {
	if err := keyfile.ValidMember(name); err != nil {
		return keyfile.MemberPublic{}, err
	}
	e, err := b.Members.Get(ctx, name)
	if errors.Is(err, bus.ErrNotFound) {
		return keyfile.MemberPublic{}, fmt.Errorf("no member %s on the bus: make its key there with `manycast key create member %s`", name, name)
	}
	if err != nil {
		return keyfile.MemberPublic{}, err
	}
	return keyfile.ParseRegistration(name, e.Value)
}

// Holders are the members to whom the key of a group or VIP was handed over by the bus.
func (b Buckets) Holders(ctx context.Context, address netip.Addr) (members []string, err error) {
	entries, err := b.Keys.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if m, ok := keyfile.MemberOf(e.Key, address); ok {
			members = append(members, m)
		}
	}
	return members, nil
}

// Forget deletes what was sealed to members of the key of a group or VIP.
func (b Buckets) Forget(ctx context.Context, address netip.Addr) error {
	members, err := b.Holders(ctx, address)
	if err != nil {
		return err
	}
	for _, m := range members {
		if err := b.Keys.Delete(ctx, keyfile.BusKey(m, address)); err != nil {
			return err
		}
	}
	return nil
}
