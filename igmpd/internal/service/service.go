// Package service is igmpd's event loop: it owns admission, membership and the key cache, takes in packets, key answers and
// the time, and carries out what they decide. One goroutine owns all state; what may block (the kernel's tables, the disk)
// is done beside it, with the newest state only.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/manycast/manycast/igmpd/internal/admission"
	"github.com/manycast/manycast/igmpd/internal/config"
	"github.com/manycast/manycast/igmpd/internal/kernel"
	"github.com/manycast/manycast/igmpd/internal/keys"
	"github.com/manycast/manycast/igmpd/internal/membership"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/records"
)

const (
	housekeeping  = 250 * time.Millisecond
	relayDelay    = 2 * time.Millisecond // for joins to come together in one report
	relayBatchMax = 64                   // joins; then they are sent at once
	routesMax     = 65536
)

// Options are a Service's surroundings.
type Options struct {
	Config    config.Config
	Network   Network
	Forwarder kernel.Forwarder
	Keys      records.Source
	Control   Control // nil: there is no control channel
	Log       *slog.Logger
	Keep      bool   // leave the forwarding state in the kernel at a clean stop
	BootID    string // of the running kernel: with another one members of a snapshot do not count
}

// Service is the daemon's heart.
type Service struct {
	Options
	started time.Time
	last    time.Time // of the loop, to find jumps of the wall clock

	checker *admission.Checker
	table   *membership.Table
	cache   keys.Cache
	fetcher *records.Fetcher

	ports      map[string]*port
	portsAgain bool                  // they could not all be read
	upstream   map[string]bool       // ports toward a root that is not this router
	rootPorts  map[netip.Addr]string // the port toward each root, empty where there is none
	routes     map[netip.Addr]Hop
	relays     map[string][]join.Signed // by port, not sent yet
	pending    int                      // joins in relays
	relayAt    time.Time                // when they are sent
	refills    map[string]refill        // by port

	control controlState

	ticks, states, saves share // of the loop's time

	changed   bool      // forwarding state
	holdUntil time.Time // the kernel's state is left alone until then
	forward   *latest[kernel.State]
	forwardOK forwardError
	snapshots *latest[[]byte]
	saveAt    time.Time // zero: nothing to save

	stats *stats
	calls chan func()
	turns [2]chan struct{} // of the loop and of the forwarder
	ready chan struct{}
	serve sync.Once // closes ready
}

// port is a configured interface with what the system says of it.
type port struct {
	config.Interface
	PortState
	admission *admission.Port
	public    share // of the loop's time, for reports of public groups
}

// New makes a Service and takes over the snapshot in the state directory. One that cannot be read is put aside: the kernel's
// state is then left alone until the members had time to answer a query.
func New(o Options) (*Service, error) {
	now := time.Now()
	s := &Service{
		Options: o, started: now, last: now,
		cache:    keys.NewCache(o.Config.Keys.TTLMax),
		fetcher:  records.NewFetcher(o.Keys),
		table:    membership.New(o.Config.Membership()),
		ports:    make(map[string]*port),
		upstream: make(map[string]bool), rootPorts: make(map[netip.Addr]string),
		routes:  make(map[netip.Addr]Hop),
		relays:  make(map[string][]join.Signed),
		refills: make(map[string]refill),
		changed: true,
		forward: newLatest[kernel.State](), snapshots: newLatest[[]byte](),
		stats: newStats(o.Log),
		calls: make(chan func()), turns: [2]chan struct{}{make(chan struct{}), make(chan struct{})}, ready: make(chan struct{}),
	}
	s.checker = admission.New(o.Config.Admission.Limits(), s.cache, s.portTo, now)
	for _, i := range o.Config.Interfaces {
		s.ports[i.Name] = &port{Interface: i, PortState: PortState{Name: i.Name}, public: share{burst: shareBurst}}
	}
	s.openControl()
	if err := s.restore(now); err != nil {
		return nil, err
	}
	s.restoreHealth(now)
	return s, nil
}

// Ready is closed when the kernel has taken a state, or the first one is held back on purpose.
func (s *Service) Ready() <-chan struct{} { return s.ready }

func (s *Service) serves() { s.serve.Do(func() { close(s.ready) }) }

// Turns are the loop's and the forwarder's.
func (s *Service) Turns() []chan<- struct{} { return []chan<- struct{}{s.turns[0], s.turns[1]} }

// String names the task.
func (s *Service) String() string { return "igmp" }

