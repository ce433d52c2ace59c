package joiner

import (
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/manycast/manycast/internal/igmp"
)

// FakeSocket is a Socket without a network, for tests.
type FakeSocket struct {
	mu      sync.Mutex
	groups  []netip.Addr
	sent    [][]byte
	err     error
	closed  chan struct{}
	once    sync.Once
	queries chan igmp.Query
	broken  chan error
}

// NewFakeSocket returns an open FakeSocket.
func NewFakeSocket() *FakeSocket {
	return &FakeSocket{closed: make(chan struct{}), queries: make(chan igmp.Query), broken: make(chan error)}
}

// Ask hands a query to ReadQuery.
func (f *FakeSocket) Ask(q igmp.Query) { f.queries <- q }

// Break makes ReadQuery return err.
func (f *FakeSocket) Break(err error) { f.broken <- err }

// Fail makes SetGroups and Send return err from now on.
func (f *FakeSocket) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// Groups are those of the last SetGroups.
func (f *FakeSocket) Groups() []netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.groups)
}

// Sent returns the reports since the last call.
func (f *FakeSocket) Sent() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	sent := f.sent
	f.sent = nil
	return sent
}

// SetGroups implements Socket.
func (f *FakeSocket) SetGroups(groups []netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	f.groups = slices.Clone(groups)
	return nil
}

// Send implements Socket.
func (f *FakeSocket) Send(report []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	f.sent = append(f.sent, slices.Clone(report))
	return nil
}

// ReadQuery implements Socket.
func (f *FakeSocket) ReadQuery() (igmp.Query, error) {
	select {
	case q := <-f.queries:
		return q, nil
	case err := <-f.broken:
		return igmp.Query{}, err
	case <-f.closed:
		return igmp.Query{}, net.ErrClosed
	}
}

// Close implements Socket.
func (f *FakeSocket) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}
