package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// denials tell operations that wait for an answer that there will be none: the bus says "not permitted" beside the answers, and
// names nothing but the subject.
type denials struct {
	mu      sync.Mutex
	waiting map[*denial]struct{}
}

type denial struct {
	match  func(subject string) bool
	cancel context.CancelCauseFunc
}

// until returns a context that ends when the bus denies a subject that match knows; its cause is then an ErrDenied.
func (d *denials) until(ctx context.Context, match func(subject string) bool) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &denial{match, cancel}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting == nil {
		d.waiting = map[*denial]struct{}{}
	}
	d.waiting[w] = struct{}{}
	return ctx, func() {
		d.mu.Lock()
		delete(d.waiting, w)
		d.mu.Unlock()
		cancel(nil)
	}
}

// tell ends the operations that an error of the connection is about and reports whether there are any.
func (d *denials) tell(role string, err error) bool {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return false
	}
	_, rest, _ := strings.Cut(err.Error(), `"`)
	subject, _, quoted := strings.Cut(rest, `"`)
	if !quoted {
		return false
	}
	found := false
	d.mu.Lock()
	defer d.mu.Unlock()
	for w := range d.waiting {
		if w.match(subject) {
			w.cancel(fmt.Errorf("%w: the bus lets no client of role %s use %s", ErrDenied, role, subject))
			found = true
		}
	}
	return found
}

// because returns the denial that ended ctx in place of err.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrDenied) {
		return cause
	}
	return err
}

// ofBucket matches what an operation on a bucket's key publishes to, or on all of the bucket with key "".
func ofBucket(bucket, key string) func(subject string) bool {
	write, stream := "$KV."+bucket+"."+key, streamPrefix+bucket
	return func(subject string) bool {
		if subject == write {
			return true
		}
		for token := range strings.SplitSeq(subject, ".") {
			if token == stream {
				return true
			}
		}
		return false
	}
}
