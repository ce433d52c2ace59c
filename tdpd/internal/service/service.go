// Package service is the loop that owns tdpd's state: what comes in by sockets, netlink and time goes to discovery, sessions and
// labels, which are pure, and what they want is carried out in order.
package service

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
	"github.com/manycast/manycast/tdpd/internal/binding"
	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/discovery"
	"github.com/manycast/manycast/tdpd/internal/fec"
	"github.com/manycast/manycast/tdpd/internal/forwarding"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/routing"
	"github.com/manycast/manycast/tdpd/internal/transport"
	"github.com/manycast/manycast/tdpd/internal/vips"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// How much is taken before what it changes is carried out together.
const (
	atOnce     = 256    // events
	saysAtOnce = 10_000 // messages to peers that come of them, about
	turnAtMost = 100 * time.Millisecond
)

// A loop that is late by so much listens until it hears nothing for a while, though not for long, before it lets time pass.
const (
	lateBy        = 500 * time.Millisecond
	quietFor      = 20 * time.Millisecond
	catchUpWithin = 500 * time.Millisecond
)

// Journal keeps which label is whose beyond this process.
type Journal interface {
	Labels() map[netip.Prefix]wire.Label
	Set(bound map[netip.Prefix]wire.Label, unbound []netip.Prefix) error
	Close() error
	Remove() error
}

// UserStore keeps bindings of users beyond this process.
type UserStore interface {
	Load() (binding.Kept, error)
	Save(binding.Kept) error
	Touch(now time.Time) error
	Remove() error
}

// Options are what a Service works with. It closes Network, Kernel and Journal.
type Options struct {
	Config  config.Config
	Secrets map[netip.Addr]string // TCP MD5, by the peer's router id
	Network transport.Network
	Kernel  kernel.Backend
	Routes  <-chan routes.Change
	Servers <-chan []netip.Addr // all servers that services have now; nil: those of the configuration alone
	Journal Journal
	Log     *slog.Logger
	Keep    bool // a clean stop leaves the kernel's entries
	// Users keeps bindings of users beyond this process; nil: nothing does.
	Users UserStore
	// Steer brings users into what steers them, which Kernel has with it; nil: nothing does.
	Steer func(vips.Users) error
	// Counters are what was done to packets by what stands before Kernel, by name; nil: nothing does.
	Counters func() (map[string]uint64, error)
	// Control is the control channel; nil: there is none, and all servers are well.
	Control Control
	// Tagless has packets of users that came from a router without a tag, and went along a tree here; nil: nobody notices them.
	Tagless <-chan []vips.Tagless
	// Learned has what BGP neighbors tell of prefixes, as it changes; nil: there are none.
	Learned <-chan bgppolicy.Changes
	// Say is called by the loop with what BGP neighbors may be to know, when that has changed, and does not wait; nil: nobody is told.
	Say func(routing.View)
	// Announcer is asked what is announced by BGP; nil: nothing is.
	Announcer Announcer
	// FlowRules: Say is told whose users are whose, too.
	FlowRules bool
	// Publish is called by the loop for each event that others may want to know of, and does not wait; nil: nobody does.
	Publish func(Event)
}

// Service is the daemon's loop.
type Service struct {
	Options
	started   time.Time
	ready     chan struct{}
	turns     chan struct{}
	asks      chan func()
	discovery *discovery.Discovery
	peers     map[wire.Identifier]*peer
	strangers map[transport.Conn]*stranger
	fecs      *fec.FECs
	labels    *labels.Labels
	tables    *forwarding.Tables
	links     []discovery.Interface // that LDP runs on now
	servers   []netip.Addr          // that services have, as told last
	told      bool                  // they were told
	inputs    map[string]int        // interfaces of the configuration that exist, with their index, up or not
	plain     map[netip.Prefix]bool // see settlePlain
	outdoing  map[netip.Prefix]bool // routes that outdo their labels
	pending   batch
	kernel    kernelState
	users     userState
	learned   map[netip.Prefix]bgppolicy.Route // of BGP neighbors
	control   controlState
	counters  Counters
	unfit     time.Time // when a message that was not sent was told of
}

// Counters only grow.
type Counters struct {
	SessionsUp   uint64
	SessionsDown uint64
	Strangers    uint64 // connections refused: of nobody whose hellos are heard, or begun otherwise than a session
}

// New returns a Service that does nothing before Run.
func New(o Options) (*Service, error) {
	l, err := labels.New(o.Config.LabelsConfig())
	if err != nil {
		return nil, err
	}
	s := &Service{
		Options: o, ready: make(chan struct{}), turns: make(chan struct{}), asks: make(chan func()),
		discovery: discovery.New(o.Config.Discovery()), peers: map[wire.Identifier]*peer{}, strangers: map[transport.Conn]*stranger{},
		labels: l, tables: forwarding.New(), outdoing: map[netip.Prefix]bool{},
		learned: map[netip.Prefix]bgppolicy.Route{},
	}
	s.users = newUserState(s)
	s.fecs = fec.New(func(iface string) bool { return slices.Contains(o.Config.Interfaces, iface) }, o.Config.UsesTunnels())
	return s, nil
}

