package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/records"
	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
	"github.com/manycast/manycast/lbd/internal/dyntcp/servicekey"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

const (
	tickEvery = time.Second
	// sweepEvery is how often connections that are over are forgotten.
	sweepEvery = 10 * time.Second
	// settle is how long a start waits for services' keys: a SYN-ACK's destination counts in a published set alone.
	settle = 2 * time.Second
)

// Service is a VIP and port whose connections are to be followed.
type Service struct {
	Name string // for people
	VIP  netip.AddrPort
}

// Config is what does not change while a Loop runs.
type Config struct {
	Services []Service
	Scope    string // control group; empty: the whole host
	Plane    kernel.Client
	Source   records.Source // of services' keys
	TTLMax   time.Duration  // no record is believed for longer
	Limits   movement.FollowerLimits
	Keep     bool // leave all in place at the end
	Log      *slog.Logger
}

// Loop is the task.
type Loop struct {
	config   Config
	keeper   *servicekey.Keeper
	follower *movement.Follower
	cookies  map[movement.Flow]wire.Cookie // of connections that the follower has
	known    map[netip.Addr]movement.Service
	set      []kernel.ClientService // what the plane has; nil: nothing was set
	unset    string                 // why the plane has not what it should have
	noRoom   uint64                 // messages of connections beyond the limit
	swept    time.Time

	mu      sync.Mutex
	learned map[netip.Addr]movement.Service // not yet taken
	wake    chan struct{}

	questions chan func()
	turn      chan struct{}
	ready     chan struct{}
	ended     chan struct{}
}

// New makes a Loop, whose the plane is from then on.
func New(c Config) *Loop {
	l := &Loop{
		config: c, follower: movement.NewFollower(c.Limits), cookies: map[movement.Flow]wire.Cookie{}, known: map[netip.Addr]movement.Service{},
		learned: map[netip.Addr]movement.Service{}, wake: make(chan struct{}, 1),
		questions: make(chan func()), turn: make(chan struct{}), ready: make(chan struct{}), ended: make(chan struct{}),
	}
	l.keeper = servicekey.NewKeeper(c.Source, c.TTLMax, l.learn, c.Log)
	return l
}

// String names the task.
func (l *Loop) String() string { return "client" }

// Ready is closed when new connections can move.
func (l *Loop) Ready() <-chan struct{} { return l.ready }

// Turns are the loop's and its keeper's.
func (l *Loop) Turns() []chan<- struct{} { return append(l.keeper.Turns(), l.turn) }

// learn is for the keeper. It does not wait: the loop may wait for the keeper.
func (l *Loop) learn(u servicekey.Update) {
	l.mu.Lock()
	l.learned[u.VIP] = u.Service
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run follows connections until ctx is done, then lets go of the plane.
func (l *Loop) Run(ctx context.Context) error {
	asking, end := context.WithCancel(ctx)
	kept := make(chan error, 1)
	go func() { kept <- l.keeper.Run(asking) }()
	err := l.run(ctx)
	close(l.ended)
	end()
	err = errors.Join(err, <-kept)
	return errors.Join(err, l.config.Plane.Close(l.config.Keep || err != nil || daemon.Keeps(ctx)))
}

func (l *Loop) run(ctx context.Context) error {
	for _, vip := range l.vips() {
		l.keeper.Use(ctx, vip)
	}
	settled := time.NewTimer(settle)
	defer settled.Stop()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case c, ok := <-l.config.Plane.Changes():
			if !ok {
				return errors.New("the programs tell no changes of destination any more")
			}
			l.change(ctx, time.Now(), c)
		case <-l.wake:
			if l.take(); l.set != nil || len(l.known) == len(l.vips()) {
				err = l.publish(time.Now())
			}
		case <-settled.C:
			err = l.publish(time.Now())
		case now := <-tick.C:
			if l.set != nil {
				err = l.publish(now)
			}
			l.sweep(now, false)
		case ask := <-l.questions:
			ask()
		case <-l.turn:
		}
		if err != nil {
			return err
		}
	}
}

// vips are the addresses of the services, each once.
func (l *Loop) vips() (vips []netip.Addr) {
	for _, s := range l.config.Services {
		if !slices.Contains(vips, s.VIP.Addr()) {
			vips = append(vips, s.VIP.Addr())
		}
	}
	return vips
}

func (l *Loop) take() {
	l.mu.Lock()
	learned := l.learned
	l.learned = map[netip.Addr]movement.Service{}
	l.mu.Unlock()
	for vip, s := range learned {
		l.known[vip] = s
		l.follower.Set(servicekey.ServiceOf(vip), s)
		l.config.Log.Info("service", "vip", vip, "keys", len(s.Keys), "published", s.Destinations, "until", s.Until)
	}
}

