package leader

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/store"
)

// Config is what a Loop works with.
type Config struct {
	Name      string // of this director
	StateDir  string // the highest term is kept here
	Timing    Timing
	LeaseTTL  time.Duration // of the bucket's entries; 0: 2 s
	Buckets   store.Buckets
	Announcer announce.Announcer
	Channel   control.Channel // nil: there is none
	Server    string          // the server of this process; empty: there is none
	Services  <-chan []service.Service
	Log       *slog.Logger
}

// Loop feeds a Core and carries out its actions; a daemon's task. It is the Core's only user.
type Loop struct {
	cfg      Config
	core     *Core
	campaign *campaigner
	messages chan announce.Message
	mail     *control.Mailbox
	term     uint64
	unsure   map[string]bool // services whose state has to be read again
	turn     chan struct{}
	turnedAt time.Time
}

// tickEvery is how precisely time is kept.
const tickEvery = 50 * time.Millisecond

// opTimeout bounds one operation on the bus.
const opTimeout = time.Second

// NewLoop returns a Loop that has yet to run.
func NewLoop(cfg Config) (*Loop, error) {
	if cfg.LeaseTTL == 0 {
		cfg.LeaseTTL = 2 * time.Second
	}
	campaign, err := newCampaigner(cfg.Name, filepath.Join(cfg.StateDir, "term"), cfg.Buckets.Leases, cfg.LeaseTTL, cfg.Log)
	if err != nil {
		return nil, err
	}
	return &Loop{
		cfg: cfg, core: NewCore(cfg.Timing), campaign: campaign,
		messages: make(chan announce.Message, 4096), mail: control.NewMailbox(1024), unsure: map[string]bool{}, turn: make(chan struct{}),
	}, nil
}

// String names the task.
func (l *Loop) String() string { return "leader" }

// Ready is nil: a director is of use whether it leads or not.
func (l *Loop) Ready() <-chan struct{} { return nil }

// Turns is the loop's.
func (l *Loop) Turns() []chan<- struct{} { return []chan<- struct{}{l.turn} }

// turned tells the watchdog between two operations on the bus, each of which is bounded: a slow bus is no loop that hangs.
func (l *Loop) turned() {
	select {
	case <-l.turn:
	default:
	}
}

// Run competes for the lease and leads while it has it, until ctx is done.
func (l *Loop) Run(ctx context.Context) error {
	stop, err := l.cfg.Announcer.Listen(l.hear)
	if err != nil {
		return err
	}
	defer stop()
	tenures := make(chan tenure)
	var campaign sync.WaitGroup
	defer campaign.Wait()
	campaign.Go(func() { l.campaign.run(ctx, tenures) })

	servers := l.cfg.Buckets.Servers.Watch(ctx)
	operator := l.cfg.Buckets.Operator.Watch(ctx)
	allocations := l.cfg.Buckets.Allocations.Watch(ctx)
	services := l.cfg.Services
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	l.core.Watching(time.Now())
	if l.cfg.Channel != nil {
		l.core.Channel(time.Now(), l.cfg.Channel.Silence(), l.cfg.Server)
		defer l.cfg.Channel.Listen(l.mail.Put)()
	}
	l.turnedAt = time.Now()
	for {
		select {
		case t := <-tenures: // before all else: after a turn that took long the lease that is known may be over, and what was begun with it be dropped
			l.awake(time.Now())
			l.carryOut(ctx, l.tenure(t))
			continue
		default:
		}
		var turn func() []Action
		select {
		case <-ctx.Done():
			return nil
		case t := <-tenures:
			turn = func() []Action { return l.tenure(t) }
		case all, ok := <-services:
			if !ok {
				services = nil
				continue
			}
			turn = func() []Action { return l.core.SetServices(time.Now(), all) }
		case e, ok := <-servers:
			turn = func() []Action { return l.server(e, ok) }
		case e, ok := <-operator:
			turn = func() []Action { return l.operator(e, ok) }
		case e, ok := <-allocations:
			turn = func() []Action { return l.allocation(e, ok) }
		case <-l.turn:
			turn = func() []Action { return nil }
		case <-l.mail.Ready():
			turn = l.heard
		case m := <-l.messages:
			turn = func() []Action { return l.core.Message(time.Now(), m) }
		case <-tick.C:
			turn = func() []Action { return append(l.reread(ctx), l.core.Tick(time.Now())...) }
		}
		l.awake(time.Now())
		l.carryOut(ctx, turn())
	}
}

// awake tells the core where this loop was not run for a while, or the bus was slow: what came meanwhile has yet to be read.
func (l *Loop) awake(now time.Time) {
	if late := now.Sub(l.turnedAt) - tickEvery; late > tickEvery/2 {
		l.core.Missed(now, late)
	}
	l.turnedAt = now
}

// hear takes what agents say. A message too many is lost like one on the way.
func (l *Loop) hear(m announce.Message) {
	switch m.(type) {
	case announce.Prepared, announce.Done:
		select {
		case l.messages <- m:
		default:
		}
	}
}

// heard takes what came by the control channel.
func (l *Loop) heard() []Action {
	members, messages := l.mail.Take()
	actions := l.core.Heard(time.Now(), members)
	takeovers, err := announce.Takeovers(messages)
	if err != nil {
		l.cfg.Log.Warn("not understood", "err", err)
	}
	for _, t := range takeovers {
		actions = append(actions, l.core.TakenOver(time.Now(), t)...)
	}
	return actions
}

func (l *Loop) tenure(t tenure) []Action {
	if t.term != l.term {
		if t.term != 0 {
			l.cfg.Log.Info("leads", "term", t.term)
		} else {
			l.cfg.Log.Info("does not lead any more", "term", l.term)
		}
		l.term = t.term
	}
	return l.core.Lead(time.Now(), t.term, t.until)
}

