package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

const (
	// queueMost is how many messages may wait for a peer where SetMaxQueue was not called.
	queueMost = 1 << 16
	// writeAtMost is how much is encoded at a time, in messages.
	writeAtMost = 512
	// writeWithin is how long a peer may take nothing, where little waits for it.
	writeWithin = 5 * time.Minute
	// closeWithin is how long what was sent may take to leave a connection that is closed.
	closeWithin = 2 * time.Second
	readAtMost  = 64 << 10
)

// conn is a connection, open or about to be: Send may come before start.
type conn struct {
	id     wire.Identifier // this router's
	remote netip.Addr
	events chan<- Event
	quit   <-chan struct{} // of the network
	limit  atomic.Uint32

	mu     sync.Mutex
	nc     net.Conn // nil before it is open
	queue  []wire.Message
	most   int           // of queue
	slow   error         // more waited than may
	ended  bool          // nothing more is taken: closed, or failed
	closed chan struct{} // by Close: events do not matter any more
	more   chan struct{} // queue or ended have changed
}

func newConn(id wire.Identifier, remote netip.Addr, events chan<- Event, quit <-chan struct{}) *conn {
	return &conn{id: id, remote: remote, events: events, quit: quit, most: queueMost, closed: make(chan struct{}), more: make(chan struct{}, 1)}
}

// Remote implements Conn.
func (c *conn) Remote() netip.Addr { return c.remote }

// SetMaxPDU implements Conn.
func (c *conn) SetMaxPDU(n uint16) { c.limit.Store(uint32(n)) }

// SetMaxQueue implements Conn.
func (c *conn) SetMaxQueue(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most = n
}

// SetGTSM implements Conn.
func (c *conn) SetGTSM() error {
	return c.set(sends255(c.remote), wants255(c.remote))
}

// SetSecret implements Conn.
func (c *conn) SetSecret(secret string) error { return c.set(signs(c.remote, secret)) }

// set changes the socket; a connection without one, as of a Fake, has nothing to set.
func (c *conn) set(options ...option) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	nc, ok := c.nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := nc.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, options...)
}

// Send implements Conn.
func (c *conn) Send(m wire.Message) {
	c.mu.Lock()
	switch {
	case c.ended:
	case len(c.queue) >= c.most:
		c.overflow()
	default:
		c.queue = append(c.queue, m)
	}
	c.mu.Unlock()
	c.wake()
}

// overflow ends the connection: what waits will not leave. c.mu is held.
func (c *conn) overflow() {
	c.slow = fmt.Errorf("the peer takes too little: %d messages wait for it", len(c.queue))
	c.ended, c.queue = true, nil
	if c.nc != nil {
		_ = c.nc.SetDeadline(time.Unix(1, 0)) // interrupts reader and writer; fails only where both do, too
	}
}

// Close implements Conn.
func (c *conn) Close() {
	c.mu.Lock()
	first := !c.isClosed()
	if first {
		c.finish()
		close(c.closed)
	}
	c.mu.Unlock()
	c.wake()
}

// finish has what is queued leave soon, or not at all. c.mu is held.
func (c *conn) finish() {
	c.ended = true
	if c.nc != nil {
		_ = c.nc.SetWriteDeadline(time.Now().Add(closeWithin)) // fails only where writing does, too
	}
}

func (c *conn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

func (c *conn) wake() {
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// run moves bytes both ways until the connection ends, and tells why.
func (c *conn) run(nc net.Conn) {
	c.mu.Lock()
	c.nc = nc
	c.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- c.write(nc) }()
	err := c.read(nc)
	if c.isClosed() { // the reader was interrupted by the writer, which is through
		if werr := <-done; werr != nil { // what was sent last has not left
			c.fail()
		}
		return
	}
	c.fail()
	nc.Close()
	if werr := <-done; werr != nil && !errors.Is(werr, net.ErrClosed) { // the reader was interrupted by it
		err = werr
	}
	if c.slow != nil { // both were
		err = c.slow
	}
	c.tell(Closed{c, err})
}

// fail has nothing more taken.
func (c *conn) fail() {
	c.mu.Lock()
	c.ended, c.queue = true, nil
	c.mu.Unlock()
	c.wake()
}

// tell hands an event over, unless nobody wants it any more.
func (c *conn) tell(e Event) bool {
	select {
	case c.events <- e:
		return true
	case <-c.closed:
	case <-c.quit:
	}
	return false
}

// read returns nil where the peer has closed the connection.
func (c *conn) read(nc net.Conn) error {
	var framer wire.Framer
	buf := make([]byte, readAtMost)
	for {
		n, err := nc.Read(buf)
		_, _ = framer.Write(buf[:n]) // never fails
		for {
			if limit := c.limit.Load(); limit != 0 {
				framer.SetMaxPDULength(uint16(limit))
			}
			pdu, ok, err := framer.Next()
			if err != nil {
				return c.unreadable(err)
			}
			if !ok {
				break
			}
			if !c.tell(c.received(pdu)) {
				return nil
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// unreadable hands over what is wrong with the stream, and waits until the session has answered it.
func (c *conn) unreadable(err error) error {
	var bad *wire.Error
	if !errors.As(err, &bad) {
		return err
	}
	if c.tell(Received{Conn: c, Messages: []Message{{Err: bad}}}) {
		select {
		case <-c.closed:
		case <-c.quit:
		}
	}
	return err
}

func (c *conn) received(pdu wire.PDU) Received {
	r := Received{Conn: c, Sender: pdu.ID}
	for m, err := range pdu.Messages() {
		in := Message{Message: m}
		errors.As(err, &in.Err)
		r.Messages = append(r.Messages, in)
		if in.Err != nil && in.Err.Fatal() {
			break
		}
	}
	return r
}

// write sends what is queued until the connection ends.
func (c *conn) write(nc net.Conn) error {
	var buf []byte
	for {
		batch, last := c.next()
		var err error
		if buf = c.encode(buf[:0], batch); len(buf) > 0 {
			c.postpone(nc)
			_, err = nc.Write(buf)
		}
		if err != nil || last {
			nc.Close()
			return err
		}
	}
}

// encode appends messages in PDUs as the peer takes them, and tells of those that fit into none.
func (c *conn) encode(b []byte, batch []wire.Message) []byte {
	limit := uint16(c.limit.Load())
	out, err := wire.AppendPDU(b, c.id, limit, batch...)
	if err == nil {
		return out
	}
	for _, m := range batch {
		if b, err = wire.AppendPDU(b, c.id, limit, m); err != nil {
			c.tell(Dropped{c, m, err})
		}
	}
	return b
}

// postpone gives the peer its time anew.
func (c *conn) postpone(nc net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		c.finish()
		return
	}
	_ = nc.SetWriteDeadline(time.Now().Add(writeWithin))
}

// next waits for messages. last: there will be no more.
func (c *conn) next() (batch []wire.Message, last bool) {
	for {
		c.mu.Lock()
		n := min(len(c.queue), writeAtMost)
		batch, c.queue = c.queue[:n:n], c.queue[n:]
		last = c.ended && len(c.queue) == 0
		c.mu.Unlock()
		if n > 0 || last {
			return batch, last
		}
		select {
		case <-c.more:
		case <-c.quit: // the network is closed: what is there leaves
			c.mu.Lock()
			c.finish()
			c.mu.Unlock()
		}
	}
}
