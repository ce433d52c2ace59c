package apps

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/manycast/manycast/lbd/migrate/wire"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// start runs a server until the test ends.
func start(t testing.TB, limits Limits) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "apps") // short, as names of sockets are
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := NewServer(filepath.Join(dir, "agent.sock"), limits, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-s.Ready()
	return s
}

// application is one whose words the test says.
type application struct {
	*wire.Conn
	t testing.TB
}

// connect makes an application that listens at addresses.
func connect(t testing.TB, s *Server, listens ...netip.AddrPort) *application {
	t.Helper()
	a := silent(t, s)
	a.says(wire.Message{Type: wire.Hello, Version: wire.Version, Text: "test", Listens: listens}, -1)
	a.wants(wire.Hello)
	for _, at := range listens {
		eventually(t, "the application is known", func() bool { return s.Serves(at) })
	}
	return a
}

// silent makes one that has not said who it is.
func silent(t testing.TB, s *Server) *application {
	t.Helper()
	c, err := wire.Dial(s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &application{c, t}
}

func (a *application) says(m wire.Message, fd int) {
	a.t.Helper()
	if err := a.Send(m, fd); err != nil {
		a.t.Fatal(err)
	}
}

func (a *application) wants(want wire.Type) (wire.Message, int) {
	a.t.Helper()
	m, fd, err := a.Receive()
	if err != nil || m.Type != want {
		a.t.Fatalf("the agent says %v, %v, want %v", m.Type, err, want)
	}
	return m, fd
}

// isCut checks that the agent ends the link.
func (a *application) isCut() {
	a.t.Helper()
	for {
		m, fd, err := a.Receive()
		closeDescriptor(fd)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
			return
		case err != nil:
			a.t.Fatalf("the link does not end: %v", err)
		case m.Type != wire.Cancel && m.Type != wire.Drop:
			a.t.Fatalf("the agent says %v", m.Type)
		}
	}
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// connection is a TCP connection: the server's descriptor, and its user.
func connection(t testing.TB) (Flow, int, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	user, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	if err := raw.Control(func(p uintptr) { fd = int(p) }); err != nil {
		t.Fatal(err)
	}
	return Flow{c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()}, fd, user
}

type exportResult struct {
	Exported
	err error
}

func exporting(ctx context.Context, s *Server, f Flow) <-chan exportResult {
	done := make(chan exportResult, 1)
	go func() {
		e, err := s.Export(ctx, f)
		done <- exportResult{e, err}
	}()
	return done
}

type importResult struct {
	Imported
	err error
}

func importing(ctx context.Context, s *Server, f Flow, fd int) <-chan importResult {
	done := make(chan importResult, 1)
	go func() {
		i, err := s.Import(ctx, f, fd, []byte("state"))
		done <- importResult{i, err}
	}()
	return done
}

func TestServes(t *testing.T) {
	s := start(t, DefaultLimits())
	at := func(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }
	a := connect(t, s, at("192.0.2.1:80"), at("[::]:81"), at("0.0.0.0:82"))
	for text, want := range map[string]bool{
		"192.0.2.1:80": true, "[::ffff:192.0.2.1]:80": true, "192.0.2.2:80": false, "192.0.2.1:79": false,
		"[2001:db8::1]:81": true, "192.0.2.1:81": false,
		"192.0.2.7:82": true, "[2001:db8::1]:82": false,
	} {
		if s.Serves(at(text)) != want {
			t.Errorf("%s: %v", text, !want)
		}
	}
	a.says(wire.Message{Type: wire.Hello, Version: wire.Version}, -1) // it has closed its listener
	eventually(t, "nobody listens", func() bool { return !s.Serves(at("192.0.2.1:80")) })
	b := connect(t, s, at("192.0.2.1:80"))
	b.Close()
	eventually(t, "nobody listens", func() bool { return !s.Serves(at("192.0.2.1:80")) })
}

func TestSocketIsOfOwnerAndGroup(t *testing.T) {
	s := start(t, DefaultLimits())
	info, err := os.Stat(s.path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestExport(t *testing.T) {
	s := start(t, DefaultLimits())
	f, fd, user := connection(t)
	if _, err := s.Export(t.Context(), f); !errors.Is(err, ErrUnknown) {
		t.Errorf("without an application: %v", err)
	}
	// Two processes share the address; one of them has the connection.
	other, a := connect(t, s, f.Local), connect(t, s, f.Local)
	go func() {
		if m, _, err := other.Receive(); err == nil {
			other.Send(wire.Message{Type: wire.Unknown, ID: m.ID}, -1)
		}
	}()
	done := exporting(t.Context(), s, f)
	m, _ := a.wants(wire.Ask)
	if m.Local != f.Local || m.Remote != f.Remote {
		t.Errorf("asked for %v", m)
	}
	a.says(wire.Message{Type: wire.Given, ID: m.ID, State: []byte("state")}, fd)
	e := <-done
	if e.err != nil {
		t.Fatal(e.err)
	}
	defer unix.Close(e.FD())
	if !bytes.Equal(e.App(), []byte("state")) {
		t.Errorf("state %q", e.App())
	}
	if _, err := unix.Write(e.FD(), []byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := user.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	e.Gone()
	e.Back() // too late
	if gone, _ := a.wants(wire.Gone); gone.ID != m.ID {
		t.Errorf("%d is gone", gone.ID)
	}
	done = exporting(t.Context(), s, f)
	m, _ = a.wants(wire.Ask)
	a.says(wire.Message{Type: wire.Stays, ID: m.ID, Text: "why not"}, -1)
	var stays *StaysError
	if e := <-done; !errors.As(e.err, &stays) || stays.Reason != "why not" {
		t.Errorf("Export: %v", e.err)
	}
}

// What an application gives is looked at before anybody freezes it.
func TestForgedAnswers(t *testing.T) {
	f, fd, _ := connection(t)
	_, another, _ := connection(t)
	stream, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stream[0])
	defer unix.Close(stream[1])
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, one := range map[string]struct {
		answer wire.Type
		fd     int
		hears  wire.Type
	}{
		"no descriptor":                  {wire.Given, -1, wire.Back},
		"another connection":             {wire.Given, another, wire.Back},
		"no TCP":                         {wire.Given, stream[0], wire.Back},
		"no socket":                      {wire.Given, int(null.Fd()), wire.Back},
		"an answer to what is not asked": {wire.Taken, -1, wire.Back},
		"a refusal":                      {wire.Refused, -1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, DefaultLimits())
			a := connect(t, s, f.Local)
			done := exporting(t.Context(), s, f)
			m, _ := a.wants(wire.Ask)
			a.says(wire.Message{Type: one.answer, ID: m.ID}, one.fd)
			var stays *StaysError
			if e := <-done; !errors.As(e.err, &stays) {
				t.Errorf("Export: %v", e.err)
			}
			if one.hears != 0 {
				a.wants(one.hears)
			}
		})
	}
	t.Run("nobody asked", func(t *testing.T) {
		s := start(t, DefaultLimits())
		a := connect(t, s, f.Local)
		a.says(wire.Message{Type: wire.Given, ID: 77}, fd)
		if m, _ := a.wants(wire.Back); m.ID != 77 {
			t.Errorf("back: %d", m.ID)
		}
		a.says(wire.Message{Type: wire.Taken, ID: 78}, -1) // no answer
		a.says(wire.Message{Type: wire.Ask, ID: 79, Local: f.Local, Remote: f.Remote}, -1)
		a.isCut()
	})
}

func TestWhoSaysNoHello(t *testing.T) {
	limits := DefaultLimits()
	limits.Hello = 20 * time.Millisecond
	s := start(t, limits)
	silent(t, s).isCut()
	a := silent(t, s)
	a.says(wire.Message{Type: wire.Taken, ID: 1}, -1)
	a.isCut()
}

func TestTooManyListeners(t *testing.T) {
	limits := DefaultLimits()
	limits.Links = 1
	s := start(t, limits)
	a := connect(t, s, netip.MustParseAddrPort("192.0.2.1:80"))
	silent(t, s).isCut()
	a.Close()
	eventually(t, "there is a place again", func() bool {
		c, err := wire.Dial(s.path)
		if err != nil {
			return false
		}
		defer c.Close()
		if err := c.Send(wire.Message{Type: wire.Hello, Version: 1}, -1); err != nil {
			return false
		}
		_, _, err = c.Receive()
		return err == nil
	})
}

func TestApplicationDies(t *testing.T) {
	s := start(t, DefaultLimits())
	f, fd, _ := connection(t)

	a := connect(t, s, f.Local)
	exports := exporting(t.Context(), s, f)
	a.wants(wire.Ask)
	a.Close()
	if e := <-exports; !errors.Is(e.err, ErrGone) {
		t.Errorf("before it gave the connection: %v", e.err)
	}

	a = connect(t, s, f.Local)
	exports = exporting(t.Context(), s, f)
	m, _ := a.wants(wire.Ask)
	a.says(wire.Message{Type: wire.Given, ID: m.ID}, fd)
	e := <-exports
	if e.err != nil {
		t.Fatal(e.err)
	}
	a.Close()
	eventually(t, "the application is gone", func() bool { return !s.Serves(f.Local) })
	if _, err := unix.Write(e.FD(), []byte("x")); err != nil { // it may go on elsewhere
		t.Error(err)
	}
	unix.Close(e.FD())
	e.Gone()

	a = connect(t, s, f.Local)
	imports := importing(t.Context(), s, f, fd)
	_, own := a.wants(wire.Arrive)
	closeDescriptor(own)
	a.Close()
	if i := <-imports; !errors.Is(i.err, ErrGone) {
		t.Errorf("before it took the connection: %v", i.err)
	}

	a = connect(t, s, f.Local)
	imports = importing(t.Context(), s, f, fd)
	m, own = a.wants(wire.Arrive)
	closeDescriptor(own)
	a.says(wire.Message{Type: wire.Taken, ID: m.ID}, -1)
	i := <-imports
	if i.err != nil {
		t.Fatal(i.err)
	}
	a.Close()
	i.Live()
	eventually(t, "nothing is kept of it", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.links) == 0
	})
}

