package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// BucketConfig names one of Buckets.
type BucketConfig struct {
	Name string
}

// Bucket is a key-value bucket that outlives the daemons. Keys are words joined by dots.
type Bucket struct {
	c   *Conn
	cfg BucketConfig

	mu sync.Mutex
	kv jetstream.KeyValue
}

// Entry is one revision of a key. Revisions grow strictly over all keys of a bucket.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64
	Created  time.Time // when the bus wrote it, by its clock
	Deleted  bool      // with Revision 0 by nobody: it expired, or the bus lost it
	Synced   bool      // a mark without a key: all that was there when the watch began has been sent
}

// Bucket returns a handle at once; the bus is asked at the first use.
func (c *Conn) Bucket(cfg BucketConfig) *Bucket { return &Bucket{c: c, cfg: cfg} }

func (b *Bucket) open(ctx context.Context) (jetstream.KeyValue, error) {
	if !b.c.nc.IsConnected() {
		return nil, ErrAway // at once: the library would wait
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kv != nil {
		return b.kv, nil
	}
	kv, err := b.c.js.KeyValue(ctx, b.cfg.Name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, ErrNoBucket
	}
	if err != nil {
		return nil, classify(err)
	}
	b.kv = kv
	return kv, nil
}

// do runs op, which gets 5 s, on the opened bucket and gives its error the operation's name.
func (b *Bucket) do(ctx context.Context, what, key string, op func(context.Context, jetstream.KeyValue) error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ctx, done := b.c.denied.until(ctx, ofBucket(b.cfg.Name, key))
	defer done()
	kv, err := b.open(ctx)
	if err == nil {
		err = classify(op(ctx, kv))
	}
	if err = because(ctx, err); err != nil {
		return fmt.Errorf("%s %s/%s: %w", what, b.cfg.Name, key, err)
	}
	return nil
}

// Get returns the newest revision of key, or ErrNotFound.
func (b *Bucket) Get(ctx context.Context, key string) (Entry, error) {
	var got Entry
	err := b.do(ctx, "get", key, func(ctx context.Context, kv jetstream.KeyValue) error {
		e, err := kv.Get(ctx, key)
		if err == nil {
			got = Entry{Key: key, Value: e.Value(), Revision: e.Revision(), Created: e.Created()}
		}
		return err
	})
	return got, err
}

// Put writes key whatever is there.
func (b *Bucket) Put(ctx context.Context, key string, value []byte) (revision uint64, err error) {
	err = b.do(ctx, "put", key, func(ctx context.Context, kv jetstream.KeyValue) (err error) {
		revision, err = kv.Put(ctx, key, value)
		return err
	})
	return revision, err
}

// Create writes key only where it is not there (ErrExists otherwise).
func (b *Bucket) Create(ctx context.Context, key string, value []byte) (revision uint64, err error) {
	err = b.do(ctx, "create", key, func(ctx context.Context, kv jetstream.KeyValue) (err error) {
		revision, err = kv.Create(ctx, key, value)
		return err
	})
	return revision, err
}

// Update writes key only where its newest revision is last (ErrConflict otherwise).
func (b *Bucket) Update(ctx context.Context, key string, value []byte, last uint64) (revision uint64, err error) {
	err = b.do(ctx, "update", key, func(ctx context.Context, kv jetstream.KeyValue) (err error) {
		revision, err = kv.Update(ctx, key, value, last)
		return conflict(err)
	})
	return revision, err
}

// Delete removes key; one that is not there is no error.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	return b.do(ctx, "delete", key, func(ctx context.Context, kv jetstream.KeyValue) error {
		err := kv.Delete(ctx, key)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return nil
		}
		return err
	})
}

// DeleteAt removes key only where its newest revision is last (ErrConflict otherwise).
func (b *Bucket) DeleteAt(ctx context.Context, key string, last uint64) error {
	return b.do(ctx, "delete", key, func(ctx context.Context, kv jetstream.KeyValue) error {
		return conflict(kv.Delete(ctx, key, jetstream.LastRevision(last)))
	})
}

