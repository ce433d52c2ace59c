package serving

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
	"github.com/manycast/manycast/lbd/internal/newest"
)

// Config is what a Loop works with.
type Config struct {
	Addresses []netip.Addr // this server's, one of a family: connections live there, at their service's port
	// Open is kernel.OpenServer: it is called when the first dynamic service comes.
	Open func() (kernel.Server, error)
	// Keep leaves the programs in place when the loop ends.
	Keep bool
	// Sign is a servicekey.Ring's.
	Sign movement.Signer
	// Send sends a message to a user's host.
	Send func(user netip.Addr, message []byte) error
	// FlowOf is the function of that name.
	FlowOf func(fd int) (kernel.Flow, error)
	// Knows reports whether the kernel's socket table has a connection: dataplane.Forwarder's.
	Knows func(kernel.Flow) (bool, error)
	// Connected are the users of the TCP connections to addresses and ports: dataplane.ConnectedUsers.
	Connected func(ctx context.Context, vips []netip.Addr, ports []service.Port) ([]netip.AddrPort, error)
	Limits    movement.AnnouncerLimits
	Log       *slog.Logger
}

// Times and sizes.
const (
	sweepEvery = 5 * time.Second // how often it is asked which connections are over
	followFor  = time.Hour       // how long a user may go on sending to where its connection was
	followsMax = 1 << 16         // of these; then the oldest are left alone
	freshFor   = 2 * time.Second // how long a clean stop waits for the user of a connection that has left to follow it
	quietFor   = time.Second     // how long nobody has sent to where its connection was when a clean stop goes on
)

// Loop owns the programs and the announcer; a daemon's task.
type Loop struct {
	cfg  Config
	told newest.Value[[]service.Service]
	kick chan struct{} // something else is due
	turn chan struct{}

	mu        sync.Mutex
	server    kernel.Server // nil: not open
	places    map[netip.AddrPort]netip.AddrPort
	announcer *movement.Announcer
	moves     map[kernel.Flow]wire.Change // the last ones, of connections that are here
	taken     []taken                     // that live here, and are yet to be announced
	follows   follows
	late      lateness
	unsent    uint64
	failed    string // the last error of the programs
}

// taken is a connection that has come here, and where it has been.
type taken struct {
	wire.Change
	places []netip.AddrPort
}

// New returns a Loop that has yet to run.
func New(cfg Config) *Loop {
	return &Loop{
		cfg: cfg, told: newest.New[[]service.Service](), kick: make(chan struct{}, 1), turn: make(chan struct{}),
		announcer: movement.NewAnnouncer(cfg.Limits, cfg.Sign), moves: map[kernel.Flow]wire.Change{}, follows: newFollows(),
	}
}

// String names the task.
func (l *Loop) String() string { return "dynamic tcp" }

// Ready is nil: connections are plain until it is.
func (l *Loop) Ready() <-chan struct{} { return nil }

// Turns is the loop's.
func (l *Loop) Turns() []chan<- struct{} { return []chan<- struct{}{l.turn} }

// Set makes services all that this server executes. Any goroutine may call it; it does not wait.
func (l *Loop) Set(all []service.Service) { l.told.Set(all) }

// Run works until ctx is done.
func (l *Loop) Run(ctx context.Context) error {
	timer, sweep := time.NewTimer(time.Hour), time.NewTicker(sweepEvery)
	defer timer.Stop()
	defer sweep.Stop()
	var heard <-chan kernel.Heard
	for {
		select {
		case <-ctx.Done():
			return l.close(l.cfg.Keep || daemon.Keeps(ctx))
		case all := <-l.told:
			heard = l.set(ctx, l.services(all))
		case h, ok := <-heard:
			if !ok {
				heard = nil
				continue
			}
			l.heard(h)
		case <-sweep.C:
			l.sweep()
		case <-timer.C:
			l.act(func(now time.Time) []movement.Action { return l.announcer.Tick(now) })
		case <-l.kick:
			l.announce()
		case <-l.turn:
		}
		l.setTimer(timer)
	}
}

func (l *Loop) close(keep bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.server == nil {
		return nil
	}
	s := l.server
	l.server = nil
	return s.Close(keep)
}

func (l *Loop) setTimer(timer *time.Timer) {
	l.mu.Lock()
	next := l.announcer.Next()
	l.mu.Unlock()
	if next.IsZero() {
		timer.Stop()
		return
	}
	timer.Reset(time.Until(next))
}

// services are those whose connections live at this server's addresses, each with its port.
func (l *Loop) services(all []service.Service) (out []kernel.ServerService) {
	for _, s := range all {
		for _, vip := range s.Ends() {
			for _, a := range l.cfg.Addresses {
				if vip.Addr().Is4() == a.Is4() && s.Dynamic.At(a) {
					out = append(out, kernel.ServerService{VIP: vip, Destination: netip.AddrPortFrom(a, vip.Port())})
				}
			}
		}
	}
	return out
}

