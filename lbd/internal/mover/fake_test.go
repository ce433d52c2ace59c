package mover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/apps"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/handover"
)

// fakeSockets keeps sockets by their descriptor; states are "fd N".
type fakeSockets struct {
	mu   sync.Mutex
	last int
	fail error // of Restore
	was  map[int][]string
}

func newFakeSockets() *fakeSockets { return &fakeSockets{was: map[int][]string{}, last: 1000} }

type fakeSocket struct {
	all    *fakeSockets
	fd     int
	thawed bool
}

func (s *fakeSockets) note(fd int, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.was[fd] = append(s.was[fd], what)
}

func (s *fakeSockets) history(fd int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.was[fd], " ")
}

func (s *fakeSockets) Freeze(fd int) (Socket, []byte, error) {
	s.note(fd, "frozen")
	return &fakeSocket{all: s, fd: fd}, fmt.Appendf(nil, "fd %d", fd), nil
}

func (s *fakeSockets) Restore(_, _ netip.AddrPort, state []byte) (Socket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
	s.last++
	s.was[s.last] = []string{"restored " + string(state)}
	return &fakeSocket{all: s, fd: s.last}, nil
}

func (s *fakeSockets) Drop(fd int) error { s.note(fd, "dropped"); return nil }

func (s *fakeSocket) FD() int { return s.fd }

func (s *fakeSocket) Thaw() error {
	s.thawed = true
	s.all.note(s.fd, "thawed")
	return nil
}

func (s *fakeSocket) Close() error {
	if !s.thawed {
		s.all.note(s.fd, "ended")
	}
	return nil
}

// wires are links in memory, by the address at which each server takes them.
type wires struct {
	mu      sync.Mutex
	serving map[string]func(l Link, from string, boot uint64)
	all     []*wire
}

type fakeNetwork struct {
	wires *wires
	name  string
	boot  uint64
}

// wire is one end.
type wire struct {
	out, in chan handover.Message
	down    chan struct{}
	once    *sync.Once
}

var errWire = errors.New("the wire is cut")

func (w *wire) Send(messages ...handover.Message) error {
	for _, m := range messages {
		select {
		case w.out <- m:
		case <-w.down:
			return errWire
		}
	}
	return nil
}

func (w *wire) Receive() (handover.Message, error) {
	select {
	case m := <-w.in:
		return m, nil
	case <-w.down:
		return nil, errWire
	}
}

func (w *wire) Close() error { w.once.Do(func() { close(w.down) }); return nil }

func (n fakeNetwork) Dial(_ context.Context, address, name string) (Link, uint64, error) {
	n.wires.mu.Lock()
	handle := n.wires.serving[address]
	n.wires.mu.Unlock()
	if handle == nil {
		return nil, 0, errWire
	}
	a, b, down := make(chan handover.Message, 65536), make(chan handover.Message, 65536), make(chan struct{})
	here, there := &wire{a, b, down, &sync.Once{}}, &wire{b, a, down, nil}
	there.once = here.once
	n.wires.mu.Lock()
	n.wires.all = append(n.wires.all, here)
	n.wires.mu.Unlock()
	go handle(there, n.name, n.boot)
	return here, bootOf(name), nil
}

func (n fakeNetwork) Serve(ctx context.Context, handle func(l Link, from string, boot uint64)) error {
	n.wires.mu.Lock()
	n.wires.serving[linkOf(n.name)] = handle
	n.wires.mu.Unlock()
	<-ctx.Done()
	return nil
}

// Servers are s1, s2, s3: 10.3.0.1 and so on, and so are their boots.
func number(name string) int       { return int(name[1] - '0') }
func addressOf(name string) string { return fmt.Sprintf("10.3.0.%d", number(name)) }
func linkOf(name string) string    { return addressOf(name) + ":8465" }
func bootOf(name string) uint64    { return uint64(number(name)) }
func userOf(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 4711)
}
func flowOf(i int) handover.Flow     { return handover.Flow{Local: front, Remote: userOf(i)} }
func appFlow(i int) apps.Flow        { return apps.Flow{Local: front, Remote: userOf(i)} }
func planeFlow(i int) dataplane.Flow { return plain(flowOf(i)) }

