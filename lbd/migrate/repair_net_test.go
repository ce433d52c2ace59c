package migrate_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/manycast/manycast/lbd/migrate"
	"github.com/manycast/manycast/lbd/migrate/wire"
	"golang.org/x/sys/unix"
)

// repair puts a connection into repair mode, or out of it without a word.
func repair(t *testing.T, fd, mode int) {
	t.Helper()
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, mode); err != nil {
		t.Fatalf("TCP_REPAIR (CAP_NET_ADMIN is needed): %v", err)
	}
}

const repairOffSilently = -1

// hearsNothing checks that the user's connection stays open for a while.
func hearsNothing(t *testing.T, user net.Conn) {
	t.Helper()
	if err := user.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := user.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the user hears %d bytes, %v", n, err)
	}
}

// What the kernel says of a connection decides when the agent dies: nobody hears the end of a frozen one, and a thawed one goes on.
func TestNetAgentDiesWithAFrozenConnection(t *testing.T) {
	for _, thawed := range []bool{false, true} {
		s, l := scripted(t, migrate.Options{})
		user := dial(t, l.Addr())
		c := accept(t, l)
		c.SetMovable(migrate.Now)
		ended := moveSoon(t, c)
		s.asks(1, user)
		_, fd := s.wants(wire.Given, 1)
		repair(t, fd, 1)
		if thawed {
			repair(t, fd, repairOffSilently)
		}
		unix.Close(fd)
		s.Close()
		err := <-ended
		if !thawed {
			if err != nil {
				t.Errorf("a frozen connection: Move: %v", err)
			}
			hearsNothing(t, user)
			continue
		}
		if !errors.Is(err, migrate.ErrStays) {
			t.Errorf("a thawed connection: Move: %v", err)
		}
		say(t, c, "hello")
		hear(t, user, "hello")
	}
}

// A connection that has arrived is not alive before the agent says so: nobody hears its end.
func TestNetAgentDiesWithAnArrival(t *testing.T) {
	for name, end := range map[string]func(*script){
		"dropped":           func(s *script) { s.says(wire.Message{Type: wire.Drop, ID: 1}, -1) },
		"the agent is lost": func(s *script) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := scripted(t, migrate.Options{})
			fd, user := arrival(t)
			repair(t, fd, 1)
			s.arrives(1, fd, user)
			s.wants(wire.Taken, 1)
			end(s)
			hearsNothing(t, user)
		})
	}
}