// An application that has given a connection hears the end of the link only after it has heard what became of that.
func TestLinkStaysUntilAllIsSettled(t *testing.T) {
	s := start(t, DefaultLimits())
	f, fd, _ := connection(t)
	a := connect(t, s, f.Local)
	done := exporting(t.Context(), s, f)
	m, _ := a.wants(wire.Ask)
	a.says(wire.Message{Type: wire.Given, ID: m.ID}, fd)
	e := <-done
	if e.err != nil {
		t.Fatal(e.err)
	}
	defer unix.Close(e.FD())
	if err := a.CloseWrite(); err != nil { // it wants no more
		t.Fatal(err)
	}
	eventually(t, "nobody listens", func() bool { return !s.Serves(f.Local) })
	if _, err := s.Export(t.Context(), f); !errors.Is(err, ErrUnknown) {
		t.Errorf("Export: %v", err)
	}
	e.Back()
	if m, _ := a.wants(wire.Back); m.ID != 1 {
		t.Errorf("back: %d", m.ID)
	}
	a.isCut()
}

// What is asked for no longer is given back when it comes.
func TestCancelledExport(t *testing.T) {
	s := start(t, DefaultLimits())
	f, fd, _ := connection(t)
	a := connect(t, s, f.Local)
	ctx, cancel := context.WithCancel(t.Context())
	done := exporting(ctx, s, f)
	m, _ := a.wants(wire.Ask)
	cancel()
	if e := <-done; !errors.Is(e.err, context.Canceled) {
		t.Errorf("Export: %v", e.err)
	}
	if c, _ := a.wants(wire.Cancel); c.ID != m.ID {
		t.Errorf("%d is cancelled", c.ID)
	}
	a.says(wire.Message{Type: wire.Given, ID: m.ID}, fd)
	if b, _ := a.wants(wire.Back); b.ID != m.ID {
		t.Errorf("%d is given back", b.ID)
	}
}

