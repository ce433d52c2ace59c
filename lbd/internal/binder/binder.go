// Package binder tells routers whose users go to which server, for services of mode tags: what the leader has allocated is said to each
// router again and again, for it holds for a time only, and is withdrawn when the service is no more. Users whom servers pin are exceptions;
// of a service of mode multicast they are all that is said.
package binder

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/pins"
	"github.com/manycast/manycast/lbd/internal/store"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// Router is who is told. Errors say why a router has not taken it.
type Router interface {
	// Bind tells it a binding.
	Bind(ctx context.Context, router string, b *tdpdv1.UserBinding) error
	// Only tells it that there are no services but these: what it was told of others before is over.
	Only(ctx context.Context, router string, services []string) error
}

// OnBus tells tdpd.
func OnBus(c *bus.Conn) Router { return onBus{c} }

type onBus struct{ c *bus.Conn }

// Bind implements Router.
func (o onBus) Bind(ctx context.Context, router string, b *tdpdv1.UserBinding) error {
	return o.ask(ctx, router, &tdpdv1.Request{About: &tdpdv1.Request_Bind{Bind: &tdpdv1.BindRequest{Binding: b}}})
}

// Only implements Router.
func (o onBus) Only(ctx context.Context, router string, services []string) error {
	return o.ask(ctx, router, &tdpdv1.Request{About: &tdpdv1.Request_Only{Only: &tdpdv1.OnlyRequest{Services: services}}})
}

func (o onBus) ask(ctx context.Context, router string, r *tdpdv1.Request) error {
	return o.c.Request(ctx, bus.Of("tdpd.bind", router), r, &tdpdv1.Answer{})
}

// Config is what a Binder works with.
type Config struct {
	Name        string        // of the director
	Routers     []string      // as tdpd.toml names them
	Lifetime    time.Duration // what was said holds for so long; it is said again three times meanwhile
	Hold        time.Duration // and for so long when nobody says it any more
	Services    <-chan []service.Service
	Allocations store.Bucket
	Pins        store.Bucket
	Answers     pins.Answers // to servers that pin
	Router      Router
	Log         *slog.Logger
}

// Binder is a daemon's task.
type Binder struct {
	cfg   Config
	ready chan struct{}
	words words
	held  *held
}

// sayTimeout is how long a router may take to answer.
const sayTimeout = 2 * time.Second

// New returns a Binder that has yet to run.
func New(cfg Config) *Binder {
	b := &Binder{cfg: cfg, ready: make(chan struct{}), words: newWords(cfg), held: newHeld(cfg.Routers)}
	close(b.ready) // routers may be away: what they know of an earlier run holds
	return b
}

// String names the task.
func (b *Binder) String() string { return "binder" }

// Ready is closed: nobody waits for routers.
func (b *Binder) Ready() <-chan struct{} { return b.ready }

// Run works until ctx is done. Nothing is withdrawn then: a director that restarts, or another one, says it again.
func (b *Binder) Run(ctx context.Context) error {
	var tellers sync.WaitGroup
	defer tellers.Wait()
	changed := make([]chan struct{}, len(b.cfg.Routers))
	for i, router := range b.cfg.Routers {
		changed[i] = make(chan struct{}, 1)
		tellers.Go(func() { b.tell(ctx, router, changed[i]) })
	}
	services, allocations, pinned := b.cfg.Services, b.cfg.Allocations.Watch(ctx), b.cfg.Pins.Watch(ctx)
	var pace pace
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if next := pace.next(b.words.pinsExpire()); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-pinned:
			if !ok {
				pinned = nil
			}
			if b.pins(e) {
				pace.changed(time.Now())
			}
			continue
		case <-timer.C:
			pace.settled(time.Now())
			b.words.settlePins(time.Now())
		case all, ok := <-services:
			if !ok {
				services = nil
				continue
			}
			b.words.setServices(all)
		case e, ok := <-allocations:
			if !ok {
				allocations = nil
				continue
			}
			b.allocation(e)
		}
		b.answer()
		for _, c := range changed {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}

