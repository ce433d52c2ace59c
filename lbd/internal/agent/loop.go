package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/joiner"
	"github.com/manycast/manycast/lbd/internal/mover"
	"github.com/manycast/manycast/lbd/internal/pins"
	"github.com/manycast/manycast/lbd/internal/store"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// Joiner is what the agent uses of joiner.Loop.
type Joiner interface {
	Set(ctx context.Context, want []joiner.Membership) error
	Run(ctx context.Context) error
}

// Mover is what the agent uses of mover.Mover.
type Mover interface{ Set(all []mover.View) }

// Closer closes the lost connections to vip and ports and counts them (dataplane.EndConnections).
type Closer func(ctx context.Context, vip netip.Addr, ports []dataplane.Port, lost func(user netip.AddrPort) bool, how dataplane.Ending) (int, error)

// Connected are the users of TCP connections to addresses and ports (dataplane.ConnectedUsers).
type Connected func(ctx context.Context, vips []netip.Addr, ports []dataplane.Port) ([]netip.AddrPort, error)

// Health calls report with each change of the application's health until ctx is done (health.Checker).
type Health func(ctx context.Context, report func(healthy bool, why error))

// Config is what a Loop works with. Without a bus, Buckets and Announcer are nil.
type Config struct {
	Name     string
	Address  netip.Addr
	Link     netip.Prefix // connected prefix of the interface where the groups are joined
	Weight   int
	Serve    []string
	StateDir string
	Settle   time.Duration
	Keep     bool // at a clean stop everything stays as it is

	Channel control.Channel                   // nil: there is none
	Pause   func(restart time.Duration) error // says on the channel that the server is not silent before that is over

	Services  <-chan []service.Service
	Plane     dataplane.AgentPlane
	Joiner    Joiner
	Close     Closer
	Connected Connected   // nil: users are not pinned before they go
	Mover     Mover       // nil: connections do not move
	Leaves    func() bool // packets of connections that have left come here still, to be sent on; nil: never
	Health    Health
	Measure   Measure                     // nil: loads are not known
	HasKey    func(group netip.Addr) bool // joins could be signed; nil: they need not be
	KeysRead  <-chan struct{}             // closed when HasKey can tell; nil: it always can
	Buckets   *store.Buckets
	Announcer announce.Announcer
	Answers   pins.Answers // of directors to what is pinned; nil: nothing is
	Log       *slog.Logger
}

const (
	retryAfter = time.Second     // what could not be applied is tried again
	leaveWait  = time.Second     // a clean stop waits that long for others to take over
	lingerMost = 5 * time.Second // and that long, besides, for users of connections that have left to follow them
	lingerLook = 50 * time.Millisecond
	askWait    = time.Second     // a start waits that long for the bus before it takes up the last run's allocations
	closeLimit = 5 * time.Second // one round of closing connections
)

// Loop feeds a Core and carries out its actions; a daemon's task. It owns the data plane and the joiner.
type Loop struct {
	cfg         Config
	core        *Core
	shelf       store.Shelf
	registrar   *registrar // nil without a bus
	pinner      *pinner    // nil: nobody is pinned
	messages    chan announce.Message
	closed      chan closeResult
	totals      totals
	pinnedAhead chan announce.Prepared // what may be said now
	verdicts    chan verdict
	timer       *time.Timer
	ready       chan struct{}
	turned      chan struct{}
	isReady     bool
	retry       *Apply // what could not be applied
	retryAt     time.Time
	peers       []netip.Addr               // that were set
	serves      map[netip.Addr]epoch.Epoch // as logged, by group
	shelving    shelving
	work        sync.WaitGroup
	channel     channel
	shown       shown
}

type closeResult struct {
	Close
	connections int
}

// NewLoop returns a Loop that has yet to run.
func NewLoop(cfg Config) *Loop {
	l := &Loop{
		cfg: cfg, core: NewCore(cfg.Name, cfg.Serve, cfg.Link, cfg.Settle), shelf: store.Shelf{Dir: cfg.StateDir}, shelving: newShelving(), serves: map[netip.Addr]epoch.Epoch{},
		messages: make(chan announce.Message, 1024), closed: make(chan closeResult, 16), pinnedAhead: make(chan announce.Prepared, 16), verdicts: make(chan verdict), ready: make(chan struct{}), turned: make(chan struct{}),
	}
	if cfg.Buckets != nil {
		l.registrar = newRegistrar(cfg.Buckets.Servers, &allocv1.Registration{
			Name: cfg.Name, Address: cfg.Address.String(), Weight: uint32(cfg.Weight), BootId: rand.Uint64(),
		}, l.able, cfg.Log)
	}
	if cfg.Buckets != nil && cfg.Answers != nil && cfg.Connected != nil {
		l.pinner = newPinner(cfg.Buckets.Pins, cfg.Answers, cfg.Name, cfg.Log)
	}
	l.openChannel()
	return l
}