func TestImport(t *testing.T) {
	s := start(t, DefaultLimits())
	f, fd, user := connection(t)
	if _, err := s.Import(t.Context(), f, fd, nil); !errors.Is(err, ErrUnknown) {
		t.Errorf("without an application: %v", err)
	}
	// One refuses, the other takes it.
	full, a := connect(t, s, f.Local), connect(t, s, f.Local)
	go func() {
		if m, fd, err := full.Receive(); err == nil {
			closeDescriptor(fd)
			full.Send(wire.Message{Type: wire.Refused, ID: m.ID, Text: "full"}, -1)
		}
	}()
	done := importing(t.Context(), s, f, fd)
	m, own := a.wants(wire.Arrive)
	if m.Local != f.Local || m.Remote != f.Remote || string(m.State) != "state" {
		t.Errorf("arrived: %v", m)
	}
	if _, err := unix.Write(own, []byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := user.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	closeDescriptor(own)
	a.says(wire.Message{Type: wire.Taken, ID: m.ID}, -1)
	i := <-done
	if i.err != nil {
		t.Fatal(i.err)
	}
	i.Live()
	i.Cancel() // too late
	if live, _ := a.wants(wire.Live); live.ID != m.ID {
		t.Errorf("%d is live", live.ID)
	}
	full.Close()
	eventually(t, "one is left", func() bool { return len(s.serving(f.Local)) == 1 })

	done = importing(t.Context(), s, f, fd)
	m, own = a.wants(wire.Arrive)
	closeDescriptor(own)
	a.says(wire.Message{Type: wire.Refused, ID: m.ID, Text: "enough"}, -1)
	var stays *StaysError
	if i := <-done; !errors.As(i.err, &stays) || stays.Reason != "enough" {
		t.Errorf("Import: %v", i.err)
	}
	if _, err := s.Import(t.Context(), f, fd, make([]byte, wire.MaxState+1)); !errors.As(err, &stays) {
		t.Errorf("Import of too much: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done = importing(ctx, s, f, fd)
	_, own = a.wants(wire.Arrive)
	closeDescriptor(own)
	cancel()
	if i := <-done; !errors.Is(i.err, context.Canceled) {
		t.Errorf("Import: %v", i.err)
	}
	a.wants(wire.Drop)
}

// An application that does not read holds up nobody else, and loses its agent.
func TestApplicationThatDoesNotRead(t *testing.T) {
	limits := DefaultLimits()
	limits.Stuck = 50 * time.Millisecond
	limits.Outstanding = 64
	s := start(t, limits)
	f, fd, _ := connection(t)
	stuck := connect(t, s, f.Local)
	g, gfd, _ := connection(t)
	a := connect(t, s, g.Local)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	results := make(chan error)
	const many = 200
	state := make([]byte, 64<<10)
	for range many {
		go func() {
			_, err := s.Import(ctx, f, fd, state)
			results <- err
		}()
	}
	done := exporting(ctx, s, g)
	m, _ := a.wants(wire.Ask)
	a.says(wire.Message{Type: wire.Given, ID: m.ID}, gfd)
	e := <-done
	if e.err != nil {
		t.Fatal(e.err)
	}
	unix.Close(e.FD())
	e.Gone()
	a.wants(wire.Gone)
	for range many {
		if err := <-results; !errors.Is(err, ErrGone) && !errors.Is(err, ErrUnknown) {
			t.Fatalf("Import: %v", err)
		}
	}
	for {
		_, fd, err := stuck.Receive()
		closeDescriptor(fd)
		if err != nil {
			break
		}
	}
}

// An application that reads nothing and talks all the time fills no memory.
func TestAnswersAreBounded(t *testing.T) {
	limits := DefaultLimits()
	limits.Outstanding = 1
	s := start(t, limits)
	f, _, _ := connection(t)
	a := connect(t, s, f.Local)
	for id := uint64(1); ; id++ { // each is given back
		if err := a.Send(wire.Message{Type: wire.Given, ID: id}, -1); err != nil {
			break
		}
	}
	a.isCutAfterAll()
}

// isCutAfterAll reads until the link ends.
func (a *application) isCutAfterAll() {
	a.t.Helper()
	for {
		if _, _, err := a.Receive(); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				a.t.Error("the link does not end")
			}
			return
		}
	}
}

// At its end the server waits for who has connections between two owners.
func TestRunWaitsForWhatIsHeld(t *testing.T) {
	dir, err := os.MkdirTemp("", "apps")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s := NewServer(filepath.Join(dir, "agent.sock"), DefaultLimits(), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	<-s.Ready()
	f, fd, _ := connection(t)
	a := connect(t, s, f.Local)
	done := exporting(t.Context(), s, f)
	m, _ := a.wants(wire.Ask)
	a.says(wire.Message{Type: wire.Given, ID: m.ID}, fd)
	e := <-done
	if e.err != nil {
		t.Fatal(e.err)
	}
	defer unix.Close(e.FD())
	cancel()
	eventually(t, "the server takes no questions", func() bool { return !s.Serves(f.Local) })
	e.Gone()
	a.wants(wire.Gone)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