func (b *Binder) allocation(e bus.Entry) {
	switch {
	case e.Synced:
		b.words.setSynced()
	case e.Key == "":
	case e.Deleted && e.Revision == 0: // the bus has lost its data: routers go on by the last one
	case e.Deleted:
		b.words.setAllocation(e.Key, allocated{})
	default:
		a, _, err := store.DecodeCommitted(e.Value)
		if err != nil {
			b.cfg.Log.Error("allocation on the bus is not understood; routers go on by the last one", "service", e.Key, "err", err)
			return
		}
		of := allocated{Allocation: a}
		if s, err := store.DecodeState(e.Value); err == nil && a.Epoch.Less(s.Prepared.Epoch) { // what a newer leader prepares need not be understood
			of.next = s.Prepared
		}
		b.words.setAllocation(e.Key, of)
	}
}

// pins takes what a server pins, and says whether that is news.
func (b *Binder) pins(e bus.Entry) bool {
	service, server, _ := strings.Cut(e.Key, ".")
	switch {
	case e.Synced || e.Key == "":
		return false
	case e.Deleted:
		b.words.dropPins(service, server)
		return true
	}
	p, err := pins.Decode(e.Key, e.Value)
	if err != nil {
		b.cfg.Log.Warn("what a server pins is not understood", "key", e.Key, "err", err)
		return false
	}
	b.say(pins.Answer{Service: service, Server: server, Revision: e.Revision})
	b.words.setPins(time.Now(), p, e.Revision)
	return true
}

// answer tells servers whose pins all routers hold now.
func (b *Binder) answer() {
	for _, a := range b.held.news(b.words.get()) {
		b.say(a)
	}
}

func (b *Binder) say(a pins.Answer) {
	a.Director = b.cfg.Name
	if err := b.cfg.Answers.Say(a); err != nil {
		b.cfg.Log.Warn("a server is not told that its users are pinned", "service", a.Service, "server", a.Server, "err", err)
	}
}

// Servers lose users in one moment, and each of them says soon after whom it pins: one word is made of that.
const (
	pinsWait  = 20 * time.Millisecond
	pinsPause = 100 * time.Millisecond // between two such words, at least
)

// pace is when words are made of pins.
type pace struct{ due, last time.Time }

func (p *pace) changed(now time.Time) {
	if p.due.IsZero() {
		p.due = now.Add(pinsWait)
		if soonest := p.last.Add(pinsPause); p.due.Before(soonest) {
			p.due = soonest
		}
	}
}

func (p *pace) settled(now time.Time) { p.due, p.last = time.Time{}, now }

// next is when, if some expire then.
func (p *pace) next(expire time.Time) time.Time {
	if p.due.IsZero() || !expire.IsZero() && expire.Before(p.due) {
		return expire
	}
	return p.due
}

// tell keeps one router told. A router that is slow or away keeps nobody else waiting.
func (b *Binder) tell(ctx context.Context, router string, changed <-chan struct{}) {
	t := newTeller(b.cfg.Lifetime / 3)
	failed := map[string]string{} // as logged
	for {
		want := b.words.get()
		if services, due := t.only(time.Now(), want); due {
			err := b.ask(ctx, func(ctx context.Context) error { return b.cfg.Router.Only(ctx, router, services) })
			t.toldOnly(time.Now(), err)
			b.log(failed, router, "", err)
		}
		name, word := t.due(time.Now(), want)
		if word == nil {
			if !sleep(ctx, changed, t.next(time.Now(), want)) {
				return
			}
			continue
		}
		err := b.ask(ctx, func(ctx context.Context) error { return b.cfg.Router.Bind(ctx, router, word) })
		if ctx.Err() != nil {
			return
		}
		t.told(time.Now(), name, word, err)
		if err == nil {
			b.held.take(router, name, word)
			b.answer()
		}
		b.log(failed, router, name, err)
	}
}

func (b *Binder) ask(ctx context.Context, what func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, sayTimeout)
	defer cancel()
	return what(ctx)
}

// log tells what is new of a service; of none: of which there are.
func (b *Binder) log(failed map[string]string, router, service string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	was := failed[service]
	failed[service] = text
	switch {
	case err != nil && was != text:
		b.cfg.Log.Error("router is not told whose users go where; trying again", "router", router, "service", service, "err", err)
	case err == nil && was != "":
		b.cfg.Log.Info("router is told again", "router", router, "service", service)
	}
}

// sleep returns false when ctx is done.
func sleep(ctx context.Context, changed <-chan struct{}, until time.Time) bool {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	if !until.IsZero() {
		timer.Reset(time.Until(until))
	}
	select {
	case <-ctx.Done():
		return false
	case <-changed:
	case <-timer.C:
	}
	return true
}

