package keys

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

const (
	fetchesMax   = 8 // at a time
	fetchTimeout = 5 * time.Second
)

// Fetcher asks a source beside the packet path.
type Fetcher struct {
	source  Source
	known   chan netip.Addr // asked for first
	asks    chan netip.Addr
	answers chan Answer
}

// NewFetcher makes a fetcher; Run does its work.
func NewFetcher(source Source) *Fetcher {
	return &Fetcher{
		source: source, known: make(chan netip.Addr, entriesMax), asks: make(chan netip.Addr, entriesMax), answers: make(chan Answer, entriesMax),
	}
}

// Ask queues a question. It does not block: a Cache has at most one open question a group, and no more groups than fit.
func (f *Fetcher) Ask(q Question) {
	if q.Known {
		f.known <- q.Group
	} else {
		f.asks <- q.Group
	}
}

// Answers has an answer for each question.
func (f *Fetcher) Answers() <-chan Answer { return f.answers }

// Run works until ctx is done.
func (f *Fetcher) Run(ctx context.Context) {
	var workers sync.WaitGroup
	for range fetchesMax {
		workers.Go(func() { f.work(ctx) })
	}
	workers.Wait()
}

func (f *Fetcher) work(ctx context.Context) {
	for {
		group, ok := f.next(ctx)
		if !ok {
			return
		}
		a := f.fetch(ctx, group)
		select {
		case f.answers <- a:
		case <-ctx.Done():
			return
		}
	}
}

// next waits for a question; false when ctx is done.
func (f *Fetcher) next(ctx context.Context) (netip.Addr, bool) {
	select {
	case group := <-f.known:
		return group, true
	default:
	}
	select {
	case group := <-f.known:
		return group, true
	case group := <-f.asks:
		return group, true
	case <-ctx.Done():
		return netip.Addr{}, false
	}
}

func (f *Fetcher) fetch(ctx context.Context, group netip.Addr) Answer {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	r, ttl, err := f.source.Fetch(ctx, group)
	return Answer{Group: group, Record: r, TTL: ttl, Err: err}
}
