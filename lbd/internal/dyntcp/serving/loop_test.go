package serving

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

var (
	flow   = kernel.Flow{User: at("10.1.0.7:40001"), VIP: at("192.0.2.80:80")}
	s1, s2 = at("10.2.0.1:80"), at("10.3.0.2:80")
	secret = wire.Cookie{1, 2, 3, 4, 5, 6, 7, 8}
	key    = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	web    = service.Service{
		Name: "web", VIP: flow.VIP.Addr(), Ports: []service.Port{{Proto: "tcp", Number: 80}, {Proto: "udp", Number: 53}}, Dynamic: service.Dynamic{On: true},
	}
)

// bench is a server's loop, whose kernel and sockets are fakes. All is of one connection.
type bench struct {
	t      *testing.T
	loop   *Loop
	kernel *kernel.FakeServer
	opened int
	ended  atomic.Bool // the connection
	frozen []*fakeSocket

	mu       sync.Mutex
	messages []wire.Signed
}

func (b *bench) sent() []wire.Signed {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.messages)
}

type fakeSocket struct {
	bench          *bench
	fd             int
	thawed, closed bool
	followed       bool // when it was closed
}

func (s *fakeSocket) FD() int { return s.fd }

func (s *fakeSocket) Thaw() error {
	s.thawed = true
	return nil
}

func (s *fakeSocket) Close() error {
	s.closed, s.followed = true, s.bench.kernel.Follows(flow)
	return nil
}

// Freeze, Drop and Restore make the bench the Plain of its loop: states are "plain".
func (b *bench) Freeze(fd int) (Socket, []byte, error) {
	s := &fakeSocket{bench: b, fd: fd}
	b.frozen = append(b.frozen, s)
	return s, []byte("plain"), nil
}

func (b *bench) Drop(int) error { return nil }

func (b *bench) Restore(_, _ netip.AddrPort, state []byte) (Socket, error) {
	if string(state) != "plain" {
		return nil, errors.New("not a state")
	}
	s, _, err := b.Freeze(100 + len(b.frozen))
	return s, err
}

// newBench runs one at an address; it ends with the test.
func newBench(t *testing.T, address netip.Addr) *bench {
	return benchOf(t, address, kernel.NewFakeServer())
}

func benchOf(t *testing.T, address netip.Addr, k *kernel.FakeServer) *bench {
	b := &bench{t: t, kernel: k}
	b.loop = New(Config{
		Addresses: []netip.Addr{address}, Log: slog.New(slog.DiscardHandler),
		Open: func() (kernel.Server, error) {
			b.opened++
			return b.kernel, nil
		},
		Sign: func(c wire.Change) (wire.Signed, error) { return wire.Sign(c, key) },
		Send: func(user netip.Addr, raw []byte) error {
			s, err := wire.Decode(raw)
			if err != nil || user != flow.User.Addr() {
				t.Errorf("sent to %v: %v", user, err)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			b.messages = append(b.messages, s)
			return nil
		},
		FlowOf: func(int) (kernel.Flow, error) { return flow, nil },
		Knows:  func(kernel.Flow) (bool, error) { return !b.ended.Load(), nil },
		Connected: func(_ context.Context, vips []netip.Addr, ports []service.Port) ([]netip.AddrPort, error) {
			if !slices.Equal(vips, []netip.Addr{flow.VIP.Addr()}) || len(ports) != 1 || ports[0].Number != flow.VIP.Port() {
				return nil, nil
			}
			return []netip.AddrPort{at("10.1.0.8:40001"), flow.User}, nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) set(services ...service.Service) {
	b.loop.Set(services)
	synctest.Wait()
}

// move takes the connection from descriptor fd of b to other, and returns its descriptor there.
func (b *bench) move(fd int, other *bench) int {
	b.t.Helper()
	giver, state, err := b.loop.Sockets(b).Freeze(fd)
	if err != nil {
		b.t.Fatal(err)
	}
	taker, err := other.loop.Sockets(other).Restore(flow.VIP, flow.User, state)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := errors.Join(taker.Thaw(), taker.Close(), giver.Close()); err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait() // it is announced
	b.kernel.End(fd)
	other.kernel.Bind(taker.FD(), flow)
	return taker.FD()
}

// began is a connection that has its handshake behind it.
func (b *bench) began(fd int, destination netip.AddrPort) {
	b.t.Helper()
	if err := b.kernel.Adopt(fd, kernel.Held{Tag: 7, Cookie: secret, Destination: destination, Heard: true}); err != nil {
		b.t.Fatal(err)
	}
}

func inBubble(t *testing.T, f func(t *testing.T, one, two *bench)) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newBench(t, s1.Addr()), newBench(t, s2.Addr())
		one.set(web)
		two.set(web)
		f(t, one, two)
	})
}

// A connection comes back to a server whose user may not have followed it away: the first segment there proves nothing, the one after some time does.
func TestUserIsListenedToAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, one, two *bench) {
		one.began(1, s1)
		fd := two.move(one.move(1, two), one)
		one.kernel.Hear(fd, flow)
		synctest.Wait()
		if c := one.loop.Counters(); c.Arrived != 0 {
			t.Fatalf("what proves nothing counts: %+v", c)
		}
		time.Sleep(5 * time.Second) // twice what a packet lives, and less than what is announced
		synctest.Wait()
		n := len(one.sent())
		one.kernel.Hear(fd, flow)
		synctest.Wait()
		if c := one.loop.Counters(); c.Arrived != 1 || c.GivenUp != 0 {
			t.Errorf("%+v", c)
		}
		time.Sleep(time.Minute)
		if got := len(one.sent()); got != n {
			t.Errorf("%d messages after the %d until it was heard", got-n, n)
		}
	})
}

