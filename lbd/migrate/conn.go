package migrate

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/manycast/manycast/lbd/migrate/wire"
)

// MaxState is how many bytes of the application's own can travel with a connection: 1 MiB.
const MaxState = wire.MaxState

var (
	// ErrMoving is returned by Read and Write, with what was read or written before, when the connection is asked to leave. So
	// they do until the application has called Move or Stay.
	ErrMoving = errors.New("the connection is asked to move")
	// ErrMoved is returned by Read and Write after the connection has left.
	ErrMoved = errors.New("the connection has moved")
	// ErrStays is wrapped by the errors of Move that mean: the connection is still here, go on with it.
	ErrStays = errors.New("the connection stays")
)

// When says whether the connection may be asked to leave. See Conn.SetMovable.
type When int

const (
	Never When = iota // a request to leave is declined
	Later             // it waits, as long as who asks has patience
	Now               // Read and Write return ErrMoving
)

// Conn is a TCP connection that can leave this process, and may have come from another one. It is a net.Conn, and as
// safe for concurrent use as one.
type Conn struct {
	tcp      *net.TCPConn
	listener *Listener
	flow     flow
	state    []byte
	arrived  bool

	mu       sync.Mutex
	idle     sync.Cond // busy has become 0
	phase    phase
	when     When
	ask      *ask // nil: nobody wants it to leave
	next     *ask // came before it was known how the one before ended
	closed   bool
	busy     int    // calls of Read and Write under way
	turn     uint64 // how often the phase has changed: who was interrupted in another turn tries again
	moving   chan struct{}
	readBy   time.Time // the application's deadlines
	writeBy  time.Time
	answered chan struct{} // closed when what was given is settled
}

type flow struct{ local, remote netip.AddrPort }

// phase says whose the connection is.
type phase int

const (
	here   phase = iota // the application's
	asked               // the application's, which is to say Move or Stay; where ask is nil, nobody waits for that any more
	given               // nobody's: the agent tells how it ends
	moved               // somebody else's
	failed              // given, and here again, but closed meanwhile
)

func newConn(tcp *net.TCPConn, l *Listener) *Conn {
	c := &Conn{
		tcp: tcp, listener: l, moving: make(chan struct{}), when: l.options.Movable,
		flow: flow{addrPort(tcp.LocalAddr()), addrPort(tcp.RemoteAddr())},
	}
	c.idle.L = &c.mu
	return c
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return plain(tcp.AddrPort())
}

// plain is an address as the protocol has it: IPv4 as such, no zone.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// Imported returns what the application on the other server gave to Move, and true, where the connection has come from there. The bytes are
// not copied.
func (c *Conn) Imported() (state []byte, ok bool) { return c.state, c.arrived }

// SetMovable says whether the connection may be asked to leave. At first that is what the Options say. An application that serves requests says Now
// while it waits for one, and Later while it works on one. Never is for what cannot be taken along any more: after the start of TLS, say.
func (c *Conn) SetMovable(when When) {
	c.mu.Lock()
	c.when = when
	switch {
	case c.phase == here && when == Now && c.ask != nil:
		c.interrupt()
	case c.phase == asked && when != Now:
		c.resume()
	}
	var declined *ask
	if when == Never && c.phase == here {
		declined, c.ask = c.ask, nil
	}
	c.mu.Unlock()
	declined.stays("the application does not move it any more")
}

// Moving returns a channel that is closed when Read and Write begin to return ErrMoving, for goroutines that wait for something
// else. After an end of Move or Stay by which the connection is still here ask for a new one.
func (c *Conn) Moving() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moving
}

// Move gives the connection away, together with the application's own bytes, after ErrMoving. What has been read is in state or lost: the
// goroutines that read and write are to have stopped, buffers included; what has been written is taken care of. Move waits
// until it is known how the attempt ended. It returns nil where the connection has left: what is left here is a shell to be
// closed. With an error that wraps ErrStays it is here and as it was, and so are the application's bytes: go on. Any
// other error is of a connection that has been closed.
func (c *Conn) Move(state []byte) error {
	a, err := c.give(state)
	if err != nil {
		return err
	}
	a.give(c, state)
	<-c.answered
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.phase {
	case moved:
		return nil
	case failed:
		return net.ErrClosed
	default:
		return fmt.Errorf("%w: it was given back", ErrStays)
	}
}

