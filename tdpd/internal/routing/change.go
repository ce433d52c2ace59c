package routing

import (
	"context"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// waiter is who waits until the speaker has a version.
type waiter struct {
	version uint64
	done    chan error
}

// Change changes what is wanted of the speaker beside what services bring, and waits until it has that; an error says what it has not taken, and it is tried again. change
// gets the values that are there, and replaces slices as a whole.
func (l *Loop) Change(ctx context.Context, change func(base *bgp.Desired)) error {
	done := make(chan error, 1)
	err := l.Do(ctx, func(time.Time) {
		change(&l.Base)
		l.changed = true
		l.waiters = append(l.waiters, waiter{l.version + 1, done})
	})
	if err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answer tells those who wait for a version, or for one before it.
func (l *Loop) answer(r result) {
	l.waiters = slices.DeleteFunc(l.waiters, func(w waiter) bool {
		if w.version > r.version {
			return false
		}
		w.done <- r.err
		return true
	})
}