// Each address has the VIPs of its family, of services that are dynamic there.
func TestConnectionsLiveAtTheAddressOfTheirFamily(t *testing.T) {
	vip6, here6 := at("[2001:db8::80]:80"), at("[2001:db8:2::1]:80")
	both := web
	both.VIP6 = vip6.Addr()
	v6 := both
	v6.Dynamic.Destinations = []netip.Prefix{netip.MustParsePrefix("2001:db8:2::/64")}
	four, six := kernel.ServerService{VIP: flow.VIP, Destination: s1}, kernel.ServerService{VIP: vip6, Destination: here6}
	for _, tt := range []struct {
		addresses []netip.Addr
		service   service.Service
		want      []kernel.ServerService
	}{
		{[]netip.Addr{s1.Addr(), here6.Addr()}, both, []kernel.ServerService{four, six}},
		{[]netip.Addr{s1.Addr()}, both, []kernel.ServerService{four}},
		{[]netip.Addr{s1.Addr(), here6.Addr()}, v6, []kernel.ServerService{six}},
		{[]netip.Addr{s1.Addr(), here6.Addr()}, web, []kernel.ServerService{four}},
	} {
		if got := New(Config{Addresses: tt.addresses}).services([]service.Service{tt.service}); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%v: %+v, want %+v", tt.addresses, got, tt.want)
		}
	}
}

func TestProgramsAreKeptAtTheServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, s1.Addr())
		plain := web
		plain.Dynamic = service.Dynamic{}
		elsewhere := web
		elsewhere.Dynamic.Destinations = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}
		b.set(plain, elsewhere)
		if b.opened != 0 {
			t.Error("opened for nothing")
		}
		b.set(web)
		if got := b.kernel.Services(); b.opened != 1 || len(got) != 1 || got[0].VIP != flow.VIP || got[0].Destination != s1 {
			t.Errorf("opened %d times: %+v", b.opened, got)
		}
		b.set(plain)
		if got := b.kernel.Services(); b.opened != 1 || len(got) != 0 {
			t.Errorf("opened %d times: %+v", b.opened, got)
		}
	})
}

// A connection moves: its user is told, again and again, until it is heard.
func TestMoveIsAnnouncedUntilTheUserIsHeard(t *testing.T) {
	inBubble(t, func(t *testing.T, one, two *bench) {
		one.began(1, s1)
		fd, sequence := one.move(1, two), uint64(time.Now().UnixMilli())
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if len(two.sent()) < 3 || len(one.sent()) > 0 {
			t.Fatalf("%d messages, the giver's %d", len(two.sent()), len(one.sent()))
		}
		c := two.sent()[0].Change
		if c.Tag != 7 || c.Cookie != secret || c.User != flow.User || c.VIP != flow.VIP || c.Old != s1 || c.New != s2 || c.Sequence != sequence || !two.sent()[0].Verify(key.Public().(ed25519.PublicKey)) {
			t.Errorf("%+v", c)
		}
		if h, err := two.kernel.Held(fd); err != nil || h.Sequence != sequence || h.Destination != s2 || h.Heard {
			t.Errorf("%+v, %v", h, err)
		}
		two.kernel.Hear(fd, flow)
		synctest.Wait()
		n := len(two.sent())
		time.Sleep(time.Minute)
		synctest.Wait()
		if c := two.loop.Counters(); len(two.sent()) != n || c.Arrived != 1 || c.Here != 1 {
			t.Errorf("%d messages, then %d; %+v", n, len(two.sent()), c)
		}
		two.ended.Store(true)
		time.Sleep(2 * sweepEvery)
		if c := two.loop.Counters(); c.Here != 0 {
			t.Errorf("it is over: %+v", c)
		}
	})
}

