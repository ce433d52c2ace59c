package records

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

// Ask queues a question. It does not block: a Cache has at most one open question an address, and no more addresses than fit.
func (f *Fetcher) Ask(q Question) {
	if q.Known {
		f.known <- q.Address
	} else {
		f.asks <- q.Address
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
		address, ok := f.next(ctx)
		if !ok {
			return
		}
		a := f.fetch(ctx, address)
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
	case address := <-f.known:
		return address, true
	default:
	}
	select {
	case address := <-f.known:
		return address, true
	case address := <-f.asks:
		return address, true
	case <-ctx.Done():
		return netip.Addr{}, false
	}
}

func (f *Fetcher) fetch(ctx context.Context, address netip.Addr) Answer {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	r, ttl, err := f.source.Fetch(ctx, address)
	return Answer{Address: address, Record: r, TTL: ttl, Err: err}
}
