package leader

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/lbd/internal/store"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// leaseKey is where the lease lies in its bucket.
const leaseKey = "director"

// campaigner does a Lease's operations on the bucket.
type campaigner struct {
	lease    *Lease
	bucket   store.Bucket
	value    []byte
	termFile string
	log      *slog.Logger
	refused  bool // a stale term was told
}

// tenure is what the campaign tells: the term, and how long it holds; term 0: somebody else leads, or nobody.
type tenure struct {
	term  uint64
	until time.Time
}

func newCampaigner(name, termFile string, b store.Bucket, ttl time.Duration, log *slog.Logger) (*campaigner, error) {
	highest, err := store.ReadTerm(termFile)
	if err != nil {
		return nil, err
	}
	value, err := proto.Marshal(&allocv1.Lease{Holder: name})
	if err != nil {
		return nil, err
	}
	return &campaigner{lease: NewLease(ttl, highest), bucket: b, value: value, termFile: termFile, log: log}, nil
}

// run competes for the lease until ctx is done, then gives it back at once.
func (c *campaigner) run(ctx context.Context, tell chan<- tenure) {
	tick := time.NewTicker(c.lease.renew / 4)
	defer tick.Stop()
	var told tenure
	for {
		c.operate(ctx)
		var now tenure
		now.term, now.until = c.lease.Held(time.Now())
		if now != told {
			select {
			case tell <- now:
				told = now
			case <-ctx.Done():
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.giveBack()
			return
		}
	}
}

func (c *campaigner) operate(ctx context.Context) {
	sent := time.Now()
	op, revision := c.lease.Due(sent)
	if op == OpNone {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.lease.ttl/2)
	defer cancel()
	if op == OpCreate {
		revision, err := c.bucket.Create(ctx, leaseKey, c.value)
		if err == nil {
			c.created(ctx, sent, revision)
		} else if !errors.Is(err, bus.ErrExists) && !errors.Is(err, bus.ErrAway) {
			c.log.Warn("no lease", "err", err)
		}
		return
	}
	switch revision, err := c.bucket.Update(ctx, leaseKey, c.value, revision); {
	case err == nil:
		c.lease.Renewed(sent, revision)
	case errors.Is(err, bus.ErrConflict), errors.Is(err, bus.ErrNotFound):
		c.lease.Lost()
	default:
		c.log.Warn("lease not renewed", "err", err)
	}
}

// created keeps the term on disk before anything is done with it.
func (c *campaigner) created(ctx context.Context, sent time.Time, revision uint64) {
	err := c.lease.Created(sent, revision)
	if err == nil {
		if err = store.WriteTerm(c.termFile, revision); err == nil {
			c.refused = false
			return
		}
	}
	if !c.refused {
		c.log.Error("cannot lead", "err", err)
		c.refused = true
	}
	c.lease.Lost()
	if err := c.bucket.DeleteAt(ctx, leaseKey, revision); err != nil {
		c.log.Warn("lease not given back", "err", err)
	}
}

func (c *campaigner) giveBack() {
	term, _ := c.lease.Held(time.Now())
	if term == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := c.bucket.DeleteAt(ctx, leaseKey, c.lease.revision); err != nil {
		c.log.Warn("lease not given back; it ends by itself", "err", err)
	}
}
