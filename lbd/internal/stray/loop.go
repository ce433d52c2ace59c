package stray

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/mover"
	"github.com/manycast/manycast/lbd/internal/newest"
)

// Plane is what a Loop uses of dataplane.Forwarder.
type Plane interface {
	SetFlows(owners map[dataplane.Flow]netip.Addr) error
	DropFlows(flows []dataplane.Flow) error
	Strays() <-chan dataplane.Stray
	Inject(frame []byte) error
	Knows(flow dataplane.Flow) (bool, error)
}

// Config is what a Loop works with.
type Config struct {
	Name    string // this server's
	Limits  Limits
	Channel control.Channel
	Plane   Plane
	Log     *slog.Logger
}

// Counters are totals since the start, and what there is now.
type Counters struct {
	AskerCounters
	Holder HolderCounters
	Led    int    // entries to other servers
	Held   int    // flows that others have entries for
	Failed uint64 // times that the data plane did not do what it was told

	Malformed uint64 // words that came
	Lost      uint64 // words that came faster than they were taken
}

// Loop is the loop of both machines; a daemon's task.
type Loop struct {
	cfg   Config
	given newest.Value[[]mover.View]
	mail  *control.Mailbox
	turn  chan struct{}

	// The loop's.
	asker  *Asker
	holder *Holder

	mu       sync.Mutex
	counters Counters
}

const lettersRoom = 4096

// New returns a Loop that has yet to run.
func New(cfg Config) *Loop {
	return &Loop{
		cfg: cfg, given: newest.New[[]mover.View](), mail: control.NewMailbox(lettersRoom), turn: make(chan struct{}),
		asker: NewAsker(cfg.Name, cfg.Limits), holder: NewHolder(cfg.Limits),
	}
}

// String names the task.
func (l *Loop) String() string { return "strays" }

// Ready is nil: what has known owners is forwarded without it.
func (l *Loop) Ready() <-chan struct{} { return nil }

// Turns are the loop's.
func (l *Loop) Turns() []chan<- struct{} { return []chan<- struct{}{l.turn} }

// Set makes views all that this server executes. Any goroutine may call it; it does not wait.
func (l *Loop) Set(all []mover.View) { l.given.Set(all) }

// Counters are the totals. Any goroutine may read them.
func (l *Loop) Counters() Counters {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counters
}

// Run works until ctx is done. Entries that there are then stay, as all that is forwarded does.
func (l *Loop) Run(ctx context.Context) error {
	defer l.cfg.Channel.Listen(l.mail.Put)()
	strays := l.cfg.Plane.Strays()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case all := <-l.given:
			l.carryOut(l.asker.Set(all))
			l.holder.Set(all)
		case s, ok := <-strays:
			if !ok {
				strays = nil // the plane is closed
				continue
			}
			l.carryOut(l.asker.Stray(time.Now(), s))
		case <-l.mail.Ready():
			l.heard()
		case <-l.turn:
		case <-timer.C:
			l.carryOut(l.asker.Tick(time.Now()))
			l.carryOut(l.holder.Tick(time.Now()))
		}
		l.count()
		if next := earlier(l.asker.Next(), l.holder.Next()); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

func (l *Loop) heard() {
	members, messages := l.mail.Take()
	now := time.Now()
	for _, m := range members {
		l.carryOut(l.asker.Heard(now, m))
	}
	for _, m := range messages {
		if err := l.word(now, m); err != nil {
			l.malformed()
			l.cfg.Log.Warn("message on the control channel is not taken", "from", m.From.Name, "kind", m.Kind, "err", err)
		}
	}
}

func (l *Loop) word(now time.Time, r control.Received) error {
	switch r.Kind {
	case control.KindStray:
		asks, err := DecodeAsks(r.Body)
		for _, a := range asks {
			l.carryOut(l.holder.Asked(now, r.From, a))
		}
		return err
	case control.KindHolder:
		holdings, err := DecodeHoldings(r.Body)
		for _, h := range holdings {
			l.carryOut(l.asker.Answered(now, r.From, h))
		}
		return err
	}
	return nil
}

// carryOut does what the machines say. What the data plane does not do is as a packet lost.
func (l *Loop) carryOut(actions []Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case SayAsks:
			body, err := EncodeAsks(a.Asks)
			l.say(control.KindStray, body, err)
		case SayHoldings:
			body, err := EncodeHoldings(a.Holdings)
			l.say(control.KindHolder, body, err)
		case Look:
			known, err := l.cfg.Plane.Knows(a.Ask.Flow)
			l.failed("look for a connection", a.Ask.Flow, err)
			l.carryOut(l.holder.Looked(time.Now(), a, known))
		case Check:
			known, err := l.cfg.Plane.Knows(a.Flow)
			l.failed("look for a connection", a.Flow, err)
			l.carryOut(l.holder.Checked(time.Now(), a.Flow, known || err != nil))
		case Inject:
			l.failed("packet up the stack", a.Flow, l.cfg.Plane.Inject(a.Frame))
		case Lead:
			l.cfg.Log.Debug("connection is another server's", "flow", a.Flow, "server", a.To)
			l.failed("packets of a connection to its server", a.Flow, l.cfg.Plane.SetFlows(map[dataplane.Flow]netip.Addr{a.Flow: a.To}))
		case Drop:
			l.failed("packets of a connection to its server no more", a.Flow, l.cfg.Plane.DropFlows([]dataplane.Flow{a.Flow}))
		}
	}
}

// say says a word. One that cannot be said is as one lost.
func (l *Loop) say(kind control.Kind, body []byte, err error) {
	if err == nil {
		err = l.cfg.Channel.Send(kind, body)
	}
	if err != nil {
		l.cfg.Log.Warn("not said on the control channel", "kind", kind, "err", err)
	}
}

func (l *Loop) failed(what string, f dataplane.Flow, err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	l.counters.Failed++
	l.mu.Unlock()
	l.cfg.Log.Debug(what, "flow", f, "err", err)
}

func (l *Loop) malformed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counters.Malformed++
}

// count shows what there is.
func (l *Loop) count() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counters.AskerCounters, l.counters.Holder = l.asker.Counters(), l.holder.Counters()
	l.counters.Led, l.counters.Held, l.counters.Lost = l.asker.Led(), l.holder.Held(), l.mail.Lost()
}
