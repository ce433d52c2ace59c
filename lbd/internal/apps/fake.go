package apps

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// Fake is Apps without applications, for tests.
type Fake struct {
	mu      sync.Mutex
	listens map[netip.AddrPort]error
	conns   map[Flow]*FakeConn
}

var _ Apps = (*Fake)(nil)

// FakeConn is a connection of a Fake.
type FakeConn struct {
	Descriptor int    // what FD of Exported returns, or Import was given: the test's and its caller's, a Fake neither copies nor closes it
	State      []byte // what the application exports, or has been given
	Fail       error  // Export's error; nil: it gives the connection away
	Wait       bool   // Export waits for its context

	fake *Fake
	was  []string
}

// NewFake returns a Fake without listeners and connections.
func NewFake() *Fake {
	return &Fake{listens: map[netip.AddrPort]error{}, conns: map[Flow]*FakeConn{}}
}

// Listen has an application listen at an address, and Import there fail with refuse unless that is nil.
func (f *Fake) Listen(local netip.AddrPort, refuse error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listens[local] = refuse
}

// Put gives an application a connection.
func (f *Fake) Put(flow Flow, c *FakeConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.fake = f
	f.conns[flow] = c
}

// Conn is the connection that an application has, or had; nil: none ever.
func (f *Fake) Conn(flow Flow) *FakeConn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns[flow]
}

// History is what became of the connection, in order: "exported", "gone", "back", "imported", "live", "cancelled".
func (c *FakeConn) History() []string {
	c.fake.mu.Lock()
	defer c.fake.mu.Unlock()
	return slices.Clone(c.was)
}

// Serves implements Apps.
func (f *Fake) Serves(local netip.AddrPort) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.listens[local]
	return ok
}

// Export implements Apps.
func (f *Fake) Export(ctx context.Context, flow Flow) (Exported, error) {
	c := f.Conn(flow)
	if c == nil {
		return nil, fmt.Errorf("export %v: %w", flow, ErrUnknown)
	}
	if c.Wait {
		<-ctx.Done()
		return nil, fmt.Errorf("export %v: %w", flow, ctx.Err())
	}
	if c.Fail != nil {
		return nil, fmt.Errorf("export %v: %w", flow, c.Fail)
	}
	c.note("exported")
	return &fakeMove{conn: c}, nil
}

// Import implements Apps.
func (f *Fake) Import(_ context.Context, flow Flow, fd int, app []byte) (Imported, error) {
	f.mu.Lock()
	refuse, ok := f.listens[flow.Local]
	f.mu.Unlock()
	if !ok {
		refuse = ErrUnknown
	}
	if refuse != nil {
		return nil, fmt.Errorf("import %v: %w", flow, refuse)
	}
	c := &FakeConn{Descriptor: fd, State: slices.Clone(app)}
	f.Put(flow, c)
	c.note("imported")
	return &fakeMove{conn: c}, nil
}

func (c *FakeConn) note(what string) {
	c.fake.mu.Lock()
	defer c.fake.mu.Unlock()
	c.was = append(c.was, what)
}

// fakeMove is an Exported and an Imported.
type fakeMove struct {
	conn *FakeConn
	once sync.Once
}

func (m *fakeMove) FD() int        { return m.conn.Descriptor }
func (m *fakeMove) App() []byte    { return m.conn.State }
func (m *fakeMove) end(how string) { m.once.Do(func() { m.conn.note(how) }) }
func (m *fakeMove) Gone()          { m.end("gone") }
func (m *fakeMove) Back()          { m.end("back") }
func (m *fakeMove) Live()          { m.end("live") }
func (m *fakeMove) Cancel()        { m.end("cancelled") }