// Run works until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	if err := os.MkdirAll(s.Config.StateDir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	beside, stop := context.WithCancel(context.WithoutCancel(ctx))
	var workers sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error // of the forwarder; read when the workers have ended
	workers.Go(func() { s.fetcher.Run(beside) })
	workers.Go(func() { s.runForwarder(beside) })
	workers.Go(func() { s.runSnapshots(beside) })
	workers.Go(func() {
		if err := s.Forwarder.Run(beside); err != nil {
			failed = fmt.Errorf("forwarding: %w", err)
			cancel()
		}
	})
	s.refreshPorts(time.Now())
	s.settle(time.Now())
	if s.changed { // see holdUntil
		s.serves()
	}
	s.loop(ctx)
	s.save(time.Now())
	stop()
	workers.Wait()
	if err := s.Forwarder.Close(s.Keep || daemon.Keeps(ctx) || failed != nil); err != nil {
		return errors.Join(failed, fmt.Errorf("clean up forwarding: %w", err))
	}
	return failed
}

func (s *Service) loop(ctx context.Context) {
	tick := time.NewTicker(housekeeping)
	defer tick.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	if s.Control != nil {
		defer s.Control.Listen(s.control.mail.Put)()
	}
	for {
		if next := s.next(); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case p := <-s.Network.Packets():
			s.clock(time.Now())
			s.packet(time.Now(), p)
		case <-s.Network.Changed():
			s.refreshPorts(time.Now())
		case <-s.control.mail.Ready():
			s.heard(time.Now())
		case a := <-s.fetcher.Answers():
			s.answer(time.Now(), a)
		case <-timer.C:
			s.tick(time.Now())
		case <-tick.C:
			s.housekeep(time.Now())
		case call := <-s.calls:
			call()
		case <-s.turns[0]:
		}
		s.settle(time.Now())
	}
}

// tick lets timers of groups run out.
func (s *Service) tick(now time.Time) {
	if next := s.table.Next(); next.IsZero() || next.After(now) || !s.ticks.ready(now) {
		return
	}
	s.act(s.table.Tick(now))
	s.ticks.spend(now, time.Now())
}

// next is when the loop has to look again though nothing comes in.
func (s *Service) next() time.Time {
	next := s.table.Next()
	if !next.IsZero() {
		next = later(next, s.ticks.next())
	}
	earlier := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	if s.pending > 0 {
		earlier(s.relayAt)
	}
	if at := s.nextRefill(); !at.IsZero() {
		earlier(at)
	}
	if !s.saveAt.IsZero() {
		earlier(s.saveAt)
	}
	if s.changed {
		earlier(later(s.holdUntil, s.states.next()))
	}
	return next
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// settle carries out what has come together: questions for keys, relays, a new forwarding state.
func (s *Service) settle(now time.Time) {
	for _, q := range s.cache.Wanted() {
		s.fetcher.Ask(q)
	}
	s.refillPorts(now)
	if s.pending > 0 && (!now.Before(s.relayAt) || s.pending >= relayBatchMax) {
		s.sendRelays()
	}
	if s.changed && !now.Before(s.holdUntil) && s.states.ready(now) {
		s.changed = false
		began := time.Now()
		s.act(s.table.Settle())
		s.forward.put(s.state(now))
		s.states.spend(began, time.Now())
		s.saveSoon(now, snapshotSoon)
	}
	if !s.saveAt.IsZero() && !now.Before(s.saveAt) {
		s.save(now)
	}
}

func (s *Service) housekeep(now time.Time) {
	s.clock(now)
	if s.portsAgain {
		s.refreshPorts(now)
	}
	s.cache.Tick(now)
	for _, r := range s.checker.Expire(now) {
		s.verdict(now, r.Arrival, r.Verdict)
	}
}

// clock finds jumps of the wall clock against the monotonic one.
func (s *Service) clock(now time.Time) {
	jump := now.Round(0).Sub(s.last.Round(0)) - now.Sub(s.last)
	s.last = now
	if jump.Abs() > s.Config.Admission.Skew {
		s.Log.Warn("wall clock was set: joins stamped before now are not timely", "jump", jump)
		s.checker.Jumped(now)
	}
}

// answer takes a key's answer and judges the joins that waited for it.
func (s *Service) answer(now time.Time, a records.Answer) {
	if a.Err != nil {
		s.stats.warn(now, "group key", "group", a.Address, "err", a.Err)
	}
	s.cache.Put(now, a)
	for _, r := range s.checker.Resume(now, a.Address) {
		s.verdict(now, r.Arrival, r.Verdict)
	}
}

// do runs f in the loop.
func (s *Service) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case s.calls <- func() { f(); close(done) }:
	case <-ctx.Done():
		return fmt.Errorf("igmpd does not answer: %w", ctx.Err())
	}
	<-done
	return nil
}

func (s *Service) snapshotPath() string { return snapshotPath(s.Config.StateDir) }

func snapshotPath(stateDir string) string { return filepath.Join(stateDir, "snapshot.json") }