// publish tells the programs where servers may be by now, if that has changed. What somebody publishes later does not end the daemon.
func (l *Loop) publish(now time.Time) error {
	want := make([]kernel.ClientService, 0, len(l.config.Services))
	for _, s := range l.config.Services {
		want = append(want, kernel.ClientService{VIP: s.VIP, Published: l.published(now, s.VIP.Addr())})
	}
	same := func(a, b kernel.ClientService) bool { return a.VIP == b.VIP && slices.Equal(a.Published, b.Published) }
	if l.set != nil && slices.EqualFunc(l.set, want, same) {
		return nil
	}
	if err := l.config.Plane.Set(want); err != nil {
		if l.set == nil {
			return err
		}
		if text := err.Error(); text != l.unset { // it is tried again with each tick
			l.unset = text
			l.config.Log.Warn("published destinations stay as they were", "err", err)
		}
		return nil
	}
	if l.set == nil {
		close(l.ready)
	}
	l.set, l.unset = want, ""
	return nil
}

// published is the set of a VIP, as far as it is of its family. What is over has none.
func (l *Loop) published(now time.Time, vip netip.Addr) (set []netip.Prefix) {
	s := l.known[vip]
	if !s.Until.IsZero() && !now.Before(s.Until) {
		return nil
	}
	for _, p := range s.Destinations {
		if p.Addr().Is4() == vip.Is4() && !p.Addr().Is4In6() {
			set = append(set, p)
		}
	}
	return set
}

// change takes a message that the programs let pass.
func (l *Loop) change(ctx context.Context, now time.Time, c kernel.Change) {
	flow := movement.Flow(c.Flow)
	if err := l.follow(now, flow); err != nil {
		l.noRoom++
		l.config.Log.Debug("change of destination not followed", "flow", flow, "err", err)
		return
	}
	for _, a := range l.follower.Received(now, c.Message) {
		l.act(ctx, a)
	}
}

// follow has the follower know the connection as it is. One that is over is the follower's to refuse.
func (l *Loop) follow(now time.Time, flow movement.Flow) error {
	is, err := l.config.Plane.Connection(kernel.Flow(flow))
	if errors.Is(err, kernel.ErrGone) {
		l.forget(flow)
		return nil
	}
	if err != nil {
		return err
	}
	if was, has := l.cookies[flow]; has && was == is.Cookie {
		return nil
	}
	if err := l.open(now, flow, is); err != nil {
		l.sweep(now, true)
		return l.open(now, flow, is)
	}
	return nil
}

func (l *Loop) open(now time.Time, flow movement.Flow, is kernel.Connection) error {
	l.forget(flow)
	_, err := l.follower.Opened(now, movement.Connection{
		Flow: flow, Service: servicekey.ServiceOf(flow.VIP.Addr()), Tag: is.Tag, Cookie: is.Cookie,
		Destination: is.Destination, Sequence: is.Sequence, Moves: uint64(is.Moves),
	}, netip.AddrPort{})
	if err == nil {
		l.cookies[flow] = is.Cookie
	}
	return err
}

func (l *Loop) forget(flow movement.Flow) {
	l.follower.Closed(flow)
	delete(l.cookies, flow)
}

func (l *Loop) act(ctx context.Context, a movement.Action) {
	switch a := a.(type) {
	case movement.Rewrite:
		err := l.config.Plane.SetDestination(kernel.Flow(a.Flow), l.cookies[a.Flow], a.Destination, a.Sequence)
		if err != nil {
			l.forget(a.Flow) // the next message begins with what the table has
			l.config.Log.Warn("connection not moved", "flow", a.Flow, "destination", a.Destination, "err", err)
			return
		}
		l.config.Log.Debug("connection moved", "flow", a.Flow, "destination", a.Destination, "sequence", a.Sequence)
	case movement.Refuse:
		l.config.Log.Debug("change of destination refused", "flow", a.Flow, "reason", a.Reason)
	case movement.Ask:
		if vip, err := netip.ParseAddr(a.Service); err == nil {
			l.keeper.Ask(ctx, vip)
		}
	default:
		panic(fmt.Sprintf("client: action %T", a))
	}
}

// sweep forgets connections that are over.
func (l *Loop) sweep(now time.Time, must bool) {
	if !must && now.Sub(l.swept) < sweepEvery || now.Sub(l.swept) < tickEvery {
		return
	}
	l.swept = now
	for flow, cookie := range l.cookies {
		is, err := l.config.Plane.Connection(kernel.Flow(flow))
		if errors.Is(err, kernel.ErrGone) || err == nil && is.Cookie != cookie {
			l.forget(flow)
		}
	}
}

// ask has f run in the loop; false: it has ended.
func (l *Loop) ask(f func()) bool {
	done := make(chan struct{})
	select {
	case l.questions <- func() { f(); close(done) }:
		<-done
		return true
	case <-l.ended:
		return false
	}
}