// set has the programs do what the services say. What cannot be is told: connections are plain then.
func (l *Loop) set(ctx context.Context, services []kernel.ServerService) <-chan kernel.Heard {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.server == nil && len(services) > 0 {
		s, err := l.cfg.Open()
		if l.fails(err) {
			return nil
		}
		l.server = s
	}
	if l.server == nil {
		return nil
	}
	places := make(map[netip.AddrPort]netip.AddrPort, len(services))
	for _, s := range services {
		places[s.VIP] = s.Destination
	}
	if l.places != nil && maps.Equal(places, l.places) { // to set them walks through all listeners
		return l.server.Heard()
	}
	if !l.fails(l.server.Set(services)) {
		began := l.places == nil
		l.places = places
		if began {
			l.keepFollows(time.Now())
			l.resume(ctx)
		}
	}
	return l.server.Heard()
}

// keepFollows goes on with flows that left in a former process's time: since when, nobody knows. Those that are here again are no more.
func (l *Loop) keepFollows(now time.Time) {
	flows, err := l.server.Followed()
	if err != nil {
		l.cfg.Log.Warn("flows that have left", "err", err)
	}
	for _, flow := range flows {
		if known, err := l.cfg.Knows(flow); err == nil && known {
			l.forget([]kernel.Flow{flow})
			continue
		}
		l.forget(l.follows.add(now, flow))
	}
}

// lateness is when a user was last seen to send to where its connection was.
type lateness struct {
	followed uint64 // kernel.ServerCounters.Followed then
	at       time.Time
}

// Leaves reports whether users of connections that have left may be about to follow, or send here still: to stop now would reset them. A user who
// has nothing to say is not waited for beyond the time in which an announcement is heard. Any goroutine may call it, again and again.
func (l *Loop) Leaves() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.server == nil || len(l.follows.since) == 0 {
		return false
	}
	now := time.Now()
	if c, err := l.server.Counters(); err == nil && (l.late.at.IsZero() || c.Followed != l.late.followed) {
		l.late = lateness{c.Followed, now}
	}
	return now.Sub(l.late.at) < quietFor || now.Sub(l.follows.latest()) < freshFor
}

// resume announces connections whose users a former process has not heard here. Where they may be, nobody knows any more.
func (l *Loop) resume(ctx context.Context) {
	for vip := range l.places {
		users, err := l.cfg.Connected(ctx, []netip.Addr{vip.Addr()}, []service.Port{{Proto: "tcp", Number: vip.Port()}})
		if err != nil {
			l.cfg.Log.Warn("users of connections that were here before are told of a move only when they are heard elsewhere", "vip", vip, "err", err)
			continue
		}
		for _, user := range users {
			flow := kernel.Flow{User: user, VIP: vip}
			h, err := l.server.Find(flow)
			if err == nil && h.Sequence != 0 && !h.Heard {
				l.carryOut(l.again(time.Now(), flow, h))
			}
		}
	}
}

// again announces a connection of which the announcer knows nothing. Its sequence stays: who has followed it is where the connection is. Where it was
// before is not known any more; it began at the VIP.
func (l *Loop) again(now time.Time, flow kernel.Flow, h kernel.Held) []movement.Action {
	c := wire.Change{Tag: h.Tag, Cookie: h.Cookie, User: flow.User, VIP: flow.VIP, Old: flow.VIP, New: h.Destination, Sequence: h.Sequence}
	l.moves[flow] = c
	return l.announcer.Took(now, c, nil)
}

// fails tells an error that stays once.
func (l *Loop) fails(err error) bool {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != l.failed {
		l.cfg.Log.Warn("dynamic TCP: connections do not say where they live", "err", err)
	}
	l.failed = text
	return err != nil
}

// act has the announcer do something, and does what it says. l.mu is free.
func (l *Loop) act(what func(now time.Time) []movement.Action) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.announceTaken(now)
	l.carryOut(what(now))
}

func (l *Loop) carryOut(actions []movement.Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case movement.Send:
			if err := l.cfg.Send(a.Flow.User.Addr(), a.Raw); err != nil {
				l.unsent++
				l.cfg.Log.Debug("change of destination is not sent", "flow", a.Flow, "err", err)
			}
		case movement.Listen:
			if l.server == nil {
				continue
			}
			if err := l.server.Listen(kernel.Flow(a.Flow)); err != nil {
				l.cfg.Log.Debug("the user is not listened to again", "flow", a.Flow, "err", err)
			}
		case movement.Report:
			l.cfg.Log.Debug("change of destination", "flow", a.Flow, "sequence", a.Sequence, "outcome", a.Outcome, "sent", a.Sent, "after", a.After)
		}
	}
	l.wake()
}

func (l *Loop) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// heard: an earlier move's segment says nothing of this one. Who is elsewhere, and of whose move nothing is known, was told by a former process alone.
func (l *Loop) heard(h kernel.Heard) {
	l.act(func(now time.Time) []movement.Action {
		m, ok := l.moves[h.Flow]
		if !ok && h.Elsewhere {
			if held, err := l.server.Find(h.Flow); err == nil && held.Sequence == h.Sequence {
				return l.again(now, h.Flow, held)
			}
		}
		if !ok || m.Sequence != h.Sequence {
			return nil
		}
		at := m.New
		if h.Elsewhere {
			at = m.VIP // so the other server has sent it on, whatever its user sent it to
		}
		return l.announcer.Heard(now, movement.Flow(h.Flow), at)
	})
}

