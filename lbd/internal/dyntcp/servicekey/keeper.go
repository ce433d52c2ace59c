package servicekey

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/records"
)

const (
	tickEvery = time.Second
	// eventsMax is how many words to a Keeper may wait; who has more to say waits for it.
	eventsMax = 256
)

// Keeper is a Book with who asks its questions; a task.
type Keeper struct {
	book    *Book
	fetcher *records.Fetcher
	set     func(Update)
	log     *slog.Logger
	events  chan func(now time.Time) []Update
	turn    chan struct{}
	failed  map[netip.Addr]string // the last error of a VIP's record, told once
}

// NewKeeper makes a Keeper that asks source. set gets what is known, from the Keeper's own goroutine.
func NewKeeper(source records.Source, ttlMax time.Duration, set func(Update), log *slog.Logger) *Keeper {
	return &Keeper{
		book: NewBook(ttlMax), fetcher: records.NewFetcher(source), set: set, log: log,
		events: make(chan func(time.Time) []Update, eventsMax), turn: make(chan struct{}), failed: map[netip.Addr]string{},
	}
}

// String names the task.
func (k *Keeper) String() string { return "service keys" }

// Turns is the loop's.
func (k *Keeper) Turns() []chan<- struct{} { return []chan<- struct{}{k.turn} }

// Use looks a VIP up until Unuse was called as often. It waits where too much is to be done, until ctx is done.
func (k *Keeper) Use(ctx context.Context, vip netip.Addr) {
	k.say(ctx, func(now time.Time) []Update { return k.book.Use(now, vip) })
}

// Unuse ends a Use.
func (k *Keeper) Unuse(ctx context.Context, vip netip.Addr) {
	k.say(ctx, func(time.Time) []Update {
		k.book.Unuse(vip)
		return nil
	})
}

// Ask passes on what the follower asks.
func (k *Keeper) Ask(ctx context.Context, vip netip.Addr) {
	k.say(ctx, func(now time.Time) []Update { return k.book.Ask(now, vip) })
}

func (k *Keeper) say(ctx context.Context, what func(time.Time) []Update) {
	select {
	case k.events <- what:
	case <-ctx.Done():
	}
}

// Run works until ctx is done.
func (k *Keeper) Run(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.fetcher.Run(ctx)
	}()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		var updates []Update
		select {
		case <-ctx.Done():
			<-done
			return nil
		case what := <-k.events:
			updates = what(time.Now())
		case a := <-k.fetcher.Answers():
			k.tell(a)
			updates = k.book.Answer(time.Now(), a)
		case <-tick.C:
			updates = k.book.Tick(time.Now())
		case <-k.turn:
		}
		for _, q := range k.book.Wanted() {
			k.fetcher.Ask(q)
		}
		for _, u := range updates {
			k.set(u)
		}
	}
}

// tell logs what becomes of a VIP's record, an error that stays only once.
func (k *Keeper) tell(a records.Answer) {
	text := ""
	if a.Err != nil {
		text = a.Err.Error()
	}
	switch was := k.failed[a.Address]; {
	case text == "":
		delete(k.failed, a.Address)
	case text != was:
		if len(k.failed) >= eventsMax { // of VIPs that nobody uses any more, too
			clear(k.failed)
		}
		k.failed[a.Address] = text
		k.log.Warn("keys of a service", "vip", a.Address, "err", a.Err)
	}
}
