package mover

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/lbd/internal/apps"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/handover"
	"github.com/manycast/manycast/lbd/internal/newest"
)

// Config is what a Mover works with.
type Config struct {
	Name    string // this server's
	Boot    uint64 // as the control channel says it
	Address string // where others open links, address:port
	Limits  handover.Limits

	Channel control.Channel
	Network Network
	Apps    apps.Apps
	Sockets Sockets
	Gates   Gates
	// Connected are the users of the TCP connections to addresses and ports: dataplane.ConnectedUsers.
	Connected func(ctx context.Context, vips []netip.Addr, ports []dataplane.Port) ([]netip.AddrPort, error)
	Log       *slog.Logger
}

// Mover is the loop; a daemon's task.
type Mover struct {
	cfg    Config
	log    *slog.Logger
	events chan event
	given  newest.Value[[]View]
	mail   *control.Mailbox
	turn   chan struct{}

	// The loop's.
	ctx     context.Context //nolint:containedctx // of links; it ends with the loop
	giver   *handover.Giver
	taker   *handover.Taker
	views   views
	hands   *hands
	links   links
	sending map[to][]handover.Message     // of this turn, by link
	holding map[handover.ID]handover.Flow // that are about to be, and then are told of

	counters counters
}

// to is a link.
type to struct {
	role role
	name string
}

// New returns a Mover that has yet to run.
func New(cfg Config) *Mover {
	return &Mover{
		cfg: cfg, log: cfg.Log, events: make(chan event, 1024), given: newest.New[[]View](), mail: control.NewMailbox(1024), turn: make(chan struct{}),
		giver: handover.NewGiver(cfg.Name, cfg.Boot, cfg.Limits), taker: handover.NewTaker(cfg.Name, cfg.Boot, cfg.Address, cfg.Limits),
		links: newLinks(), sending: map[to][]handover.Message{}, holding: map[handover.ID]handover.Flow{}, counters: newCounters(),
	}
}

// String names the task.
func (m *Mover) String() string { return "mover" }

// Ready is nil: connections of users who move are forwarded without it, too.
func (m *Mover) Ready() <-chan struct{} { return nil }

// Turns are the loop's.
func (m *Mover) Turns() []chan<- struct{} { return []chan<- struct{}{m.turn} }

// Set makes views all that this server executes. Any goroutine may call it; it does not wait.
func (m *Mover) Set(all []View) { m.given.Set(all) }

// tell has the loop hear of something.
func (m *Mover) tell(e event) {
	select {
	case m.events <- e:
	case <-m.ctx.Done():
	}
}

// Run works until ctx is done. What is on its way then is given up: a connection whose state was sent ends here without a word, others stay
// with their applications.
func (m *Mover) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	m.ctx = ctx
	m.hands = newHands(ctx, m.cfg.Apps, m.cfg.Sockets, m.cfg.Gates, m.tell, m.log)
	defer m.giveUp()
	defer m.links.work.Wait()
	defer m.closeLinks()
	defer m.cfg.Channel.Listen(m.mail.Put)()
	served := make(chan error, 1)
	m.links.work.Go(func() { served <- m.cfg.Network.Serve(ctx, m.accept) })
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			stop()
			return nil
		case err := <-served:
			if ctx.Err() == nil {
				return err
			}
		case all := <-m.given:
			m.carryOut(m.setViews(time.Now(), all))
		case e := <-m.events:
			m.carryOut(e(time.Now()))
			m.more()
		case <-m.mail.Ready():
			m.heard()
		case <-m.turn:
		case <-timer.C:
			now := time.Now()
			m.carryOut(m.giver.Tick(now))
			m.carryOut(m.taker.Tick(now))
		}
		m.flush()
		m.setTimer(timer)
	}
}

// more takes what has happened meanwhile, so that what follows from it goes to the links together.
func (m *Mover) more() {
	for range 64 {
		select {
		case e := <-m.events:
			m.carryOut(e(time.Now()))
		default:
			return
		}
	}
}

func (m *Mover) setTimer(timer *time.Timer) {
	next := m.giver.Next()
	if other := m.taker.Next(); next.IsZero() || !other.IsZero() && other.Before(next) {
		next = other
	}
	if next.IsZero() {
		timer.Stop()
		return
	}
	timer.Reset(time.Until(next))
}

// giveUp settles with the applications what is on its way. The machines step no more.
func (m *Mover) giveUp() {
	m.hands.work.Wait()
	sent := map[handover.ID]bool{}
	for _, s := range m.giver.Status() {
		sent[s.ID] = s.Step == handover.Sent || s.Step == handover.Doubting
	}
	m.hands.settle(sent)
}

func (m *Mover) closeLinks() {
	for _, up := range m.links.up {
		for _, l := range up {
			_ = l.Close() // all ends
		}
	}
}

// setViews asks for what the new allocations bring, where a service's connections move.
func (m *Mover) setViews(now time.Time, all []View) []handover.Action {
	before := m.views
	m.views = newViews(all)
	var out []handover.Action
	for name, v := range m.views {
		if before[name].Allocation.Epoch.Less(v.Allocation.Epoch) {
			out = append(out, m.taker.Want(now, name, v.Allocation.Epoch, v.givers(m.cfg.Name), v.deadline(now))...)
		}
	}
	return out
}
