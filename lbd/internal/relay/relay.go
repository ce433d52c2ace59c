package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/lbd/internal/relay/exchange"
	"github.com/manycast/manycast/lbd/migrate"
)

// Config is of a Relay.
type Config struct {
	Listens        []Listen
	Agent          string        // path of the agent's unix socket
	Connections    int           // users' at a time; further ones wait
	ConnectTimeout time.Duration // to a backend
	StopTimeout    time.Duration // requests that are on their way at the end of Run may take
	Log            *slog.Logger

	listen  func(ctx context.Context, at string) (net.Listener, error) // nil: listen
	finWait time.Duration                                              // 0: finWait
}

// Relay carries users' connections to backends. It is a daemon.Task, and a prometheus.Collector.
type Relay struct {
	config   Config
	fronts   []front
	places   chan struct{} // one for each connection
	buffers  *buffers
	counters counters

	mu       sync.Mutex
	sessions map[*session]struct{}
}

// front is an address at which users come.
type front struct {
	listener *migrate.Listener
	backend  backend
}

var _ daemon.Task = (*Relay)(nil)

// New takes the addresses, so that one that is in use is found at the start. Run has to follow.
func New(c Config) (*Relay, error) {
	if c.listen == nil {
		c.listen = listen
	}
	if c.finWait == 0 {
		c.finWait = finWait
	}
	r := &Relay{config: c, places: make(chan struct{}, c.Connections), buffers: newBuffers(), sessions: map[*session]struct{}{}}
	r.counters.stay = map[string]uint64{}
	for _, l := range c.Listens {
		for _, at := range l.Addresses {
			f, err := c.front(l, at)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("listen %s at %v: %w", l.Name, at, err), r.closeListeners())
			}
			r.fronts = append(r.fronts, f)
		}
	}
	return r, nil
}

func (c Config) front(l Listen, at netip.AddrPort) (front, error) {
	tcp, err := c.listen(context.Background(), at.String())
	if err != nil {
		return front{}, explain(err)
	}
	m, err := migrate.NewListener(tcp.(*net.TCPListener), migrate.Options{
		Agent: c.Agent, Name: l.Name, Movable: migrate.Later, Check: checkState, Logger: c.Log,
	})
	return front{m, newBackend(l, c.ConnectTimeout)}, err
}

// listen takes a VIP, also before the agent has added it to this host. Connections of MPTCP could not be moved.
func listen(ctx context.Context, at string) (net.Listener, error) {
	l := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return setOptions(raw, []option{{unix.SOL_IP, unix.IP_FREEBIND}})
	}}
	l.SetMultipathTCP(false)
	return l.Listen(ctx, "tcp", at)
}

// explain adds what to do.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EACCES):
		return errors.Join(err, daemon.Require(daemon.Need{Capability: daemon.NetBindService, To: "listen on ports below 1024"}))
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w: the server itself may be there, or at all addresses of the port: have it listen at the backend's address alone", err)
	}
	return err
}

func (r *Relay) closeListeners() error {
	var errs []error
	for _, f := range r.fronts {
		errs = append(errs, f.listener.Close())
	}
	return errors.Join(errs...)
}

// String names the task.
func (r *Relay) String() string { return "relay" }

// Ready is nil: users can connect since New.
func (r *Relay) Ready() <-chan struct{} { return nil }

// Run carries until ctx is done. Then no connection begins or arrives, those between requests end, and the others have StopTimeout for theirs.
func (r *Relay) Run(ctx context.Context) error {
	accepting, cancel := context.WithCancel(ctx)
	defer cancel()
	var loops, sessions sync.WaitGroup
	failed := make(chan error, len(r.fronts))
	for _, f := range r.fronts {
		loops.Go(func() {
			defer cancel()
			failed <- r.accept(accepting, f, &sessions)
		})
	}
	<-accepting.Done()
	errs := []error{r.closeListeners()} // ends the loops
	loops.Wait()
	close(failed)
	for err := range failed {
		errs = append(errs, err)
	}
	r.finish(&sessions)
	return errors.Join(errs...)
}

// finish ends the sessions.
func (r *Relay) finish(sessions *sync.WaitGroup) {
	for _, s := range r.all() {
		s.stop()
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		sessions.Wait()
	}()
	select {
	case <-ended:
		return
	case <-time.After(r.config.StopTimeout):
	}
	left := r.all()
	r.config.Log.Warn("requests end with the relay", "connections", len(left))
	for _, s := range left {
		s.reset()
	}
	<-ended
}

// again is how long a listener waits for what an accept needs and is not there.
const again = 100 * time.Millisecond

func (r *Relay) accept(ctx context.Context, f front, sessions *sync.WaitGroup) error {
	for {
		conn, err := f.listener.Accept()
		switch {
		case err == nil:
			select {
			case r.places <- struct{}{}:
				r.begin(f.backend, conn.(*migrate.Conn), sessions)
			case <-ctx.Done():
				conn.Close()
			}
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ECONNABORTED):
			r.config.Log.Warn("a user waits", "err", err)
			time.Sleep(again)
		default:
			return fmt.Errorf("accept users: %w", err)
		}
	}
}

// begin has a connection, which has a place, served until its end.
func (r *Relay) begin(b backend, user *migrate.Conn, sessions *sync.WaitGroup) {
	s, err := newSession(r, b, user)
	if err != nil { // checkState has read it before
		r.config.Log.Error("a connection that arrived cannot go on", "err", err)
		user.Close()
		<-r.places
		return
	}
	if _, ok := user.Imported(); ok {
		r.counters.arrived.Add(1)
	} else {
		r.counters.accepted.Add(1)
	}
	r.add(s)
	sessions.Go(func() {
		s.serve()
		r.remove(s)
		<-r.places
	})
}

// reached says what became of a connection to a backend; the log has it when that changes.
func (r *Relay) reached(b backend, err error) {
	switch {
	case err != nil:
		r.counters.unreachable.Add(1)
		if b.failing.CompareAndSwap(false, true) {
			r.config.Log.Warn("the backend cannot be reached: its users are refused", "backend", b.address, "err", err)
		}
	case b.failing.CompareAndSwap(true, false):
		r.config.Log.Info("the backend can be reached again", "backend", b.address)
	}
}

func (r *Relay) add(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions[s] = struct{}{}
}

func (r *Relay) remove(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, s)
}

func (r *Relay) all() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*session, 0, len(r.sessions))
	for s := range r.sessions {
		all = append(all, s)
	}
	return all
}

// modes are how many connections are at what; all are there, with 0 where there is none.
func (r *Relay) modes() map[string]int {
	modes := map[string]int{modeBetween: 0, modeInRequest: 0}
	for _, why := range exchange.Reasons {
		modes[string(why)] = 0
	}
	for _, s := range r.all() {
		s.mu.Lock()
		modes[s.mode()]++
		s.mu.Unlock()
	}
	return modes
}