// String names the task.
func (l *Loop) String() string { return "agent" }

// Ready is closed when the services are known and applied.
func (l *Loop) Ready() <-chan struct{} { return l.ready }

// Turns are the loop's and the joiner's.
func (l *Loop) Turns() []chan<- struct{} {
	turns := []chan<- struct{}{l.turned}
	if j, ok := l.cfg.Joiner.(daemon.Looper); ok {
		turns = append(turns, j.Turns()...)
	}
	return turns
}

// keeps is what Keep says, or how ctx ended.
func (l *Loop) keeps(ctx context.Context) bool { return l.cfg.Keep || daemon.Keeps(ctx) }

// Run works until ctx is done; then it hands its users over, leaves the groups and removes the data plane, unless Keep is set.
func (l *Loop) Run(ctx context.Context) error {
	ctx, stopWork := context.WithCancel(ctx) // of the work beside the loop, when the loop fails too
	defer stopWork()
	joining, stopJoining := context.WithCancelCause(context.WithoutCancel(ctx))
	joinerEnded := make(chan error, 1)
	go func() { joinerEnded <- l.cfg.Joiner.Run(joining) }()

	err := l.serve(ctx, joinerEnded)
	if err == nil && !l.keeps(ctx) {
		l.linger()
	}
	l.leaveChannel(ctx)

	keep := l.keeps(ctx)
	stopWork()
	stopJoining(context.Cause(ctx))
	l.work.Wait()
	l.keepRest()
	if err == nil {
		err = <-joinerEnded
	}
	if closeErr := l.cfg.Plane.Close(keep); err == nil && closeErr != nil {
		err = fmt.Errorf("remove the data plane: %w", closeErr)
	}
	return err
}

// linger goes on sending on what users send here who have not followed their connections yet: programs alone do that.
func (l *Loop) linger() {
	if l.cfg.Leaves == nil {
		return
	}
	for end := time.Now().Add(lingerMost); l.cfg.Leaves() && time.Now().Before(end); {
		time.Sleep(lingerLook)
	}
}

// inputs are what a Loop listens to; a nil channel never speaks.
type inputs struct {
	services    <-chan []service.Service // heard once restored
	allocations <-chan bus.Entry
	restore     <-chan time.Time // the bus has had its time
	stop        <-chan struct{}
	keeps       func() bool // once stopped
	deadline    <-chan time.Time
	joinerEnded <-chan error
}

func (l *Loop) serve(ctx context.Context, joinerEnded <-chan error) error {
	l.timer = time.NewTimer(time.Hour)
	defer l.timer.Stop()
	in := inputs{stop: ctx.Done(), keeps: func() bool { return l.keeps(ctx) }, joinerEnded: joinerEnded}

	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorking()
	if l.cfg.Announcer != nil {
		stop, err := l.cfg.Announcer.Listen(l.hear)
		if err != nil {
			return err
		}
		defer stop()
		in.allocations, in.restore = l.cfg.Buckets.Allocations.Watch(working), time.After(askWait)
		l.work.Go(func() { l.registrar.run(ctx, l.keeps) })
		if l.pinner != nil {
			l.work.Go(func() { l.pinner.run(ctx, l.keeps) })
		}
	} else {
		in.services = l.cfg.Services
	}
	if l.cfg.Channel != nil {
		defer l.cfg.Channel.Listen(l.channel.mail.Put)()
	}
	l.work.Go(func() { l.watchHealth(ctx) })
	if l.cfg.Measure != nil {
		l.work.Go(func() { l.cfg.Measure(ctx, l.shown.get, l.setLoads) })
	}
	defer l.channel.turned.Store(nil)
	for {
		done, err := l.turn(working, &in)
		if done || err != nil {
			return err
		}
		l.hasTurned()
		l.setTimer()
	}
}

