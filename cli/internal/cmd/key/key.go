// Package key is `manycast key`.
package key

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/bus"
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

// New returns `manycast key`.
func New(f *cmdutil.Factory) *cobra.Command {
	return NewWith(f, func(ctx context.Context) (Buckets, error) { return Open(ctx, f) })
}

// NewWith is New with other buckets.
func NewWith(f *cmdutil.Factory, open OpenFunc) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make, register and show keys",
		Long: `Keys of members, of DNS clients and of control channels.

A member is a server (or a person) that group private keys are handed over to: it has a key pair of its own, its public half is
registered on the bus, and "manycast group create --member NAME" seals the group's private key to it.`,
	}
	create := &cobra.Command{Use: "create", Short: "Make a key"}
	create.AddCommand(newCreateMember(f, open), newCreateTSIG(f), newCreateAuthority(f), newCreateIdentity(f))
	cmd.AddCommand(create, newRegister(f, open), newList(f, open), newShow(f, open))
	return cmd
}