// sweep forgets connections that are over, and flows that left long ago.
func (l *Loop) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	var actions []movement.Action
	for flow := range l.moves {
		if known, err := l.cfg.Knows(flow); err == nil && !known {
			delete(l.moves, flow)
			actions = append(actions, l.announcer.Gone(now, movement.Flow(flow))...)
		}
	}
	l.carryOut(actions)
	l.forget(l.follows.over(now))
}

// Open reports whether the programs are there.
func (l *Loop) Open() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.places != nil
}

// held is what is known of a socket's connection; false: it is plain.
func (l *Loop) held(fd int) (kernel.Held, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.server == nil {
		return kernel.Held{}, false
	}
	h, err := l.server.Held(fd)
	return h, err == nil
}

// giving is what goes along with a connection, of which nothing is said any more.
func (l *Loop) giving(flow kernel.Flow, h kernel.Held) State {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.announceTaken(time.Now()) // else its places would not be known
	s := State{Tag: h.Tag, Cookie: h.Cookie, Sequence: h.Sequence, Destination: h.Destination}
	switch places, known := l.announcer.Places(time.Now(), movement.Flow(flow)); {
	case known:
		s.Places = places
	case h.Sequence == 0: // it began here
		s.Places = []netip.AddrPort{flow.VIP, h.Destination}
	}
	l.announcer.Held(movement.Flow(flow))
	return s
}

// stays: it was not given away.
func (l *Loop) stays(flow kernel.Flow) {
	l.act(func(now time.Time) []movement.Action { return l.announcer.Released(now, movement.Flow(flow)) })
}

// given: it was. What its user sends here goes to the VIP, and the data plane knows whose it is.
func (l *Loop) given(flow kernel.Flow) {
	l.act(func(now time.Time) []movement.Action {
		delete(l.moves, flow)
		if l.server != nil {
			if err := l.server.Follow([]kernel.Flow{flow}); err != nil {
				l.cfg.Log.Warn("packets of a connection that was given away are not sent on", "flow", flow, "err", err)
			}
			l.forget(l.follows.add(now, flow))
		}
		return l.announcer.Gone(now, movement.Flow(flow))
	})
}

func (l *Loop) forget(flows []kernel.Flow) {
	if len(flows) == 0 || l.server == nil {
		return
	}
	if err := l.server.Forget(flows); err != nil {
		l.cfg.Log.Warn("flows that have left", "err", err)
	}
}

// adopt says where a connection lives now, and has its user told of; it returns what is to be announced.
func (l *Loop) adopt(fd int, flow kernel.Flow, s State) (wire.Change, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	here, ok := l.places[flow.VIP]
	if l.server == nil || !ok {
		return wire.Change{}, fmt.Errorf("connection of %s can move, but not to here: its service is not dynamic at %v", flow, l.cfg.Addresses)
	}
	if here == s.Destination || here.Addr().Is4() != s.Destination.Addr().Is4() {
		return wire.Change{}, fmt.Errorf("connection of %s comes from %v, and would live at %v", flow, s.Destination, here)
	}
	c := wire.Change{
		Tag: s.Tag, Cookie: s.Cookie, User: flow.User, VIP: flow.VIP, Old: s.Destination, New: here, Sequence: movement.NextSequence(s.Sequence, time.Now()),
	}
	err := l.server.Adopt(fd, kernel.Held{Tag: c.Tag, Cookie: c.Cookie, Sequence: c.Sequence, Destination: here})
	if err == nil && l.follows.remove(flow) {
		l.forget([]kernel.Flow{flow})
	}
	return c, err
}

// took has the loop announce a connection that lives here. It does not wait for the signature: its application does neither.
func (l *Loop) took(c wire.Change, places []netip.AddrPort) {
	l.mu.Lock()
	l.taken = append(l.taken, taken{c, places})
	l.mu.Unlock()
	l.wake()
}

func (l *Loop) announce() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.announceTaken(time.Now())
}

// announceTaken announces what took was told of. l.mu is held.
func (l *Loop) announceTaken(now time.Time) {
	for _, t := range l.taken {
		l.moves[kernel.Flow{User: t.User, VIP: t.VIP}] = t.Change
		l.carryOut(l.announcer.Took(now, t.Change, t.places))
	}
	l.taken = nil
}

// Counters are totals since the start, and how many connections that moved here are here.
type Counters struct {
	movement.AnnouncerCounters
	Unsent  uint64 // messages that the kernel did not take
	Doubted uint64 // kernel.ServerCounters.Doubted
	Here    int
}

// Counters may be called by any goroutine.
func (l *Loop) Counters() Counters {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := Counters{AnnouncerCounters: l.announcer.Counters(), Unsent: l.unsent, Here: len(l.moves)}
	if l.server != nil {
		if n, err := l.server.Counters(); err == nil {
			c.Doubted = n.Doubted
		}
	}
	return c
}