var front = netip.MustParseAddrPort("192.0.2.80:80")

var web = service.Service{
	Name: "web", VIP: front.Addr(), Ports: []service.Port{{Proto: "tcp", Number: 80}}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 1},
	Handover: service.Handover{Strategies: []service.Strategy{service.Transfer, service.Forward}, Deadline: time.Minute},
}

// bench are servers with everything around them.
type bench struct {
	t       *testing.T
	hub     *control.Hub
	wires   *wires
	servers map[string]*server
	last    alloc.Allocation
}

type server struct {
	*Mover
	apps    *apps.Fake
	sockets *fakeSockets
	plane   *dataplane.FakeAgent
	member  *control.HubMember
	stop    func()

	mu    sync.Mutex
	users []netip.AddrPort // who connected
}

// connected are those whose sockets are there yet.
func (s *server) connected(context.Context, []netip.Addr, []dataplane.Port) ([]netip.AddrPort, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.users), func(user netip.AddrPort) bool {
		c := s.apps.Conn(apps.Flow{Local: front, Remote: user})
		return c == nil || strings.HasSuffix(s.sockets.history(c.Descriptor), "ended")
	}), nil
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, hub: control.NewHub(50*time.Millisecond, 250*time.Millisecond), wires: &wires{serving: map[string]func(Link, string, uint64){}}, servers: map[string]*server{}}
	for _, name := range []string{"s1", "s2", "s3"} {
		b.start(name)
	}
	time.Sleep(200 * time.Millisecond)
	return b
}

func (b *bench) start(name string) {
	s := &server{apps: apps.NewFake(), sockets: newFakeSockets(), plane: dataplane.NewFakeAgent()}
	s.apps.Listen(front, nil)
	s.member = b.hub.Join(control.Member{Name: name, Role: control.Server, Address: netip.MustParseAddr(addressOf(name))}, nil)
	s.member.SetStatus(control.Status{OK: true})
	s.Mover = New(Config{
		Name: name, Boot: bootOf(name), Address: linkOf(name), Channel: s.member, Network: fakeNetwork{b.wires, name, bootOf(name)},
		Apps: s.apps, Sockets: s.sockets, Gates: s.plane, Connected: s.connected, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
		s.member.Leave()
	})
	b.servers[name] = s
}

// connect gives a server the connections of users from..to-1.
func (b *bench) connect(name string, from, to int) {
	s := b.servers[name]
	for i := from; i < to; i++ {
		s.users = append(s.users, userOf(i))
		s.apps.Put(appFlow(i), &apps.FakeConn{Descriptor: i, State: fmt.Appendf(nil, "session %d", i)})
	}
}

// commit has all servers execute an allocation: who has even users, and who has odd ones.
func (b *bench) commit(even, odd string) {
	names := []string{"s1", "s2", "s3"}
	next := alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: b.last.Epoch.Number + 1}, Slots: web.Slots, Servers: names,
		Owner:   []uint16{uint16(number(even) - 1), uint16(number(odd) - 1)},
		Standby: []uint16{alloc.None, alloc.None},
	}
	holders := alloc.Holders{}
	for _, name := range names {
		next.Addresses = append(next.Addresses, netip.MustParseAddr(addressOf(name)))
		holders[name] = epoch.Epoch{}
	}
	next.Trail = alloc.Follow(b.last, next, holders, nil)
	b.last = next
	for _, s := range b.servers {
		s.Set([]View{{web, next}})
	}
}

func (b *bench) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) end() {
	for _, s := range b.servers {
		s.stop()
	}
	synctest.Wait()
}

// history is what became of a connection at a server: the application's view, then the socket's.
func (s *server) history(i int) string {
	c := s.apps.Conn(appFlow(i))
	if c == nil {
		return ""
	}
	return strings.Join(c.History(), " ") + ": " + s.sockets.history(c.Descriptor)
}