// turn takes one event and does what follows from it.
func (l *Loop) turn(ctx context.Context, in *inputs) (done bool, err error) {
	var actions []Action
	wasPresent := l.core.takes()
	select {
	case <-in.stop:
		if in.keeps() || l.cfg.Announcer == nil || !l.core.Owns() {
			return true, nil
		}
		in.stop, in.services, in.deadline = nil, nil, time.After(leaveWait)
	case <-in.deadline:
		return true, nil
	case err := <-in.joinerEnded:
		return true, fmt.Errorf("joiner ended: %w", err)
	case services, ok := <-in.services:
		if !ok {
			in.services = nil
			return false, nil
		}
		actions = l.core.SetServices(time.Now(), services)
		if l.registrar != nil {
			l.registrar.setServices(l.core.Registers())
		}
	case e, ok := <-in.allocations:
		if !ok {
			in.allocations = nil
		}
		if e.Synced {
			if err := l.restore(ctx, in); err != nil {
				return true, err
			}
		}
		actions = l.stored(e)
	case <-in.restore:
		if err := l.restore(ctx, in); err != nil {
			return true, err
		}
	case m := <-l.messages:
		actions = l.message(m)
	case r := <-l.closed:
		l.totals.add(r.Why, r.connections)
		actions = l.core.Closed(r.Service, r.Epoch, r.connections)
	case prepared := <-l.pinnedAhead:
		l.send(prepared)
	case v := <-l.verdicts:
		actions = l.health(v)
	case r := <-l.shelving.ended:
		l.kept(r)
	case <-l.channel.mail.Ready():
		actions = l.heard()
	case <-l.turned:
	case <-l.channel.lapsed: // checkAlive sees to it
	case <-l.timer.C:
		actions = l.core.Tick(time.Now())
		if at := l.shelving.again; !at.IsZero() && !time.Now().Before(at) {
			l.keep()
		}
	}
	if wasPresent {
		actions = append(actions, l.checkAlive()...)
	}
	l.carryOut(ctx, actions)
	return in.stop == nil && in.deadline != nil && !l.core.Owns(), nil
}

func (l *Loop) setTimer() {
	next := l.core.Next()
	if l.retry != nil && (next.IsZero() || l.retryAt.Before(next)) {
		next = l.retryAt
	}
	if at := l.shelving.again; !at.IsZero() && (next.IsZero() || at.Before(next)) {
		next = at
	}
	if check := l.nextCheck(); !check.IsZero() && (next.IsZero() || check.Before(next)) {
		next = check
	}
	if next.IsZero() {
		l.timer.Stop()
		return
	}
	l.timer.Reset(time.Until(next))
}

// restore takes the allocations of an earlier run up again, unless the bus has newer ones: then others may serve our users,
// on the same link. Until then the data plane does what it did before. It fails where another server has our name.
func (l *Loop) restore(ctx context.Context, in *inputs) error {
	if in.restore == nil {
		return nil
	}
	if err := l.registrar.checkName(ctx, l.cfg.Serve); err != nil {
		return err
	}
	in.restore, in.services = nil, l.cfg.Services
	kept, err := l.shelf.Load()
	if err != nil {
		l.cfg.Log.Warn("allocations of the last run", "err", err)
	}
	losses, err := l.shelf.Losses()
	if err != nil {
		l.cfg.Log.Warn("users lost in the last run: their connections are kept since now", "err", err)
	}
	for name, a := range kept {
		l.core.Restore(time.Now(), name, a, losses[name])
	}
	return nil
}

// able reports whether what is allocated of a service could be joined: without the group's key its users would reach nobody.
func (l *Loop) able(s service.Service) bool {
	return l.cfg.HasKey == nil || s.Mode == service.Tags || l.cfg.HasKey(s.Group)
}

// hear takes what leaders say. A message too many is lost like one on the way: the bucket has what counts.
func (l *Loop) hear(m announce.Message) {
	switch m.(type) {
	case announce.Announce, announce.Commit, announce.Ceased, announce.Done:
		select {
		case l.messages <- m:
		default:
		}
	}
}

func (l *Loop) message(m announce.Message) []Action {
	switch m := m.(type) {
	case announce.Announce:
		return l.core.Announced(time.Now(), m.Service, m.Allocation, m.Previous)
	case announce.Commit:
		return l.core.Committed(time.Now(), m.Service, m.Allocation)
	case announce.Ceased:
		return l.core.CeasedBy(m.Service, m.Epoch, m.Server)
	case announce.Done:
		l.core.DoneBy(time.Now(), m.Service, m.Epoch, m.Server)
	}
	return nil
}