// give begins a Move: from now on nobody here uses the connection.
func (c *Conn) give(state []byte) (*ask, error) {
	if len(state) > MaxState {
		err := fmt.Errorf("state of %d bytes, at most %d can move", len(state), MaxState)
		c.Stay(err.Error())
		return nil, fmt.Errorf("%w: %w", ErrStays, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.phase == asked && c.busy > 0 {
		c.idle.Wait()
	}
	switch {
	case c.closed:
		return nil, net.ErrClosed
	case c.phase != asked:
		return nil, fmt.Errorf("%w: it is not asked to move", ErrStays)
	case c.ask == nil:
		c.resume()
		return nil, fmt.Errorf("%w: it is not asked to move any more", ErrStays)
	}
	c.phase = given
	c.answered = make(chan struct{})
	return c.ask, nil
}

// Stay declines, after ErrMoving: Read and Write go on. The reason, a few words that are the same each time, is counted by the agent.
func (c *Conn) Stay(reason string) {
	c.mu.Lock()
	var declined *ask
	if c.phase == asked {
		declined, c.ask = c.ask, nil
		c.resume()
	}
	c.mu.Unlock()
	declined.stays(reason)
}

// asks is a request to leave.
func (c *Conn) asks(a *ask) {
	c.mu.Lock()
	reason := ""
	switch {
	case c.closed:
		reason = "closed"
	case c.next != nil || c.ask != nil && c.phase != given:
		reason = "asked already"
	case c.when == Never:
		reason = "the application does not move it"
	case c.phase == given: // what was cancelled when it had just been given comes back
		c.next = a
	default:
		c.ask = a
		if c.when == Now && c.phase == here {
			c.interrupt()
		}
	}
	c.mu.Unlock()
	if reason != "" {
		a.stays(reason)
	}
}

// cancel ends a request that has not been answered, and reports whether it did. What is given is settled by the agent. One of the application's
// goroutines may have heard ErrMoving: so do the others, until Move or Stay.
func (c *Conn) cancel(a *ask) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == a {
		c.next = nil
		return true
	}
	if c.ask != a || c.phase == given {
		return false
	}
	c.ask = nil
	return true
}

// settle ends what was given: it is elsewhere, or still here.
func (c *Conn) settle(a *ask, elsewhere bool) {
	c.mu.Lock()
	if c.ask != a || c.phase != given {
		c.mu.Unlock()
		return
	}
	next := c.next
	c.ask, c.next = nil, nil
	switch {
	case elsewhere:
		c.phase = moved
	case c.closed:
		c.phase = failed
	default:
		c.resume()
	}
	if c.phase != here {
		c.tcp.Close()
		c.listener.remove(c)
	}
	close(c.answered)
	c.mu.Unlock()
	switch {
	case next == nil:
	case elsewhere:
		next.stays("it has moved")
	default:
		c.asks(next)
	}
}

// lost ends a request whose agent is gone. It is called with the link closed at the agent's end: whatever the agent did with the
// descriptor, it is done.
func (c *Conn) lost(a *ask) {
	c.cancel(a)
	c.settle(a, c.listener.frozen(c.tcp))
}

// past is a deadline that interrupts. Deadlines cannot be set where the socket is closed, and there nothing waits.
var past = time.Unix(1, 0)

// interrupt has calls of Read and Write return. c.mu is held.
func (c *Conn) interrupt() {
	c.phase = asked
	c.turn++
	close(c.moving)
	_ = c.tcp.SetDeadline(past)
}

// resume lets Read and Write go on. c.mu is held.
func (c *Conn) resume() {
	c.phase = here
	c.turn++
	c.moving = make(chan struct{})
	c.idle.Broadcast() // a Move that waits hears that it is not asked any more
	_ = c.tcp.SetReadDeadline(c.readBy)
	_ = c.tcp.SetWriteDeadline(c.writeBy)
}

// Read is as of net.Conn, and returns ErrMoving.
func (c *Conn) Read(p []byte) (int, error) { return c.use(c.tcp.Read, p) }

// Write is as of net.Conn, and returns ErrMoving: the count says how many bytes have been written.
func (c *Conn) Write(p []byte) (int, error) { return c.use(c.tcp.Write, p) }

// use calls Read or Write, again where it was interrupted for a request that is over.
func (c *Conn) use(call func([]byte) (int, error), p []byte) (int, error) {
	total := 0
	for {
		turn, err := c.begin()
		if err != nil {
			return total, err
		}
		n, err := call(p[total:])
		total += n
		interrupted := c.end(turn)
		if !interrupted || !errors.Is(err, os.ErrDeadlineExceeded) {
			return total, err
		}
	}
}

func (c *Conn) begin() (turn uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case c.phase == asked || c.phase == given:
		return 0, ErrMoving
	case c.phase == moved:
		return 0, ErrMoved
	}
	c.busy++
	return c.turn, nil
}

// end reports whether the call was interrupted.
func (c *Conn) end(turn uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy--; c.busy == 0 {
		c.idle.Broadcast()
	}
	return c.turn != turn
}

// Close is as of net.Conn. Where the connection has left, nobody else hears of it; where that is not known yet it is closed here when it is.
func (c *Conn) Close() error {
	c.mu.Lock()
	a := c.ask
	switch {
	case c.closed:
		c.mu.Unlock()
		return net.ErrClosed
	case c.phase == given || c.phase == moved:
		c.closed = true
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.ask = nil
	c.idle.Broadcast()
	err := c.tcp.Close()
	c.mu.Unlock()
	c.listener.remove(c)
	a.stays("closed")
	return err
}

// CloseWrite is as of net.TCPConn.
func (c *Conn) CloseWrite() error {
	if _, err := c.begin(); err != nil {
		return err
	}
	defer c.end(0)
	return c.tcp.CloseWrite()
}

// LocalAddr is as of net.Conn: on both servers the same.
func (c *Conn) LocalAddr() net.Addr { return c.tcp.LocalAddr() }

// RemoteAddr is as of net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.tcp.RemoteAddr() }

// SyscallConn is as of net.TCPConn, for socket options. Reading and writing by it would go past Move.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.tcp.SyscallConn() }

// SetDeadline is as of net.Conn. Deadlines do not travel.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadlines(&t, &t) }

// SetReadDeadline is as of net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(&t, nil) }

// SetWriteDeadline is as of net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(nil, &t) }

// setDeadlines keeps them for later where Read and Write are being interrupted by one.
func (c *Conn) setDeadlines(read, write *time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	var errs []error
	if read != nil {
		c.readBy = *read
	}
	if write != nil {
		c.writeBy = *write
	}
	if c.phase != here {
		return nil
	}
	if read != nil {
		errs = append(errs, c.tcp.SetReadDeadline(*read))
	}
	if write != nil {
		errs = append(errs, c.tcp.SetWriteDeadline(*write))
	}
	return errors.Join(errs...)
}
