package migrate

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/manycast/manycast/lbd/migrate/wire"
)

const (
	retryEvery   = time.Second     // how often the agent is looked for
	helloTimeout = 5 * time.Second // how long it may take to say who it is
)

// link is a listener's connection to the agent.
type link struct {
	listener *Listener
	conn     *wire.Conn
	sending  sync.Mutex

	mu       sync.Mutex
	asks     map[uint64]*ask
	arriving map[uint64]*Conn // taken, not live yet
}

// ask is one request to leave.
type ask struct {
	link *link
	id   uint64
	conn *Conn
}

func dial(l *Listener) (*link, error) {
	conn, err := wire.Dial(l.options.Agent)
	if err != nil {
		return nil, err
	}
	k := &link{listener: l, conn: conn, asks: map[uint64]*ask{}, arriving: map[uint64]*Conn{}}
	if err := k.greet(); err != nil {
		conn.Close()
		return nil, err
	}
	return k, nil
}

func (k *link) greet() error {
	k.hello()
	if err := k.conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	m, fd, err := k.conn.Receive()
	closeDescriptor(fd)
	switch {
	case err != nil:
		return fmt.Errorf("the agent does not answer: %w", err)
	case m.Type != wire.Hello || m.Version == 0:
		return fmt.Errorf("the agent begins with %v, version %d: is it an agent?", m.Type, m.Version)
	}
	return k.conn.SetReadDeadline(time.Time{})
}

// hello says where the listener listens.
func (k *link) hello() {
	k.send(wire.Message{Type: wire.Hello, Version: wire.Version, Text: k.listener.options.Name, Listens: k.listener.addresses()}, -1)
}

// send sends a message; one that cannot be sent ends the link.
func (k *link) send(m wire.Message, fd int) {
	k.sending.Lock()
	defer k.sending.Unlock()
	if err := k.conn.Send(m, fd); err != nil {
		k.listener.log.Debug("link to the agent fails", "err", err)
		k.giveUp()
	}
}

// giveUp tells the agent that nothing more comes: it still settles what is open. Where that cannot be told the link has ended.
func (k *link) giveUp() { _ = k.conn.CloseWrite() }

// serve does what the agent says until it closes its end, and returns why that was.
func (k *link) serve() error {
	var wrong error
	for {
		m, fd, err := k.conn.Receive()
		switch {
		case errors.Is(err, wire.ErrMalformed):
			wrong = err
			k.giveUp()
		case err != nil:
			k.end()
			return errors.Join(wrong, err)
		case m.Type == wire.Arrive:
			k.arrive(m, fd)
		default:
			closeDescriptor(fd)
			k.handle(m)
		}
	}
}

// end is called when nothing more comes: the agent is gone, or done with all that it had.
func (k *link) end() {
	k.conn.Close()
	k.mu.Lock()
	asks, arriving := k.asks, k.arriving
	k.asks, k.arriving = map[uint64]*ask{}, map[uint64]*Conn{}
	k.mu.Unlock()
	for _, a := range asks {
		a.conn.lost(a)
	}
	for _, c := range arriving {
		k.listener.drop(c)
	}
}

func (k *link) handle(m wire.Message) {
	switch m.Type {
	case wire.Ask:
		k.ask(m)
	case wire.Cancel:
		if a := k.find(m.ID); a != nil && a.conn.cancel(a) {
			k.forget(m.ID)
		}
	case wire.Gone, wire.Back:
		if a := k.forget(m.ID); a != nil {
			a.conn.settle(a, m.Type == wire.Gone)
		}
	case wire.Live, wire.Drop:
		k.mu.Lock()
		c := k.arriving[m.ID]
		delete(k.arriving, m.ID)
		k.mu.Unlock()
		switch {
		case c == nil:
		case m.Type == wire.Live:
			k.listener.push(c)
		default:
			k.listener.drop(c)
		}
	}
}

func (k *link) ask(m wire.Message) {
	c := k.listener.conn(flow{plain(m.Local), plain(m.Remote)})
	if c == nil {
		k.send(wire.Message{Type: wire.Unknown, ID: m.ID}, -1)
		return
	}
	a := &ask{k, m.ID, c}
	k.mu.Lock()
	_, twice := k.asks[m.ID]
	if !twice {
		k.asks[m.ID] = a
	}
	k.mu.Unlock()
	if !twice {
		c.asks(a)
	}
}

func (k *link) find(id uint64) *ask {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asks[id]
}

func (k *link) forget(id uint64) *ask {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := k.asks[id]
	delete(k.asks, id)
	return a
}

// arrive takes a connection in, which stays in repair mode until it is Live.
func (k *link) arrive(m wire.Message, fd int) {
	c, err := k.listener.take(fd, m.State)
	if err != nil {
		k.send(wire.Message{Type: wire.Refused, ID: m.ID, Text: err.Error()}, -1)
		return
	}
	k.mu.Lock()
	_, twice := k.arriving[m.ID]
	if !twice {
		k.arriving[m.ID] = c
	}
	k.mu.Unlock()
	if twice {
		k.listener.drop(c)
		return
	}
	k.send(wire.Message{Type: wire.Taken, ID: m.ID}, -1)
}

// stays answers a request; on nil, which is none, it does nothing.
func (a *ask) stays(reason string) {
	if a != nil && a.link.forget(a.id) == a {
		a.link.send(wire.Message{Type: wire.Stays, ID: a.id, Text: reason}, -1)
	}
}

// give answers it with the connection. The descriptor stays open here until the request is settled.
func (a *ask) give(c *Conn, state []byte) {
	raw, err := c.tcp.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			a.link.send(wire.Message{Type: wire.Given, ID: a.id, State: state}, int(fd))
		})
	}
	if err != nil { // it is closed, which nobody does with what is given
		a.link.giveUp()
	}
}

// tcpConn makes a connection of a descriptor, which is gone then.
func tcpConn(fd int) (*net.TCPConn, error) {
	if fd < 0 {
		return nil, errors.New("no descriptor came with it")
	}
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return nil, errors.New("no TCP connection")
	}
	return tcp, nil
}

func closeDescriptor(fd int) {
	if fd >= 0 {
		os.NewFile(uintptr(fd), "").Close()
	}
}
