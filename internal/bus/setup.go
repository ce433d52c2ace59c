package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// streamOf is how a bucket is kept: what the library's own CreateKeyValue makes, and how it is written.
func streamOf(bucket string) jetstream.StreamConfig {
	cfg := jetstream.StreamConfig{
		Name: streamPrefix + bucket, Subjects: []string{"$KV." + bucket + ".>"}, Storage: jetstream.FileStorage, Replicas: 1,
		MaxMsgsPerSubject: 1, MaxBytes: -1, MaxMsgSize: -1, MaxMsgs: -1, MaxConsumers: -1, Discard: jetstream.DiscardNew,
		Duplicates: 2 * time.Minute, AllowRollup: true, DenyDelete: true, AllowDirect: true,
	}
	switch bucket {
	case BucketLeases:
		cfg.MaxAge = 2 * time.Second
	case BucketServers:
		cfg.MaxAge = time.Hour // a server's registration is remembered; that it is renewed is what says that it lives
	case BucketPins:
		cfg.MaxAge = time.Minute // who renews no more pins nobody, and that is noticed sooner
	case BucketMoves:
		cfg.MaxMsgsPerSubject = 64
	}
	if cfg.MaxAge > 0 {
		cfg.Duplicates = min(cfg.Duplicates, cfg.MaxAge) // the server wants it so
	}
	return cfg
}

// expires reports a bucket whose entries go by themselves.
func expires(bucket string) bool { return streamOf(bucket).MaxAge > 0 }

// MakeBuckets makes the buckets that are missing and returns their names. With replicas (1..5 servers of a cluster that keep each
// entry) those that are there get as many, too; 0 leaves them, and makes new ones with 1. It needs the admin role.
func (c *Conn) MakeBuckets(ctx context.Context, replicas int) (made []string, err error) {
	return c.makeBuckets(ctx, replicas, nil)
}

// makeBuckets does not wait for the disk when it writes to the buckets in lazy: many clients renew their entries there.
func (c *Conn) makeBuckets(ctx context.Context, replicas int, lazy []string) (made []string, err error) {
	for _, name := range Buckets() {
		isNew, err := c.makeBucket(ctx, name, replicas, slices.Contains(lazy, name))
		if err != nil {
			return made, fmt.Errorf("bus bucket %s: %w", name, err)
		}
		if isNew {
			made = append(made, name)
		}
	}
	return made, nil
}

func (c *Conn) makeBucket(ctx context.Context, name string, replicas int, lazy bool) (made bool, err error) {
	ctx, done := c.denied.until(ctx, ofBucket(name, ""))
	defer done()
	cfg := streamOf(name)
	cfg.Replicas = max(replicas, 1)
	if lazy {
		cfg.PersistMode = jetstream.AsyncPersistMode
	}
	stream, err := c.js.Stream(ctx, cfg.Name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		_, err = c.js.CreateStream(ctx, cfg)
		made = err == nil
	case err == nil && replicas > 0 && stream.CachedInfo().Config.Replicas != replicas:
		cfg = stream.CachedInfo().Config
		cfg.Replicas = replicas
		_, err = c.js.UpdateStream(ctx, cfg)
	}
	return made, because(ctx, classify(err))
}