func (l *Loop) stored(e bus.Entry) []Action {
	if e.Synced || e.Deleted || e.Key == "" {
		return nil
	}
	a, at, err := store.DecodeCommitted(e.Value)
	switch {
	case err != nil && at == (epoch.Epoch{}):
		l.cfg.Log.Error("allocation on the bus is damaged; what is executed stays", "service", e.Key, "err", err)
		return nil
	case err != nil:
		l.cfg.Log.Error("allocation on the bus is not understood", "service", e.Key, "epoch", at, "err", err)
		return l.core.Unread(time.Now(), e.Key, at)
	}
	return l.core.Committed(time.Now(), e.Key, a)
}

func (l *Loop) carryOut(ctx context.Context, actions []Action) {
	if l.retry != nil && !time.Now().Before(l.retryAt) {
		actions = append([]Action{*l.retry}, actions...)
	}
	for _, action := range actions {
		switch a := action.(type) {
		case Apply:
			l.apply(ctx, a)
		case Prepare:
			if err := errors.Join(l.setPeers(a.Peers), l.cfg.Plane.Prepare(a.Accept)); err != nil {
				l.cfg.Log.Warn("data plane not prepared: the next move takes longer", "err", err)
			}
		case Pin:
			l.show()
			if l.pinner == nil {
				l.send(a.Then)
				continue
			}
			l.work.Go(func() { l.pin(ctx, a) })
		case Keep:
			l.shelving.waiting[a.Service] = a
			l.keep()
		case Send:
			l.send(a.Message)
		case Takeover:
			l.tellTakeover(a)
		case Close:
			l.work.Go(func() { l.close(ctx, a) })
		case Warn:
			l.cfg.Log.Warn(a.Text, "service", a.Service)
		}
	}
}

// apply makes the data plane drop what is lost and take what is won, then tells the routers.
func (l *Loop) apply(ctx context.Context, a Apply) {
	if !a.Known {
		l.tellStatus(a.Status)
		return
	}
	a.Revive = a.Revive || l.retry != nil && l.retry.Revive
	l.retry = nil
	err := l.setPeers(a.Peers)
	if err == nil {
		err = l.cfg.Plane.Set(a.Accept)
	}
	if err == nil {
		l.show()
		if l.cfg.Mover != nil {
			l.cfg.Mover.Set(l.core.views())
		}
	}
	if err == nil && (a.Revive || l.cfg.Channel == nil) {
		err = l.cfg.Plane.Revive()
	}
	if err == nil {
		for _, m := range a.Ceased {
			l.send(m)
		}
		l.tellStatus(a.Status)
		err = l.cfg.Joiner.Set(ctx, a.Join)
	}
	if err != nil {
		l.cfg.Log.Error("allocation not executed, trying again", "err", err)
		l.retry, l.retryAt = &a, time.Now().Add(retryAfter)
		return
	}
	for _, m := range a.Join {
		if said, is := l.serves[m.Group]; is && said == m.Epoch {
			continue // chains of former owners change each second
		}
		l.serves[m.Group] = m.Epoch
		l.cfg.Log.Info("serves", "group", m.Group, "epoch", m.Epoch, "portions", len(m.Owner.Permit), "standby", len(m.Standby.Permit))
	}
	if !l.isReady {
		l.isReady = true
		close(l.ready)
		if l.cfg.Channel == nil {
			l.work.Go(func() { l.stayAlive(ctx) })
		}
	}
}

// setPeers comes before the chains that name them, here and at the others.
func (l *Loop) setPeers(peers []netip.Addr) error {
	if slices.Equal(peers, l.peers) {
		return nil
	}
	err := l.cfg.Plane.SetPeers(peers)
	if err == nil {
		l.peers = peers
	}
	return err
}

func (l *Loop) send(m announce.Message) {
	if l.cfg.Announcer == nil {
		return
	}
	if err := l.cfg.Announcer.Send(m); err != nil {
		l.cfg.Log.Warn("not sent", "message", fmt.Sprintf("%T", m), "err", err)
	}
}

func (l *Loop) close(ctx context.Context, a Close) {
	ctx, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	closed := 0
	for _, vip := range a.VIPs {
		n, err := l.cfg.Close(ctx, vip, a.Ports, a.Lost, a.How)
		closed += n
		if err != nil {
			l.cfg.Log.Warn("connections of lost portions not all closed", "service", a.Service, "vip", vip, "closed", n, "err", err)
		}
	}
	select {
	case l.closed <- closeResult{a, closed}:
	case <-ctx.Done():
	}
}
