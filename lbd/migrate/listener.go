package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// DefaultAgent is where the agent listens unless it is configured otherwise.
const DefaultAgent = "/run/manycast/agent/migrate.sock"

// DefaultBacklog is the Backlog of Options that say none.
const DefaultBacklog = 1024

// Options are of a Listener. The zero Options are good ones.
type Options struct {
	// Agent is the path of the agent's unix socket; empty: DefaultAgent. Nobody needs to be there.
	Agent string
	// Name is the listener's, for the agent's log and counters: at most 255 bytes.
	Name string
	// Movable is what holds for a connection until its SetMovable is called, the zero value Never. Later keeps requests waiting that
	// come before the application has got that far.
	Movable When
	// Check looks at what another server's application gave to Move. With an error the connection is refused, and goes on where it was: for
	// bytes of a version that this one cannot read. It must not wait for anything. nil: all are taken.
	Check func(state []byte) error
	// Backlog bounds the connections that have arrived and are not accepted yet; 0: DefaultBacklog.
	Backlog int
	// Logger hears when the agent comes and goes; nil: nobody.
	Logger *slog.Logger
}

// Listener is a net.Listener. Its Accept returns new connections, and those that have arrived from other servers.
type Listener struct {
	tcp     *net.TCPListener
	options Options
	log     *slog.Logger
	listens []netip.AddrPort
	frozen  func(*net.TCPConn) bool // whether the kernel says that the agent has it in repair mode
	unused  context.CancelFunc      // the link is of no use any more

	mu       sync.Mutex
	conns    map[flow]*Conn
	arrived  []*Conn // a past deadline wakes Accept as long as there are any
	expected int     // taken, not live yet
	closed   bool
	link     *link
}

// Listen listens as net.Listen does, for "tcp", "tcp4" and "tcp6".
func Listen(network, address string, o Options) (*Listener, error) {
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("listen %s %s: only connections of TCP can move", network, address)
	}
	return NewListener(tcp, o)
}

// NewListener makes a Listener of one that exists: of a net.ListenConfig, or given by the service manager. Its Close closes l.
func NewListener(l *net.TCPListener, o Options) (*Listener, error) {
	if o.Agent == "" {
		o.Agent = DefaultAgent
	}
	if o.Backlog == 0 {
		o.Backlog = DefaultBacklog
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if strings.HasPrefix(o.Agent, "@") {
		l.Close()
		return nil, fmt.Errorf("agent %q: a path is needed, anybody could listen at an abstract name", o.Agent)
	}
	listens, err := listensAt(l)
	if err != nil {
		l.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &Listener{
		tcp: l, options: o, log: o.Logger.With("listener", o.Name), listens: listens, frozen: inRepair,
		unused: cancel, conns: map[flow]*Conn{},
	}
	go m.attend(ctx)
	return m, nil
}

// attend keeps a link to the agent.
func (l *Listener) attend(ctx context.Context) {
	for ctx.Err() == nil {
		k, err := dial(l)
		if err != nil {
			l.log.Debug("no agent: connections stay here", "agent", l.options.Agent, "err", err)
		} else {
			l.log.Info("the agent is there: connections can move", "agent", l.options.Agent)
			err = l.serve(ctx, k)
			if ctx.Err() == nil {
				l.log.Warn("the agent is lost: connections stay here until it is back", "agent", l.options.Agent, "err", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
		}
	}
}

func (l *Listener) serve(ctx context.Context, k *link) error {
	defer context.AfterFunc(ctx, func() { k.conn.Close() })()
	l.setLink(k)
	defer l.setLink(nil)
	return k.serve()
}

func (l *Listener) setLink(k *link) {
	l.mu.Lock()
	l.link = k
	closed := l.closed
	l.mu.Unlock()
	if closed && k != nil { // since it said hello
		k.hello()
	}
}

// Accept is as of net.Listener. The connections are *Conn; see Conn.Imported for whence one comes.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		if c := l.pop(); c != nil {
			return c, nil
		}
		tcp, err := l.tcp.AcceptTCP()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return nil, err
		}
		c := newConn(tcp, l)
		l.add(c)
		return c, nil
	}
}

// Close is as of net.Listener: connections that have been accepted go on, and can leave. None arrive any more.
func (l *Listener) Close() error {
	l.mu.Lock()
	err := l.tcp.Close()
	l.closed = true
	waiting, k := l.arrived, l.link
	l.arrived = nil
	l.mu.Unlock()
	if k != nil {
		k.hello()
	}
	for _, c := range waiting {
		c.Close()
	}
	l.release(0)
	return err
}

// Addr is as of net.Listener.
func (l *Listener) Addr() net.Addr { return l.tcp.Addr() }

// addresses are those at which connections may arrive.
func (l *Listener) addresses() []netip.AddrPort {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	return slices.Clone(l.listens)
}

func (l *Listener) conn(f flow) *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns[f]
}

// add has the agent's questions for the connection find it. An older one of the same addresses is dead.
func (l *Listener) add(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c.flow] = c
}

func (l *Listener) remove(c *Conn) {
	l.mu.Lock()
	if l.conns[c.flow] == c {
		delete(l.conns, c.flow)
	}
	l.mu.Unlock()
	l.release(0)
}

// release gives n places of arrivals free, and ends the link where it has no use any more.
func (l *Listener) release(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expected -= n
	if l.closed && len(l.conns) == 0 && l.expected == 0 {
		l.unused()
	}
}

// take makes a connection of a descriptor, and keeps a place for it.
func (l *Listener) take(fd int, state []byte) (*Conn, error) {
	tcp, err := tcpConn(fd)
	if err != nil {
		return nil, err
	}
	if l.options.Check != nil {
		err = l.options.Check(state)
	}
	if err == nil {
		err = l.expect()
	}
	if err != nil {
		tcp.Close() // in repair mode, and the agent has its own descriptor: nobody hears it
		return nil, err
	}
	c := newConn(tcp, l)
	c.state, c.arrived = state, true
	return c, nil
}

func (l *Listener) expect() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return errors.New("the listener is closed")
	case l.expected+len(l.arrived) >= l.options.Backlog:
		return errors.New("too many connections wait to be accepted")
	}
	l.expected++
	return nil
}

// push has Accept return a connection that is live.
func (l *Listener) push(c *Conn) {
	l.add(c)
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.arrived = append(l.arrived, c)
		_ = l.tcp.SetDeadline(past)
	}
	l.mu.Unlock()
	if closed {
		c.Close()
	}
	l.release(1)
}

func (l *Listener) pop() *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.arrived) == 0 {
		return nil
	}
	c := l.arrived[0]
	l.arrived = l.arrived[1:]
	if len(l.arrived) == 0 && !l.closed {
		l.arrived = nil
		_ = l.tcp.SetDeadline(time.Time{})
	}
	return c
}

// drop closes a connection that arrived and did not become live: in repair mode nobody hears it. If it has just been taken out of
// that, what the agent had to send first may be missing: then its user hears a reset.
func (l *Listener) drop(c *Conn) {
	_ = c.tcp.SetLinger(0)
	c.tcp.Close()
	l.release(1)
}