// wanted is what routers are to know. A word is replaced, never changed: it is another one when it says something else.
type wanted struct {
	words map[string]*tdpdv1.UserBinding // by service
	names []string                       // of the services of mode tags, words or none, and of others with words
	moved map[string]bool                // services that are there, and not of mode tags
	pins  map[string]map[string]uint64   // by service and server: the revisions of pins that words heed
	known bool                           // the services have come: what is not there is to go
}

// words make what is wanted of services and allocations.
type words struct {
	lifetime, hold time.Duration

	mu          sync.Mutex
	services    []service.Service
	allocations map[string]allocated
	pins        map[string]map[string]pinned // by service and server
	counted     map[string]pinCount          // of pins, by service
	synced      bool                         // all that there were have come: of others nobody serves
	now         wanted
}

// allocated is what is allocated of a service.
type allocated struct {
	alloc.Allocation
	next alloc.Allocation // prepared; zero: none is
}

func newWords(cfg Config) words {
	return words{lifetime: cfg.Lifetime, hold: cfg.Hold, allocations: map[string]allocated{}, pins: map[string]map[string]pinned{}, counted: map[string]pinCount{}}
}

func (w *words) get() wanted {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *words) setServices(all []service.Service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.services, w.now.known = all, true
	clear(w.counted)
	w.settle("")
}

// setSynced says that the allocations that there were have come.
func (w *words) setSynced() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.synced = true
	w.settle("")
}

// setAllocation takes what is allocated of a service; the zero one: nothing.
func (w *words) setAllocation(name string, a allocated) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.allocations[name] = a; a.Zero() {
		delete(w.allocations, name)
	}
	w.settle(name)
}

// anyPins stands among names of services for all with pins, or with users who are pinned.
const anyPins = "."

// settle makes the words anew, or those of a service, or those with pins: an allocation may be long, and there may be many.
func (w *words) settle(only string) {
	now := wanted{words: map[string]*tdpdv1.UserBinding{}, moved: map[string]bool{}, pins: map[string]map[string]uint64{}, known: w.now.known}
	for _, s := range w.services {
		a, ok := w.allocations[s.Name]
		was := w.now.words[s.Name]
		word := was
		if was == nil || only == "" || only == s.Name || only == anyPins && (w.pins[s.Name] != nil || len(was.GetUserAddresses()) > 0) {
			word = w.word(s, a)
		}
		if s.Mode != service.Tags {
			now.moved[s.Name] = true
		}
		if s.Mode == service.Tags || word != nil {
			now.names = append(now.names, s.Name)
		}
		if !ok && !w.synced {
			continue
		}
		now.pins[s.Name] = w.heardOf(s.Name, a)
		switch {
		case word == nil:
		case word == was || proto.Equal(was, word):
			now.words[s.Name] = was
		default:
			now.words[s.Name] = word
		}
	}
	w.now = now
}

func refusal(r service.Refusal) tdpdv1.Refusal {
	switch r {
	case service.RefuseReset:
		return tdpdv1.Refusal_REFUSAL_RESET
	case service.RefuseUnreachable:
		return tdpdv1.Refusal_REFUSAL_UNREACHABLE
	}
	return tdpdv1.Refusal_REFUSAL_DROP
}

// word is a service's; without an allocation nobody serves its users yet. Nil: there is nothing to say.
func (w *words) word(s service.Service, of allocated) *tdpdv1.UserBinding {
	users, a := w.exceptions(s, of), of.Allocation
	if s.Mode != service.Tags && len(users) == 0 {
		return nil
	}
	a.Trail = alloc.Trail{} // servers forward, not routers
	b := &tdpdv1.UserBinding{
		Service: s.Name, Allocation: alloc.ToProto(s.Name, a),
		LifetimeMs: uint32(w.lifetime.Milliseconds()), HoldMs: uint32(w.hold.Milliseconds()), Refuse: refusal(s.Refuse),
		Reactive: s.Mode == service.Tags && s.Steering == service.Reactive, UsersOnly: s.Mode != service.Tags,
	}
	if a.Zero() {
		b.Allocation, b.Nobody = nil, alloc.EpochToProto(a.Epoch)
	}
	except(b, a.Servers, users)
	for _, p := range s.Split {
		b.Split = append(b.Split, append(p.Addr().AsSlice(), byte(p.Bits())))
	}
	for _, vip := range s.VIPs() {
		b.Vips = append(b.Vips, vip.AsSlice())
	}
	return b
}