// The giver's socket does not end before what its user still sends has another way, and that ends when the connection comes back.
func TestGivenConnectionIsFollowedUntilItComesBack(t *testing.T) {
	inBubble(t, func(t *testing.T, one, two *bench) {
		one.began(1, s1)
		fd := one.move(1, two)
		if s := one.frozen[0]; !s.closed || !s.followed {
			t.Errorf("%+v", s)
		}
		two.kernel.Hear(fd, flow)
		synctest.Wait()
		two.move(fd, one)
		if one.kernel.Follows(flow) || !two.kernel.Follows(flow) {
			t.Error("the flow is followed where it is, or not where it was")
		}
		if c := one.sent()[0].Change; c.Sequence != two.sent()[0].Sequence+1 || c.Old != s2 || c.New != s1 {
			t.Errorf("%+v", c)
		}
		time.Sleep(followFor + 2*sweepEvery)
		synctest.Wait()
		if two.kernel.Follows(flow) {
			t.Error("followed for ever")
		}
	})
}

// What the giver's users still send goes on over a restart, for as long as before, and ends where the connection is here again.
func TestFollowingGoesOnOverARestart(t *testing.T) {
	inBubble(t, func(t *testing.T, one, two *bench) {
		one.began(1, s1)
		one.move(1, two)
		one.ended.Store(true)
		next := benchOf(t, s1.Addr(), one.kernel.Next())
		next.ended.Store(true)
		next.set(web)
		if !next.kernel.Follows(flow) {
			t.Fatal("forgotten")
		}
		time.Sleep(followFor + 2*sweepEvery)
		synctest.Wait()
		if next.kernel.Follows(flow) {
			t.Error("followed for ever")
		}
		back := benchOf(t, s1.Addr(), one.kernel.Next())
		back.set(web)
		if back.kernel.Follows(flow) {
			t.Error("the flow is followed where it is")
		}
	})
}

// A clean stop waits for users who have not followed, and for nothing else.
func TestLeavesUntilUsersHaveFollowed(t *testing.T) {
	inBubble(t, func(t *testing.T, one, two *bench) {
		one.began(1, s1)
		if one.loop.Leaves() || two.loop.Leaves() {
			t.Fatal("nothing has left")
		}
		one.move(1, two)
		for range 50 { // the user sends here, and goes on doing so
			one.kernel.Send(flow)
			if !one.loop.Leaves() {
				t.Fatal("it would reset the user")
			}
			time.Sleep(100 * time.Millisecond)
		}
		for range 8 {
			time.Sleep(100 * time.Millisecond)
			if !one.loop.Leaves() {
				t.Fatal("heard just now")
			}
		}
		time.Sleep(200 * time.Millisecond)
		if one.loop.Leaves() || two.loop.Leaves() {
			t.Error("waits for who has followed")
		}
	})
}

// One who is silent has the time in which it would be told.
func TestLeavesWhileAMoveIsFresh(t *testing.T) {
	inBubble(t, func(t *testing.T, one, two *bench) {
		one.began(1, s1)
		one.move(1, two)
		if one.loop.Leaves(); !one.loop.Leaves() {
			t.Error("at once")
		}
		time.Sleep(freshFor - time.Millisecond)
		if !one.loop.Leaves() {
			t.Error("too soon")
		}
		time.Sleep(time.Millisecond)
		if one.loop.Leaves() {
			t.Error("for ever")
		}
	})
}

// A user who may have been at the taker before proves nothing by a segment there: it is told on.
func TestPlacesTravel(t *testing.T) {
	inBubble(t, func(t *testing.T, one, two *bench) {
		one.began(1, s1)
		fd := one.move(1, two) // the user does not follow
		fd = two.move(fd, one)
		one.kernel.Hear(fd, flow)
		synctest.Wait()
		n := len(one.sent())
		time.Sleep(time.Second)
		synctest.Wait()
		if c := one.loop.Counters(); c.Arrived != 0 || len(one.sent()) <= n {
			t.Errorf("%+v, %d messages, then %d", c, n, len(one.sent()))
		}
	})
}

