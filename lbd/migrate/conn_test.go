package migrate_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/manycast/manycast/lbd/internal/apps"
	"github.com/manycast/manycast/lbd/migrate"
	"golang.org/x/sys/unix"
)

// moving waits in Read until the connection is asked to move.
func moving(t *testing.T, c *migrate.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, migrate.ErrMoving) {
		t.Fatalf("Read: %d, %v, want ErrMoving", n, err)
	}
}

func TestMove(t *testing.T) {
	a := newServer(t, migrate.Options{})
	user := dial(t, a.Addr())
	b := a.peer(t, migrate.Options{})
	old := accept(t, a.Listener)
	if _, imported := old.Imported(); imported {
		t.Error("a new connection says that it came from elsewhere")
	}
	old.SetMovable(migrate.Now)
	say(t, user, "one ")
	hear(t, old, "one ")

	ended := make(chan error, 1)
	go func() {
		moving(t, old)
		say(t, user, "two ") // stays in the socket
		ended <- old.Move([]byte("read: one"))
	}()
	a.move(t, user, b)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	c := accept(t, b.Listener)
	if state, ok := c.Imported(); !ok || string(state) != "read: one" {
		t.Errorf("arrived with %q, %v", state, ok)
	}
	if _, err := old.Read(make([]byte, 1)); !errors.Is(err, migrate.ErrMoved) {
		t.Errorf("Read of the shell: %v", err)
	}
	if err := old.Close(); err != nil {
		t.Errorf("Close of the shell: %v", err)
	}
	say(t, user, "three")
	hear(t, c, "two three")
	say(t, c, "answer")
	hear(t, user, "answer")
}

func TestMoveOfTheLargestState(t *testing.T) {
	a := newServer(t, migrate.Options{})
	user := dial(t, a.Addr())
	b := a.peer(t, migrate.Options{})
	old := accept(t, a.Listener)
	old.SetMovable(migrate.Now)
	state := bytes.Repeat([]byte("0123456789abcdef"), migrate.MaxState/16)
	go func() {
		moving(t, old)
		if err := old.Move(state); err != nil {
			t.Error(err)
		}
	}()
	a.move(t, user, b)
	if got, _ := accept(t, b.Listener).Imported(); !bytes.Equal(got, state) {
		t.Errorf("%d bytes arrived, of %d, or others", len(got), len(state))
	}
}

func TestTooMuchStateStays(t *testing.T) {
	a := newServer(t, migrate.Options{})
	user := dial(t, a.Addr())
	c := accept(t, a.Listener)
	c.SetMovable(migrate.Now)
	go func() {
		moving(t, c)
		if err := c.Move(make([]byte, migrate.MaxState+1)); !errors.Is(err, migrate.ErrStays) {
			t.Errorf("Move: %v", err)
		}
		say(t, c, "still here")
	}()
	var stays *apps.StaysError
	if _, err := a.tryExport(t, user); !errors.As(err, &stays) {
		t.Errorf("Export: %v", err)
	}
	hear(t, user, "still here")
}

func TestGivenBack(t *testing.T) {
	a := newServer(t, migrate.Options{})
	user := dial(t, a.Addr())
	c := accept(t, a.Listener)
	c.SetMovable(migrate.Now)
	ended := make(chan error, 1)
	for range 3 { // again and again
		go func() {
			moving(t, c)
			ended <- c.Move(nil)
		}()
		e := a.export(t, user)
		unix.Close(e.FD())
		e.Back()
		if err := <-ended; !errors.Is(err, migrate.ErrStays) {
			t.Fatalf("Move: %v", err)
		}
		say(t, user, "hello")
		hear(t, c, "hello")
	}
}

func TestStay(t *testing.T) {
	a := newServer(t, migrate.Options{})
	user := dial(t, a.Addr())
	c := accept(t, a.Listener)
	var stays *apps.StaysError
	if _, err := a.tryExport(t, user); !errors.As(err, &stays) {
		t.Errorf("a connection of which nothing was said: %v", err)
	}
	c.SetMovable(migrate.Now)
	go func() {
		moving(t, c)
		c.Stay("it is Monday")
		say(t, c, "go on")
	}()
	if _, err := a.tryExport(t, user); !errors.As(err, &stays) || stays.Reason != "it is Monday" {
		t.Errorf("Export: %v", err)
	}
	hear(t, user, "go on")
}

// A connection that serves a request is asked when it is done with it.
func TestLaterThenNow(t *testing.T) {
	a := newServer(t, migrate.Options{})
	user := dial(t, a.Addr())
	c := accept(t, a.Listener)
	c.SetMovable(migrate.Later)
	exports := make(chan apps.Exported, 1)
	go func() { exports <- a.export(t, user) }()
	for range 100 {
		say(t, user, "x")
		hear(t, c, "x")
		say(t, c, "y")
		hear(t, user, "y")
	}
	c.SetMovable(migrate.Now)
	<-c.Moving()
	c.SetMovable(migrate.Later) // a request came after all
	say(t, user, "x")
	hear(t, c, "x")
	c.SetMovable(migrate.Now)
	go func() {
		e := <-exports
		unix.Close(e.FD())
		e.Gone()
	}()
	if err := c.Move(nil); err != nil {
		t.Error(err)
	}
}

