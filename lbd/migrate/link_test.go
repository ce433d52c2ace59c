package migrate_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/manycast/manycast/lbd/migrate"
	"github.com/manycast/manycast/lbd/migrate/wire"
	"golang.org/x/sys/unix"
)

// script is an agent whose words the test says.
type script struct {
	*wire.Conn
	t     *testing.T
	hello wire.Message // the listener's
	l     *net.UnixListener
}

// scripted makes a listener, and the agent that it finds.
func scripted(t *testing.T, o migrate.Options) (*script, *migrate.Listener) {
	t.Helper()
	o.Agent = socketPath(t)
	agents, err := net.ListenUnix(wire.Network, &net.UnixAddr{Name: o.Agent, Net: wire.Network})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agents.Close() })
	l, err := migrate.Listen("tcp", "127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return greeted(t, agents), l
}

// greeted takes a listener's link.
func greeted(t *testing.T, agents *net.UnixListener) *script {
	t.Helper()
	if err := agents.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c, err := agents.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s := &script{Conn: wire.NewConn(c), t: t, l: agents}
	if err := s.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	s.hello, _ = s.wants(wire.Hello, 0)
	s.says(wire.Message{Type: wire.Hello, Version: wire.Version}, -1)
	return s
}

func (s *script) says(m wire.Message, fd int) {
	s.t.Helper()
	if err := s.Send(m, fd); err != nil {
		s.t.Fatal(err)
	}
}

func (s *script) wants(want wire.Type, id uint64) (wire.Message, int) {
	s.t.Helper()
	m, fd, err := s.Receive()
	if err != nil || m.Type != want || m.ID != id {
		s.t.Fatalf("the application says %v %d %q, %v, want %v %d", m.Type, m.ID, m.Text, err, want, id)
	}
	return m, fd
}

// asks is a request for a user's connection.
func (s *script) asks(id uint64, user net.Conn) {
	s.t.Helper()
	s.says(wire.Message{Type: wire.Ask, ID: id, Local: flow(user).Local, Remote: flow(user).Remote}, -1)
}

// moveSoon answers the request to move when it comes, and says how that ends.
func moveSoon(t *testing.T, c *migrate.Conn) <-chan error {
	ended := make(chan error, 1)
	go func() {
		moving(t, c)
		ended <- c.Move([]byte("state"))
	}()
	return ended
}

func TestHello(t *testing.T) {
	s, l := scripted(t, migrate.Options{Name: "web"})
	want := l.Addr().(*net.TCPAddr).AddrPort()
	if s.hello.Version != wire.Version || s.hello.Text != "web" || len(s.hello.Listens) != 1 || s.hello.Listens[0] != want {
		t.Errorf("hello: %v", s.hello)
	}
}

func TestAllFamiliesAreListenedAt(t *testing.T) {
	for network, want := range map[string][]string{"tcp": {"::", "0.0.0.0"}, "tcp6": {"::"}, "tcp4": {"0.0.0.0"}} {
		path := socketPath(t)
		agents, err := net.ListenUnix(wire.Network, &net.UnixAddr{Name: path, Net: wire.Network})
		if err != nil {
			t.Fatal(err)
		}
		defer agents.Close()
		l, err := migrate.Listen(network, ":0", migrate.Options{Agent: path})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		s := greeted(t, agents)
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		for i, a := range want {
			if len(s.hello.Listens) != len(want) || s.hello.Listens[i] != netip.AddrPortFrom(netip.MustParseAddr(a), port) {
				t.Errorf("%s listens at %v, want %v", network, s.hello.Listens, want)
			}
		}
	}
}

