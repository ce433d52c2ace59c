package service

import "context"

// latest hands the newest value to a worker; values that the worker was too slow for are left out.
type latest[T any] struct {
	c chan T
}

func newLatest[T any]() *latest[T] { return &latest[T]{make(chan T, 1)} }

// put never blocks. It has one caller.
func (l *latest[T]) put(v T) {
	select {
	case <-l.c:
	default:
	}
	l.c <- v
}

// get waits for a value; one that is there is given out though ctx is done.
func (l *latest[T]) get(ctx context.Context) (v T, ok bool) {
	select {
	case v = <-l.c:
		return v, true
	case <-ctx.Done():
	}
	select {
	case v = <-l.c:
		return v, true
	default:
		return v, false
	}
}