func TestNeverDeclinesWhatWaits(t *testing.T) {
	a := newServer(t, migrate.Options{})
	user := dial(t, a.Addr())
	c := accept(t, a.Listener)
	for _, was := range []migrate.When{migrate.Later, migrate.Now} {
		c.SetMovable(was)
		failed := make(chan error, 1)
		go func() {
			_, err := a.tryExport(t, user)
			failed <- err
		}()
		if was == migrate.Now {
			<-c.Moving()
		}
		// What was not asked yet is declined as well.
		c.SetMovable(migrate.Never)
		var stays *apps.StaysError
		if err := <-failed; !errors.As(err, &stays) {
			t.Errorf("Export: %v", err)
		}
		say(t, c, "still here")
		hear(t, user, "still here")
	}
}

// The application's own deadlines hold, whatever interrupts Read meanwhile.
func TestDeadlines(t *testing.T) {
	a := newServer(t, migrate.Options{})
	user := dial(t, a.Addr())
	c := accept(t, a.Listener)
	c.SetMovable(migrate.Now)
	if err := c.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read past its deadline: %v", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		moving(t, c)
		if err := c.SetReadDeadline(time.Now().Add(-time.Second)); err != nil { // while it is being interrupted
			t.Error(err)
		}
		moving(t, c)
		ended <- c.Move(nil)
	}()
	e := a.export(t, user)
	unix.Close(e.FD())
	e.Back()
	if err := <-ended; !errors.Is(err, migrate.ErrStays) {
		t.Fatalf("Move: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read past its deadline: %v", err)
	}
}

// A Write that is interrupted says how much it wrote, and exactly that goes out here.
func TestWriteIsInterruptedAtAByte(t *testing.T) {
	a := newServer(t, migrate.Options{})
	user := dial(t, a.Addr())
	b := a.peer(t, migrate.Options{})
	old := accept(t, a.Listener)
	old.SetMovable(migrate.Now)
	if err := user.(*net.TCPConn).SetReadBuffer(32 << 10); err != nil {
		t.Fatal(err)
	}
	raw, err := old.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 32<<10) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 1<<20) // more than the buffers take
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	ended := make(chan int, 1)
	go func() {
		n, err := old.Write(data)
		if !errors.Is(err, migrate.ErrMoving) {
			t.Errorf("Write: %d, %v, want ErrMoving", n, err)
		}
		ended <- n
		if err := old.Move(nil); err != nil {
			t.Error(err)
		}
	}()
	first := make([]byte, 1)
	if _, err := user.Read(first); err != nil { // it writes
		t.Fatal(err)
	}
	a.move(t, user, b)
	n := <-ended
	if n == 0 || n == len(data) {
		t.Fatalf("%d bytes written of %d: nothing was interrupted", n, len(data))
	}
	c := accept(t, b.Listener)
	go func() {
		c.Write(data[n:])
		c.CloseWrite()
	}()
	got, err := io.ReadAll(user)
	if got = append(first, got...); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came of %d, or others: %v", len(got), len(data), err)
	}
}

// Who closes a connection that is between two owners ends it here alone.
func TestCloseWhileGiven(t *testing.T) {
	for name, settle := range map[string]func(apps.Exported){"gone": apps.Exported.Gone, "back": apps.Exported.Back} {
		t.Run(name, func(t *testing.T) {
			a := newServer(t, migrate.Options{})
			user := dial(t, a.Addr())
			c := accept(t, a.Listener)
			c.SetMovable(migrate.Now)
			ended := make(chan error, 1)
			go func() {
				moving(t, c)
				ended <- c.Move(nil)
			}()
			e := a.export(t, user)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if err := c.Close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("second Close: %v", err)
			}
			if _, err := unix.Write(e.FD(), []byte("open")); err != nil { // the agent's descriptor lives on
				t.Error(err)
			}
			hear(t, user, "open")
			settle(e)
			if err := <-ended; (name == "gone") != (err == nil) || (name == "back") != errors.Is(err, net.ErrClosed) {
				t.Errorf("Move: %v", err)
			}
			unix.Close(e.FD())
			if _, err := user.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("the user hears %v", err)
			}
		})
	}
}

func TestCloseWhileAsked(t *testing.T) {
	a := newServer(t, migrate.Options{})
	user := dial(t, a.Addr())
	c := accept(t, a.Listener)
	c.SetMovable(migrate.Now)
	failed := make(chan error, 1)
	go func() {
		_, err := a.tryExport(t, user)
		failed <- err
	}()
	moving(t, c)
	c.Close()
	if err := <-failed; err == nil {
		t.Error("a closed connection was given away")
	}
	if err := c.Move(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Move: %v", err)
	}
}

// Whoever heard ErrMoving may rely on the others' hearing it, too, also where nobody asks any more.
func TestAskedUntilSaid(t *testing.T) {
	a := newServer(t, migrate.Options{})
	user := dial(t, a.Addr())
	c := accept(t, a.Listener)
	c.SetMovable(migrate.Now)
	ctx, cancel := context.WithCancel(within(t))
	failed := make(chan error, 1)
	go func() {
		_, err := a.agent.Export(ctx, flow(user))
		failed <- err
	}()
	moving(t, c)
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("Export: %v", err)
	}
	moving(t, c)
	eventually(t, "the request is withdrawn", func() bool {
		moving(t, c)
		err := c.Move([]byte("nobody wants it"))
		return errors.Is(err, migrate.ErrStays)
	})
	say(t, user, "hello")
	hear(t, c, "hello")
}