func (l *Loop) server(e bus.Entry, isOpen bool) []Action {
	if !isOpen {
		return nil
	}
	service, server, ok := strings.Cut(e.Key, ".")
	switch {
	case e.Synced:
		l.core.Watching(time.Now())
	case !ok:
	case e.Deleted:
		return l.core.Unregister(time.Now(), service, server)
	default:
		r, err := decodeRegistration(e.Value)
		if err != nil || r.Service != service || r.Server != server {
			l.cfg.Log.Warn("registration is not understood", "key", e.Key, "err", err)
			return nil
		}
		return l.core.Register(time.Now(), r, e.Revision)
	}
	return nil
}

func (l *Loop) operator(e bus.Entry, isOpen bool) []Action {
	if !isOpen {
		return nil
	}
	service, server, ok := strings.Cut(e.Key, ".")
	if !ok {
		return nil
	}
	var o Operator
	if !e.Deleted {
		var err error
		if o, err = decodeOperator(e.Value); err != nil {
			l.cfg.Log.Warn("operator's wish is not understood", "key", e.Key, "err", err)
			return nil
		}
	}
	return l.core.SetOperator(time.Now(), service, server, o)
}

func (l *Loop) allocation(e bus.Entry, isOpen bool) []Action {
	if !isOpen {
		return nil
	}
	switch {
	case e.Synced:
		return l.core.AllStored(time.Now())
	case e.Deleted:
		return l.core.Loaded(time.Now(), e.Key, e.Revision, store.State{})
	}
	s, err := store.DecodeState(e.Value)
	if err != nil {
		l.cfg.Log.Error("allocation on the bus is damaged and counts as none", "service", e.Key, "err", err)
	}
	return l.core.Stored(time.Now(), e.Key, e.Revision, s)
}

// carryOut does the actions, and those that follow from them.
func (l *Loop) carryOut(ctx context.Context, actions []Action) {
	for len(actions) > 0 {
		l.turned()
		var more []Action
		switch a := actions[0].(type) {
		case Save:
			more = l.save(ctx, a)
		case Send:
			if err := l.cfg.Announcer.Send(a.Message); err != nil {
				l.cfg.Log.Warn("not announced", "err", err)
			}
		case Record:
			l.record(ctx, a.Move)
		case Dampened:
			l.dampened(ctx, a)
		case Warn:
			l.cfg.Log.Warn(a.Text, "service", a.Service)
		}
		actions = append(actions[1:], more...)
	}
}

func (l *Loop) save(ctx context.Context, a Save) []Action {
	data, err := store.EncodeState(a.Service, a.State)
	if err != nil {
		l.cfg.Log.Error("allocation not encoded", "service", a.Service, "err", err)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	var revision uint64
	if a.Revision == 0 {
		revision, err = l.cfg.Buckets.Allocations.Create(ctx, a.Service, data)
	} else {
		revision, err = l.cfg.Buckets.Allocations.Update(ctx, a.Service, data, a.Revision)
	}
	if err != nil {
		l.cfg.Log.Warn("allocation not saved; read again", "service", a.Service, "err", err)
		l.unsure[a.Service] = true
		return nil
	}
	return l.core.Saved(time.Now(), a, revision)
}

// reread reads the states that a failed Save left open.
func (l *Loop) reread(ctx context.Context) []Action {
	var actions []Action
	for name := range l.unsure {
		l.turned()
		ctx, cancel := context.WithTimeout(ctx, opTimeout)
		e, err := l.cfg.Buckets.Allocations.Get(ctx, name)
		cancel()
		var s store.State
		switch {
		case errors.Is(err, bus.ErrNotFound):
		case err != nil:
			continue
		default:
			if s, err = store.DecodeState(e.Value); err != nil {
				l.cfg.Log.Error("allocation on the bus is damaged and counts as none", "service", name, "err", err)
			}
		}
		delete(l.unsure, name)
		actions = append(actions, l.core.Loaded(time.Now(), name, e.Revision, s)...)
	}
	return actions
}

// record adds a move to the history. A move that is lost with the bus is lost to the history alone.
func (l *Loop) record(ctx context.Context, m Move) {
	l.cfg.Log.Info("reallocated", "service", m.Service, "epoch", m.Epoch, "reason", m.Reason, "moved", m.Moved, "needed", m.Needed,
		"connections", m.Closed, "took", m.Took, "missing", m.Missing)
	err := l.changeMoves(ctx, m.Service, func(old []byte) ([]byte, error) { return addMove(old, m) })
	if err != nil {
		l.cfg.Log.Warn("move not recorded", "service", m.Service, "epoch", m.Epoch, "err", err)
	}
}

// dampened puts on record who is kept out.
func (l *Loop) dampened(ctx context.Context, d Dampened) {
	for _, s := range d.Servers {
		l.cfg.Log.Warn("server died again and is kept out for a while", "service", d.Service, "server", s.Name, "until", s.Until)
	}
	err := l.changeMoves(ctx, d.Service, func(old []byte) ([]byte, error) { return setDampened(old, d) })
	if err != nil {
		l.cfg.Log.Warn("servers that are kept out not recorded", "service", d.Service, "err", err)
	}
}

func (l *Loop) changeMoves(ctx context.Context, service string, change func(old []byte) ([]byte, error)) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	old, err := l.cfg.Buckets.Moves.Get(ctx, service)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return err
	}
	data, err := change(old.Value)
	if err == nil {
		_, err = l.cfg.Buckets.Moves.Put(ctx, service, data)
	}
	return err
}
