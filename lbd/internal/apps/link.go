package apps

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/manycast/manycast/lbd/migrate/wire"
	"golang.org/x/sys/unix"
)

// link is one listener of an application. Its reader and its writer have a goroutine each; nobody else touches the socket, so
// that an application that does not read holds up only itself.
type link struct {
	conn   *wire.Conn
	limits Limits
	log    *slog.Logger
	places chan struct{} // one for each question without an answer
	ending chan struct{} // closed when the application answers no more
	wake   chan struct{} // the writer has something to do

	mu      sync.Mutex
	listens []netip.AddrPort
	asked   map[uint64]chan answer
	queue   []outgoing
	held    int  // connections between two owners: the application must not lose its agent while there are any
	ended   bool // ending is closed
	mute    bool // the application reads no more
}

// answer is the application's to a question, with a descriptor where that is not negative.
type answer struct {
	wire.Message
	fd int
}

// outgoing is a message to be sent, with a descriptor of its own where that is not negative.
type outgoing struct {
	wire.Message
	fd int
}

func newLink(conn *wire.Conn, limits Limits, log *slog.Logger) *link {
	return &link{
		conn: conn, limits: limits, log: log, places: make(chan struct{}, limits.Outstanding),
		ending: make(chan struct{}), wake: make(chan struct{}, 1), asked: map[uint64]chan answer{},
	}
}

// greet exchanges Hellos.
func (k *link) greet() error {
	deadline := time.Now().Add(k.limits.Hello)
	if err := k.conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	m, fd, err := k.conn.Receive()
	closeDescriptor(fd)
	switch {
	case err != nil:
		return err
	case m.Type != wire.Hello || m.Version == 0:
		return fmt.Errorf("it begins with %v, version %d", m.Type, m.Version)
	}
	k.hello(m)
	k.enqueue(wire.Message{Type: wire.Hello, Version: wire.Version}, -1)
	return k.conn.SetReadDeadline(time.Time{})
}

func (k *link) hello(m wire.Message) {
	k.mu.Lock()
	k.listens = m.Listens
	k.mu.Unlock()
	k.log.Info("an application's listener", "name", m.Text, "version", m.Version, "listens", m.Listens)
}

// serves reports whether the application takes connections to an address.
func (k *link) serves(local netip.AddrPort) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.ended && slices.ContainsFunc(k.listens, func(at netip.AddrPort) bool {
		if at.Port() != local.Port() {
			return false
		}
		if at.Addr().IsUnspecified() {
			return at.Addr().Is4() == local.Addr().Is4()
		}
		return at.Addr() == local.Addr()
	})
}

// read takes what the application says until it ends, or says what it must not.
func (k *link) read() {
	err := k.readAll()
	k.log.Info("an application's listener has ended", "err", err)
	k.end(false)
}

func (k *link) readAll() error {
	for {
		m, fd, err := k.conn.Receive()
		if err != nil {
			return err
		}
		switch m.Type {
		case wire.Hello:
			k.hello(m)
		case wire.Given, wire.Stays, wire.Unknown, wire.Taken, wire.Refused:
			k.answered(m, fd)
		default:
			closeDescriptor(fd)
			return fmt.Errorf("an application must not send %v", m.Type)
		}
	}
}

// answered hands an answer to who asked. Who asked may have gone.
func (k *link) answered(m wire.Message, fd int) {
	k.mu.Lock()
	ask, ok := k.asked[m.ID]
	delete(k.asked, m.ID)
	if ok {
		if m.Type == wire.Given || m.Type == wire.Taken {
			k.held++
		}
		ask <- answer{m, fd} // has room for one
	}
	k.mu.Unlock()
	if !ok {
		closeDescriptor(fd)
		if m.Type == wire.Given {
			k.enqueue(wire.Message{Type: wire.Back, ID: m.ID}, -1)
		}
	}
}

// ask sends a question and waits for its answer. Where ctx ends first the application hears of never, instead.
func (k *link) ask(ctx context.Context, m wire.Message, fd int, never wire.Type) (answer, error) {
	select {
	case k.places <- struct{}{}:
		defer func() { <-k.places }()
	case <-ctx.Done():
		closeDescriptor(fd)
		return answer{}, ctx.Err()
	case <-k.ending:
		closeDescriptor(fd)
		return answer{}, ErrGone
	}
	reply := make(chan answer, 1)
	k.mu.Lock()
	k.asked[m.ID] = reply
	k.mu.Unlock()
	k.enqueue(m, fd)
	var err error
	select {
	case a := <-reply:
		return a, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-k.ending:
		err = ErrGone
	}
	if k.forget(m.ID) {
		k.enqueue(wire.Message{Type: never, ID: m.ID}, -1)
		return answer{}, err
	}
	return <-reply, nil // it came meanwhile
}

// forget reports whether a question had no answer so far.
func (k *link) forget(id uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, open := k.asked[id]
	delete(k.asked, id)
	return open
}

// settle says how a connection that was held has ended.
func (k *link) settle(t wire.Type, id uint64) {
	k.enqueue(wire.Message{Type: t, ID: id}, -1)
	k.mu.Lock()
	k.held--
	k.mu.Unlock()
	k.awake()
}

// enqueue gives the writer a message. The descriptor is the link's from now on.
func (k *link) enqueue(m wire.Message, fd int) {
	k.mu.Lock()
	switch {
	case k.mute:
		closeDescriptor(fd)
	default:
		k.queue = append(k.queue, outgoing{m, fd})
	}
	overrun := len(k.queue) > k.limits.queue()
	k.mu.Unlock()
	if overrun {
		k.log.Warn("an application does not read what the agent says: it loses its agent", "messages", k.limits.queue())
		k.end(true)
	}
	k.awake()
}

func (k *link) awake() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// end says that no answers come any more; mute: nor is anything read. The writer closes the link when nothing is held.
func (k *link) end(mute bool) {
	k.mu.Lock()
	if !k.ended {
		k.ended = true
		close(k.ending)
	}
	if mute {
		k.mute = true
		for _, o := range k.queue {
			closeDescriptor(o.fd)
		}
		k.queue = nil
	}
	k.mu.Unlock()
	k.awake()
}

// write sends what is queued, and closes the link when it has ended and the application knows of all connections whose they are.
func (k *link) write() {
	defer k.conn.Close()
	for range k.wake {
		for {
			batch, over := k.take()
			if over {
				return
			}
			if len(batch) == 0 {
				break
			}
			k.send(batch)
		}
	}
}

func (k *link) take() (batch []outgoing, over bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	batch, k.queue = k.queue, nil
	return batch, len(batch) == 0 && k.ended && k.held == 0
}

func (k *link) send(batch []outgoing) {
	var err error
	for _, o := range batch {
		if err == nil {
			err = errors.Join(k.conn.SetWriteDeadline(time.Now().Add(k.limits.Stuck)), k.conn.Send(o.Message, o.fd))
		}
		closeDescriptor(o.fd)
	}
	if err != nil {
		k.log.Warn("an application cannot be told anything more: it loses its agent", "err", err)
		k.end(true)
	}
}

func closeDescriptor(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}