// A user who was heard, or not, and then sends to another server is told again.
func TestUserWhoIsElsewhereIsToldAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, one, two *bench) {
		one.began(1, s1)
		fd := one.move(1, two)
		said := func(what string, more bool) {
			t.Helper()
			n := len(two.sent())
			two.kernel.Miss(fd, flow)
			synctest.Wait()
			if got := len(two.sent()); got > n != more {
				t.Errorf("%s: %d messages, then %d", what, n, got)
			}
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		said("given up just now", false)
		time.Sleep(10 * time.Second)
		said("given up a while ago", true)
		two.kernel.Hear(fd, flow)
		synctest.Wait()
		said("heard just now", false)
		two.kernel.Hear(fd, flow)
		time.Sleep(time.Second)
		said("heard a while ago", true)
		two.kernel.Hear(fd, flow)
		synctest.Wait()
		if c := two.loop.Counters(); c.Moves != 1 || c.Arrived != 2 || c.GivenUp != 1 {
			t.Errorf("%+v", c)
		}
	})
}

// The taker's agent is killed before the user has followed: the next one tells it as soon as it begins, and who sends nothing is told all the same.
func TestNextProcessTellsWhoHasNotFollowed(t *testing.T) {
	inBubble(t, func(t *testing.T, one, two *bench) {
		one.began(1, s1)
		fd := one.move(1, two)
		next := benchOf(t, s2.Addr(), two.kernel.Next())
		next.set(web)
		if n := len(next.sent()); n != 1 {
			t.Fatalf("%d messages", n)
		}
		c, was := next.sent()[0].Change, two.sent()[0].Change
		if c.Sequence != was.Sequence || c.Cookie != was.Cookie || c.Tag != was.Tag || c.User != flow.User || c.VIP != flow.VIP || c.New != s2 {
			t.Errorf("%+v, before it %+v", c, was)
		}
		time.Sleep(2 * time.Second) // until then it may have been here before
		next.kernel.Hear(fd, flow)
		synctest.Wait()
		if c := next.loop.Counters(); c.Arrived != 1 || c.Here != 1 {
			t.Errorf("%+v", c)
		}
	})
}

// A user who was heard when the agent was killed, and is heard elsewhere later, is told by the next one.
func TestNextProcessTellsWhoIsElsewhere(t *testing.T) {
	inBubble(t, func(t *testing.T, one, two *bench) {
		one.began(1, s1)
		fd := one.move(1, two)
		two.kernel.Hear(fd, flow)
		synctest.Wait()
		next := benchOf(t, s2.Addr(), two.kernel.Next())
		next.set(web)
		next.kernel.Hear(fd, flow)
		synctest.Wait()
		if n := len(next.sent()); n != 0 {
			t.Fatalf("%d messages to who is here", n)
		}
		next.kernel.Miss(fd, flow)
		synctest.Wait()
		if n := len(next.sent()); n != 1 || next.sent()[0].New != s2 || next.sent()[0].Sequence != two.sent()[0].Sequence {
			t.Errorf("%d messages", n)
		}
	})
}

func TestConnectionThatStays(t *testing.T) {
	inBubble(t, func(t *testing.T, one, two *bench) {
		one.began(1, s1)
		fd := one.move(1, two)
		frozen, _, err := two.loop.Sockets(two).Freeze(fd)
		if err != nil {
			t.Fatal(err)
		}
		n := len(two.sent())
		time.Sleep(time.Second)
		synctest.Wait()
		if len(two.sent()) != n {
			t.Error("announced while it is given away")
		}
		if err := errors.Join(frozen.Thaw(), frozen.Close()); err != nil {
			t.Fatal(err)
		}
		if len(two.sent()) <= n || two.kernel.Follows(flow) {
			t.Errorf("%d messages, then %d; followed: %t", n, len(two.sent()), two.kernel.Follows(flow))
		}
	})
}