// conflict tells a wrong revision apart from a key that exists: the library has one error for both.
func conflict(err error) error {
	var api *jetstream.APIError
	if errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return ErrConflict
	}
	return err
}

// List returns the newest revision of every key.
func (b *Bucket) List(ctx context.Context) ([]Entry, error) {
	var all []Entry
	err := b.do(ctx, "list", "", func(ctx context.Context, kv jetstream.KeyValue) error {
		w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
		if err != nil {
			return err
		}
		defer func() { _ = w.Stop() }()
		for {
			select {
			case e, ok := <-w.Updates():
				if !ok {
					return cmp.Or(ctx.Err(), ErrAway)
				}
				if e == nil {
					return nil
				}
				all = append(all, Entry{Key: e.Key(), Value: e.Value(), Revision: e.Revision(), Created: e.Created()})
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Now returns the bus' clock, by which Created is: this machine's may be another.
func (b *Bucket) Now(ctx context.Context) (time.Time, error) {
	var now time.Time
	err := b.do(ctx, "clock", "", func(ctx context.Context, kv jetstream.KeyValue) error {
		status, err := kv.Status(ctx)
		if err != nil {
			return err
		}
		if s, ok := status.(*jetstream.KeyValueBucketStatus); ok {
			now = s.StreamInfo().TimeStamp
		}
		if now.IsZero() {
			return errors.New("the bus does not tell its time")
		}
		return nil
	})
	return now, err
}

// Watch sends what is there, a Synced mark, then every change, until ctx is done (the channel is closed). It waits for a bus
// that is away, and after a reconnect sends all again, with Deleted for what vanished meanwhile: the receiver needs no memory.
func (b *Bucket) Watch(ctx context.Context) <-chan Entry {
	out := make(chan Entry)
	go func() {
		defer close(out)
		known := map[string]bool{}
		for ctx.Err() == nil {
			again := b.c.nextConnect()
			err := b.watchOnce(ctx, again, known, out)
			if err == nil {
				continue
			}
			if !errors.Is(err, ErrAway) {
				b.c.log.Warn("watch of a bucket failed; again in a second", "bucket", b.cfg.Name, "err", err)
			}
			select {
			case <-time.After(time.Second):
			case <-again:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// watchOnce watches until the connection is made anew. known are the keys that the receiver believes to be there.
func (b *Bucket) watchOnce(ctx context.Context, again <-chan struct{}, known map[string]bool, out chan<- Entry) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, done := b.c.denied.until(ctx, ofBucket(b.cfg.Name, ""))
	defer done()
	late := time.AfterFunc(5*time.Second, cancel) // a bus that restarts may swallow the request
	kv, err := b.open(ctx)
	if err != nil {
		return because(ctx, err)
	}
	w, err := kv.WatchAll(ctx)
	if err != nil {
		return because(ctx, classify(err))
	}
	defer func() { _ = w.Stop() }()
	if !late.Stop() {
		return ErrAway
	}
	stale, synced := maps.Clone(known), false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again:
			return nil
		case e, ok := <-w.Updates():
			if !ok {
				return errors.New("watch ended")
			}
			if e == nil {
				for key := range stale {
					delete(known, key)
					if !send(ctx, out, Entry{Key: key, Deleted: true}) {
						return nil
					}
				}
				synced = true
				if !send(ctx, out, Entry{Synced: true}) {
					return nil
				}
				continue
			}
			deleted := e.Operation() != jetstream.KeyValuePut
			if deleted && !synced && !known[e.Key()] {
				continue
			}
			delete(stale, e.Key())
			known[e.Key()] = !deleted
			if deleted {
				delete(known, e.Key())
			}
			if !send(ctx, out, Entry{Key: e.Key(), Value: e.Value(), Revision: e.Revision(), Created: e.Created(), Deleted: deleted}) {
				return nil
			}
		}
	}
}

func send(ctx context.Context, out chan<- Entry, e Entry) bool {
	select {
	case out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}