// Whatever an agent that is lost was about to do, what it cannot have taken away goes on.
func TestAgentIsLost(t *testing.T) {
	for name, before := range map[string]func(t *testing.T, s *script, c *migrate.Conn, user net.Conn) error{
		"idle": func(*testing.T, *script, *migrate.Conn, net.Conn) error { return migrate.ErrStays },
		"waiting": func(t *testing.T, s *script, c *migrate.Conn, user net.Conn) error {
			c.SetMovable(migrate.Later)
			s.asks(1, user)
			s.Close()
			return migrate.ErrStays
		},
		"asked": func(t *testing.T, s *script, c *migrate.Conn, user net.Conn) error {
			s.asks(1, user)
			moving(t, c)
			s.Close()
			var err error
			eventually(t, "the request is forgotten", func() bool { err = c.Move(nil); return err != nil })
			return err
		},
		"given": func(t *testing.T, s *script, c *migrate.Conn, user net.Conn) error {
			ended := moveSoon(t, c)
			s.asks(1, user)
			_, fd := s.wants(wire.Given, 1)
			unix.Close(fd)
			s.Close()
			return <-ended
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, l := scripted(t, migrate.Options{})
			user := dial(t, l.Addr())
			c := accept(t, l)
			c.SetMovable(migrate.Now)
			if err := before(t, s, c, user); !errors.Is(err, migrate.ErrStays) {
				t.Errorf("Move: %v", err)
			}
			s.Close()
			say(t, user, "hello")
			hear(t, c, "hello")
			// The next agent finds the connection.
			next := greeted(t, s.l)
			c.SetMovable(migrate.Now)
			ended := moveSoon(t, c)
			next.asks(7, user)
			_, fd := next.wants(wire.Given, 7)
			defer unix.Close(fd)
			next.says(wire.Message{Type: wire.Gone, ID: 7}, -1)
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// What is in repair mode when the agent is lost may live elsewhere.
func TestAgentIsLostWithAFrozenConnection(t *testing.T) {
	s, l := scripted(t, migrate.Options{})
	l.Freeze()
	user := dial(t, l.Addr())
	c := accept(t, l)
	c.SetMovable(migrate.Now)
	ended := moveSoon(t, c)
	s.asks(1, user)
	_, fd := s.wants(wire.Given, 1)
	s.Close()
	if err := <-ended; err != nil {
		t.Errorf("Move: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, migrate.ErrMoved) {
		t.Errorf("Write: %v", err)
	}
	unix.Close(fd) // the last descriptor
	if _, err := user.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the user hears %v", err)
	}
}

// arrival is a descriptor of a connection that lives in the test, and its user.
func arrival(t *testing.T) (fd int, user net.Conn) {
	t.Helper()
	elsewhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	user = dial(t, elsewhere.Addr())
	c, err := elsewhere.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if fd, err = unix.Dup(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	return fd, user
}

// arrives offers a user's connection, and keeps no descriptor of it.
func (s *script) arrives(id uint64, fd int, user net.Conn) {
	s.t.Helper()
	s.says(wire.Message{Type: wire.Arrive, ID: id, Local: flow(user).Local, Remote: flow(user).Remote, State: []byte("state")}, fd)
	unix.Close(fd)
}

func TestArrivalThatDoesNotBecomeLive(t *testing.T) {
	for name, end := range map[string]func(*script){
		"dropped":           func(s *script) { s.says(wire.Message{Type: wire.Drop, ID: 1}, -1) },
		"the agent is lost": func(s *script) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s, l := scripted(t, migrate.Options{})
			fd, user := arrival(t)
			s.arrives(1, fd, user)
			s.wants(wire.Taken, 1)
			end(s)
			if _, err := user.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the user hears %v", err)
			}
			other := dial(t, l.Addr())
			if c := accept(t, l); c.RemoteAddr().String() != other.LocalAddr().String() {
				t.Errorf("accepted %v", c.RemoteAddr())
			}
		})
	}
}

func TestArrivalsRefused(t *testing.T) {
	s, l := scripted(t, migrate.Options{Backlog: 1, Check: func(state []byte) error {
		if len(state) == 0 {
			return errors.New("nothing")
		}
		return nil
	}})
	s.says(wire.Message{Type: wire.Arrive, ID: 1, Local: s.hello.Listens[0], Remote: s.hello.Listens[0], State: []byte("x")}, -1)
	s.wants(wire.Refused, 1) // no descriptor
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	s.says(wire.Message{Type: wire.Arrive, ID: 2, Local: s.hello.Listens[0], Remote: s.hello.Listens[0], State: []byte("x")}, int(r.Fd()))
	s.wants(wire.Refused, 2) // no connection
	r.Close()
	fd, user := arrival(t)
	s.says(wire.Message{Type: wire.Arrive, ID: 3, Local: flow(user).Local, Remote: flow(user).Remote}, fd)
	if m, _ := s.wants(wire.Refused, 3); m.Text != "nothing" {
		t.Errorf("refused: %q", m.Text)
	}
	s.arrives(4, fd, user)
	s.wants(wire.Taken, 4)
	full, another := arrival(t)
	s.arrives(5, full, another)
	s.wants(wire.Refused, 5) // no room
	s.says(wire.Message{Type: wire.Live, ID: 4}, -1)
	c := accept(t, l)
	say(t, user, "hello")
	hear(t, c, "hello")
	fd, user = arrival(t)
	s.arrives(6, fd, user)
	s.wants(wire.Taken, 6)
	l.Close()
	if m, _ := s.wants(wire.Hello, 0); len(m.Listens) > 0 {
		t.Errorf("a closed listener listens at %v", m.Listens)
	}
	s.says(wire.Message{Type: wire.Live, ID: 6}, -1) // it is closed, as what waits to be accepted
	if _, err := user.Read(make([]byte, 1)); err == nil {
		t.Error("a closed listener keeps a connection")
	}
	fd, user = arrival(t)
	s.arrives(7, fd, user)
	s.wants(wire.Refused, 7)
}

// The connections of a closed listener can leave; with the last one the link ends.
func TestClosedListenerGivesConnectionsAway(t *testing.T) {
	s, l := scripted(t, migrate.Options{})
	user := dial(t, l.Addr())
	c := accept(t, l)
	c.SetMovable(migrate.Now)
	l.Close()
	s.wants(wire.Hello, 0)
	ended := moveSoon(t, c)
	s.asks(1, user)
	_, fd := s.wants(wire.Given, 1)
	defer unix.Close(fd)
	s.says(wire.Message{Type: wire.Gone, ID: 1}, -1)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, _, err := s.Receive(); err == nil {
		t.Error("the link of a listener without connections stays")
	}
}

// Words about what nobody knows of change nothing.
func TestWordsOutOfPlace(t *testing.T) {
	s, l := scripted(t, migrate.Options{})
	user := dial(t, l.Addr())
	c := accept(t, l)
	for _, typ := range []wire.Type{wire.Cancel, wire.Gone, wire.Back, wire.Live, wire.Drop, wire.Taken} {
		s.says(wire.Message{Type: typ, ID: 99}, -1)
	}
	s.says(wire.Message{Type: wire.Ask, ID: 1, Local: flow(user).Remote, Remote: flow(user).Local}, -1)
	s.wants(wire.Unknown, 1)
	c.SetMovable(migrate.Now)
	ended := moveSoon(t, c)
	s.asks(2, user)
	s.asks(2, user)
	_, fd := s.wants(wire.Given, 2)
	unix.Close(fd)
	s.asks(3, user) // waits for how that ends
	s.asks(4, user)
	s.wants(wire.Stays, 4)
	s.says(wire.Message{Type: wire.Back, ID: 2}, -1)
	if err := <-ended; !errors.Is(err, migrate.ErrStays) {
		t.Errorf("Move: %v", err)
	}
	moving(t, c)
	c.Stay("enough")
	s.wants(wire.Stays, 3)
	say(t, c, "hello")
	hear(t, user, "hello")
}

// After rubbish from the agent the link is given up, but what was begun is heard to its end.
func TestRubbishFromTheAgent(t *testing.T) {
	s, l := scripted(t, migrate.Options{})
	user := dial(t, l.Addr())
	c := accept(t, l)
	c.SetMovable(migrate.Now)
	ended := moveSoon(t, c)
	s.asks(1, user)
	_, fd := s.wants(wire.Given, 1)
	defer unix.Close(fd)
	raw, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Write(func(link uintptr) bool { _, err = unix.Write(int(link), []byte{1, 2, 3}); return true }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("the application goes on: %v", err)
	}
	s.says(wire.Message{Type: wire.Gone, ID: 1}, -1)
	if err := <-ended; err != nil {
		t.Errorf("Move: %v", err)
	}
	s.Close()
	greeted(t, s.l)
}

func TestAgentThatIsNone(t *testing.T) {
	path := socketPath(t)
	agents, err := net.ListenUnix(wire.Network, &net.UnixAddr{Name: path, Net: wire.Network})
	if err != nil {
		t.Fatal(err)
	}
	defer agents.Close()
	l, err := migrate.Listen("tcp", "127.0.0.1:0", migrate.Options{Agent: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := agents.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	none := wire.NewConn(c)
	if err := none.Send(wire.Message{Type: wire.Live, ID: 1}, -1); err != nil {
		t.Fatal(err)
	}
	if _, _, err := none.Receive(); err != nil { // its hello
		t.Fatal(err)
	}
	if _, _, err := none.Receive(); err == nil {
		t.Error("the application takes it for an agent")
	}
	c.Close()
	user := dial(t, l.Addr())
	say(t, user, "hello")
	hear(t, accept(t, l), "hello")
}

func TestAbstractNamesAreRefused(t *testing.T) {
	if l, err := migrate.Listen("tcp", "127.0.0.1:0", migrate.Options{Agent: "@agent"}); err == nil {
		l.Close()
		t.Error("no error")
	}
}