// A server that has turned, or whose clock is wrong, gives a connection with the highest sequence that there is: it can move on nevertheless.
func TestHighestSequenceIsNotTheLast(t *testing.T) {
	inBubble(t, func(t *testing.T, one, two *bench) {
		state := State{Tag: 7, Cookie: secret, Sequence: 1<<64 - 1, Destination: s1}
		r, err := two.loop.Sockets(two).Restore(flow.VIP, flow.User, append(state.Append(nil), "plain"...))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(r.Thaw(), r.Close()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if c := two.sent()[0].Change; c.Sequence != uint64(time.Now().UnixMilli()) {
			t.Errorf("%+v", c)
		}
	})
}

// Whose application is yet to have it is not announced, nor what did not live.
func TestAnnouncedOnceItsApplicationHasIt(t *testing.T) {
	inBubble(t, func(t *testing.T, one, two *bench) {
		state := append(State{Tag: 7, Cookie: secret, Sequence: 1, Destination: s1}.Append(nil), "plain"...)
		restore := func() Socket {
			t.Helper()
			r, err := two.loop.Sockets(two).Restore(flow.VIP, flow.User, state)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		announced := func() int {
			synctest.Wait()
			return len(two.sent())
		}
		if err := restore().Close(); err != nil || announced() > 0 {
			t.Errorf("one that did not live: %d messages, %v", announced(), err)
		}
		r := restore()
		if err := r.Thaw(); err != nil || announced() > 0 {
			t.Errorf("before its application has it: %d messages, %v", announced(), err)
		}
		if err := r.Close(); err != nil || announced() != 1 {
			t.Errorf("afterwards: %d messages, %v", announced(), err)
		}
	})
}

// The places where a connection was go along also when it leaves before it was announced.
func TestGivenBeforeItIsAnnounced(t *testing.T) {
	l := New(Config{
		Sign: func(c wire.Change) (wire.Signed, error) { return wire.Sign(c, key) },
		Send: func(netip.Addr, []byte) error { return nil },
	})
	l.took(wire.Change{Tag: 7, Cookie: secret, User: flow.User, VIP: flow.VIP, Old: s1, New: s2, Sequence: 2}, []netip.AddrPort{flow.VIP, s1})
	s := l.giving(flow, kernel.Held{Tag: 7, Cookie: secret, Sequence: 2, Destination: s2})
	for _, place := range []netip.AddrPort{flow.VIP, s1} {
		if !slices.Contains(s.Places, place) {
			t.Errorf("%v is not among %v", place, s.Places)
		}
	}
}

func TestPlainConnections(t *testing.T) {
	inBubble(t, func(t *testing.T, one, two *bench) {
		s, state, err := one.loop.Sockets(one).Freeze(1) // nothing is known of it
		if err != nil || string(state) != "plain" {
			t.Fatalf("%q, %v", state, err)
		}
		if r, err := two.loop.Sockets(two).Restore(flow.VIP, flow.User, state); err != nil || errors.Join(r.Thaw(), s.Close()) != nil {
			t.Fatal(err)
		}
		if one.kernel.Follows(flow) || len(two.sent()) > 0 {
			t.Error("a plain connection is announced, or followed")
		}
	})
}

// What can move does not go where its user could not be led.
func TestServerThatTakesNoPartRefuses(t *testing.T) {
	inBubble(t, func(t *testing.T, one, two *bench) {
		one.began(1, s1)
		two.set()
		giver, state, err := one.loop.Sockets(one).Freeze(1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := two.loop.Sockets(two).Restore(flow.VIP, flow.User, state); err == nil || !two.frozen[0].closed {
			t.Errorf("%v", err)
		}
		if _, err := two.loop.Sockets(two).Restore(flow.VIP, flow.User, state[:10]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%v", err)
		}
		if err := giver.Thaw(); err != nil || one.kernel.Follows(flow) {
			t.Errorf("%v", err)
		}
	})
}

func TestOldestAreLeftAlone(t *testing.T) {
	f, now := newFollows(), time.Unix(1, 0)
	nth := func(n int) kernel.Flow {
		return kernel.Flow{User: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(n >> 16), byte(n >> 8)}), uint16(n)), VIP: flow.VIP}
	}
	var out []kernel.Flow
	for n := range followsMax + 2 {
		out = append(out, f.add(now, nth(n))...)
	}
	if want := []kernel.Flow{nth(0), nth(1)}; !slices.Equal(out, want) || len(f.since) != followsMax {
		t.Errorf("%v, %d left", out, len(f.since))
	}
	for range 4 * followsMax { // comes and goes
		f.remove(nth(9))
		f.add(now, nth(9))
	}
	if len(f.order) > 2*followsMax {
		t.Errorf("%d in order", len(f.order))
	}
}

// Without programs, as on a kernel that does not take them, connections are plain; it is said once, and tried again.
func TestWithoutPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, s1.Addr())
		var log bytes.Buffer
		b.loop.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		open, fail := b.loop.cfg.Open, true
		b.loop.cfg.Open = func() (kernel.Server, error) {
			if fail {
				return nil, errors.New("too old")
			}
			return open()
		}
		for range 3 {
			b.set(web)
		}
		if _, state, err := b.loop.Sockets(b).Freeze(1); err != nil || string(state) != "plain" || b.loop.Open() {
			t.Errorf("%q, %v", state, err)
		}
		if n := bytes.Count(log.Bytes(), []byte("too old")); n != 1 {
			t.Errorf("said %d times", n)
		}
		fail = false
		b.set(web)
		if !b.loop.Open() || b.opened != 1 {
			t.Error("not tried again")
		}
	})
}
