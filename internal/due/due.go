// Package due keeps things in order of when something is due of them. It is pure.
package due

import (
	"container/heap"
	"time"
)

// Place is where a thing is in its Queue; the zero Place is in none. It is a field of the thing.
type Place struct {
	at    time.Time
	place int // one more than the index
}

// Due is the Place itself, for who embeds it.
func (p *Place) Due() *Place { return p }

// Thing has a Place.
type Thing interface{ Due() *Place }

// Queue has what is due first in front. The zero Queue is empty.
type Queue[T Thing] struct{ order order[T] }

// Set puts x where it belongs when something is due of it then; it may be in the queue already.
func (q *Queue[T]) Set(x T, at time.Time) {
	p := x.Due()
	p.at = at
	if p.place == 0 {
		heap.Push(&q.order, x)
		return
	}
	heap.Fix(&q.order, p.place-1)
}

// Remove takes x out, where it is in.
func (q *Queue[T]) Remove(x T) {
	if p := x.Due(); p.place > 0 {
		heap.Remove(&q.order, p.place-1)
	}
}

// First is what is due first, where that is by now; it stays in the queue.
func (q *Queue[T]) First(now time.Time) (x T, ok bool) {
	if len(q.order) == 0 || q.order[0].Due().at.After(now) {
		return x, false
	}
	return q.order[0], true
}

// Next is when something is due; zero: never.
func (q *Queue[T]) Next() time.Time {
	if len(q.order) == 0 {
		return time.Time{}
	}
	return q.order[0].Due().at
}

// order implements heap.Interface.
type order[T Thing] []T

func (o order[T]) Len() int           { return len(o) }
func (o order[T]) Less(i, j int) bool { return o[i].Due().at.Before(o[j].Due().at) }

func (o order[T]) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].Due().place, o[j].Due().place = i+1, j+1
}

// Push adds a thing.
func (o *order[T]) Push(x any) {
	thing, _ := x.(T)
	*o = append(*o, thing)
	thing.Due().place = len(*o)
}

// Pop takes the last one.
func (o *order[T]) Pop() any {
	var none T
	last := len(*o) - 1
	thing := (*o)[last]
	(*o)[last] = none
	*o = (*o)[:last]
	thing.Due().place = 0
	return thing
}