// String implements daemon.Task.
func (s *Service) String() string { return "tdpd" }

// Ready implements daemon.Task: closed when the routes that were there are in the kernel with their labels.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// Run works until ctx ends. Then sessions end, and all entries are removed, unless the daemon is restarted.
func (s *Service) Run(ctx context.Context) error {
	now := time.Now()
	s.started = now
	if err := s.restore(now); err != nil {
		return errors.Join(err, s.Kernel.Close(true))
	}
	s.setServers(now)
	defer s.openControl(now)()
	s.restoreUsers(now)
	due := now
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.stop(time.Now(), s.Keep || daemon.Keeps(ctx))
		case e := <-s.Network.Events():
			s.events(e)
		case c := <-s.Routes:
			s.routesChanged(time.Now(), c)
		case all := <-s.Servers:
			s.servers, s.told = all, true
			s.setServers(time.Now())
		case <-s.control.mail.Ready():
			s.heard(time.Now())
		case c := <-s.Learned:
			s.learnedChanged(time.Now(), c)
		case some := <-s.Tagless:
			s.taglessCame(time.Now(), some)
		case <-s.Kernel.Changed():
			s.meddled(time.Now())
		case f := <-s.asks:
			f()
		case <-s.turns:
		case <-timer.C:
			s.catchUp(due)
			s.tick(time.Now())
		}
		s.flush(time.Now())
		due = s.next(time.Now())
		timer.Reset(time.Until(due))
	}
}

// Turns implements daemon.Looper.
func (s *Service) Turns() []chan<- struct{} { return []chan<- struct{}{s.turns} }

// events takes what is there, that the kernel's tables change once for much.
func (s *Service) events(first transport.Event) {
	e, begun := first, time.Now()
	for range atOnce {
		s.event(time.Now(), e)
		if len(s.pending.says) >= saysAtOnce || time.Since(begun) >= turnAtMost {
			return
		}
		select {
		case e = <-s.Network.Events():
		default:
			return
		}
	}
}

// catchUp takes what has come while the loop, or the machine, stood still past the time when a tick was due: peers were not silent
// while nobody listened.
func (s *Service) catchUp(due time.Time) {
	if time.Since(due) < lateBy {
		return
	}
	for end := time.Now().Add(catchUpWithin); time.Now().Before(end); s.flush(time.Now()) {
		select {
		case e := <-s.Network.Events():
			s.events(e)
		case <-time.After(quietFor):
			return
		}
	}
}

// next is when something is to be done by itself.
func (s *Service) next(now time.Time) time.Time {
	next := now.Add(time.Hour)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	sooner(s.discovery.Next())
	sooner(s.labels.Next())
	sooner(s.kernel.retry)
	sooner(s.users.book.Next())
	sooner(s.users.retry)
	sooner(s.control.due)
	if due := s.users.due; s.kernel.synced && s.users.retry.Before(due) {
		sooner(due)
	}
	for _, b := range s.users.steered {
		if b.active != nil {
			sooner(b.active.Next())
		}
	}
	for _, p := range s.peers {
		sooner(p.session.Next())
	}
	for _, x := range s.strangers {
		sooner(x.until)
	}
	return next
}

func (s *Service) tick(now time.Time) {
	s.discovered(now, s.discovery.Tick(now))
	for _, p := range s.sortedPeers() {
		s.act(now, p, p.session.Tick(now))
	}
	s.turnAway(now)
	s.distribute(now, s.labels.Tick(now))
	s.steer(now, s.users.book.Tick(now))
	s.expireActive(now)
	if due := s.control.due; !due.IsZero() && !now.Before(due) {
		s.judge(now)
	}
}

// Do runs f in the loop.
func (s *Service) Do(ctx context.Context, f func(now time.Time)) error {
	done := make(chan struct{})
	ask := func() {
		defer close(done)
		f(time.Now())
	}
	select {
	case s.asks <- ask:
		<-done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stop ends the sessions; a restart says nothing to peers, who keep our labels for a while (RFC 3478).
func (s *Service) stop(now time.Time, keep bool) error {
	for _, p := range s.sortedPeers() {
		s.act(now, p, p.session.Shutdown(now, wire.StatusShutdown, keep))
	}
	s.pending = batch{}
	s.Network.Close()
	if keep {
		return errors.Join(s.Kernel.Close(true), s.Journal.Close())
	}
	return errors.Join(s.Kernel.Close(false), s.Journal.Remove(), s.forgetUsers())
}
