package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

var errClosed = errors.New("closed")

// FakeClient is a Client without a kernel: it checks as the real one does, and its connections and messages are what a test says.
type FakeClient struct {
	mu          sync.Mutex
	services    []ClientService
	connections map[Flow]Connection
	changes     chan Change
	counters    ClientCounters
	closed      bool
}

// NewFakeClient returns one without services.
func NewFakeClient() *FakeClient {
	return &FakeClient{connections: make(map[Flow]Connection), changes: make(chan Change, changesWaiting)}
}

// Open makes a connection.
func (f *FakeClient) Open(c Connection) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.connections[c.Flow] = c
	f.counters.Agreed++
}

// End ends one.
func (f *FakeClient) End(flow Flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.connections, flow)
}

// Hear is a datagram for the port of changes at the user's address; it judges as the programs do.
func (f *FakeClient) Hear(user netip.Addr, datagram []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	message, err := wire.Decode(datagram)
	c, known := f.connections[Flow{User: message.User, VIP: message.VIP}]
	switch n := &f.counters; {
	case f.closed:
	case err != nil:
		n.ChangeMalformed++
	case !known || message.User.Addr() != user:
		n.ChangeUnknown++
	case c.Tag != message.Tag:
		n.ChangeTag++
	case c.Cookie != message.Cookie:
		n.ChangeCookie++
	case message.Sequence <= c.Sequence:
		n.ChangeOld++
	default:
		select {
		case f.changes <- Change{Flow: c.Flow, Message: message.Raw}:
			n.ChangePassed++
		default:
			n.ChangeLost++
		}
	}
}

// Services are those that were set.
func (f *FakeClient) Services() []ClientService {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.services
}

// Set checks and keeps them.
func (f *FakeClient) Set(services []ClientService) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	if err := checkServices(services); err != nil {
		return err
	}
	f.services = services
	return nil
}

// Connections are those that Open made.
func (f *FakeClient) Connections() ([]Connection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]Connection, 0, len(f.connections))
	for _, c := range f.connections {
		all = append(all, c)
	}
	return all, nil
}

// Connection is one that Open made.
func (f *FakeClient) Connection(flow Flow) (Connection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.connection(flow)
}

func (f *FakeClient) connection(flow Flow) (Connection, error) {
	c, ok := f.connections[flow]
	if !ok {
		return Connection{}, fmt.Errorf("connection of %s: %w", flow, ErrGone)
	}
	return c, nil
}

// SetDestination changes the connection.
func (f *FakeClient) SetDestination(flow Flow, cookie wire.Cookie, to netip.AddrPort, sequence uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.connection(flow)
	if err != nil {
		return err
	}
	if err := checkMove(c, cookie, to, sequence); err != nil {
		return err
	}
	f.connections[flow] = c.moved(to, sequence)
	return nil
}

// Changes are what Hear lets through.
func (f *FakeClient) Changes() <-chan Change { return f.changes }

// Counters are what Open and Hear counted.
func (f *FakeClient) Counters() (ClientCounters, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counters, nil
}

// Close ends Changes.
func (f *FakeClient) Close(bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		close(f.changes)
	}
	return nil
}
