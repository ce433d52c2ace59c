package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/lbd/internal/pins"
	"github.com/manycast/manycast/lbd/internal/store"
)

// pinWait is how long a server waits for routers to hold its pins before it says that it is prepared. What routers do not bring here, servers
// forward.
const pinWait = 200 * time.Millisecond

// pinner tells directors whom this server pins.
type pinner struct {
	bucket  store.Bucket
	answers pins.Answers
	name    string // of the server
	log     *slog.Logger
	kick    chan struct{}

	mu      sync.Mutex
	book    pinBook
	holders pinHolders
	news    chan struct{} // closed and replaced when something was written or answered
	failing bool
	held    uint64 // times that routers held what hurried in time
	late    uint64 // and did not
}

func newPinner(b store.Bucket, a pins.Answers, name string, log *slog.Logger) *pinner {
	return &pinner{
		bucket: b, answers: a, name: name, log: log, kick: make(chan struct{}, 1), book: pinBook{}, holders: pinHolders{}, news: make(chan struct{}),
	}
}

// set takes whom the server pins of a service as of now. Any goroutine may call it.
func (p *pinner) set(of pins.Pins) { p.put(of, false) }

func (p *pinner) put(of pins.Pins, hurry bool) (version uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	version = p.book.set(time.Now(), of, hurry)
	select {
	case p.kick <- struct{}{}:
	default:
	}
	return version
}

// ahead is set, and returns when routers hold it, or ctx is done.
func (p *pinner) ahead(ctx context.Context, of pins.Pins) {
	version := p.put(of, true)
	if len(of.Users) == 0 {
		return
	}
	for {
		p.mu.Lock()
		revision, news := p.book.revisionOf(of.Service, version), p.news
		held := revision > 0 && p.holders.hold(time.Now(), of.Service, revision)
		if held {
			p.held++
		}
		p.mu.Unlock()
		if held {
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			p.mu.Lock()
			defer p.mu.Unlock()
			p.late++
			return
		}
	}
}

func (p *pinner) hear(a pins.Answer) {
	if a.Server != p.name {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holders.hear(time.Now(), a)
	p.tell()
}

// tell wakes who waits. The caller holds mu.
func (p *pinner) tell() {
	close(p.news)
	p.news = make(chan struct{})
}

// run writes until ctx is done. Then keeps says whether pins are left to their fate, else they are taken back.
func (p *pinner) run(ctx context.Context, keeps func(context.Context) bool) {
	stop, err := p.answers.Listen(p.hear)
	if err != nil {
		p.log.Warn("directors are not heard: what is lost goes before its users are pinned", "err", err)
		stop = func() {}
	}
	defer stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		p.mu.Lock()
		service, next := p.book.due(time.Now()), p.book.wakes(time.Now())
		p.mu.Unlock()
		if service != "" {
			p.write(ctx, service)
			continue
		}
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		select {
		case <-p.kick:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if !keeps(ctx) {
		p.takeBack(context.WithoutCancel(ctx))
	}
}

// write puts what is due of a service on the bus, or takes it off.
func (p *pinner) write(ctx context.Context, service string) {
	p.mu.Lock()
	s := p.book[service]
	of, version, nobody := s.Pins, s.version, s.nobody(time.Now())
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	var revision uint64
	var err error
	if nobody {
		err = p.bucket.Delete(ctx, pins.Key(service, p.name))
	} else {
		var data []byte
		if data, err = pins.Encode(of); err == nil {
			revision, err = p.bucket.Put(ctx, pins.Key(service, p.name), data)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.book.wrote(time.Now(), service, version, revision, err)
	p.tell()
	p.complain(ctx, service, err)
}

// complain tells once that pins are not said. The caller holds mu.
func (p *pinner) complain(ctx context.Context, service string, err error) {
	failed := err != nil && ctx.Err() == nil && !errors.Is(err, bus.ErrAway)
	if failed && !p.failing {
		p.log.Warn("users are not pinned: servers forward their packets", "service", service, "err", err)
	}
	if failed || err == nil {
		p.failing = failed
	}
}

func (p *pinner) takeBack(ctx context.Context) {
	p.mu.Lock()
	var names []string
	for name, s := range p.book {
		if s.there {
			names = append(names, name)
		}
	}
	p.mu.Unlock()
	slices.Sort(names)
	for _, name := range names {
		ctx, cancel := context.WithTimeout(ctx, renewTimeout)
		_ = p.bucket.Delete(ctx, pins.Key(name, p.name)) // else it expires
		cancel()
	}
}

// pin has routers pin users who are about to be others', and says that the server is prepared.
func (l *Loop) pin(ctx context.Context, a Pin) {
	ctx, cancel := context.WithTimeout(ctx, pinWait)
	defer cancel()
	connected, err := l.cfg.Connected(ctx, a.Service.VIPs(), a.Service.Ports)
	if err == nil {
		var flows []netip.AddrPort
		flows, err = l.cfg.Plane.FlowUsers(a.Service.VIPs(), a.Service.Ports)
		connected = append(connected, flows...)
	}
	if err != nil {
		l.cfg.Log.Warn("users are not pinned before they go", "service", a.Service.Name, "err", err)
	} else {
		l.pinner.ahead(ctx, a.Of(slices.Values(connected)))
	}
	select {
	case l.pinnedAhead <- a.Then:
	default: // like a message that is lost
	}
}
