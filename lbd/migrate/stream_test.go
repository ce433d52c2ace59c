package migrate_test

import (
	"bufio"
	"errors"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/manycast/manycast/lbd/migrate"
	"golang.org/x/sys/unix"
)

// streams serves streams on a server until the test ends.
func streams(t *testing.T, s *server) *server {
	t.Helper()
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			all.Go(func() { serveStream(c.(*migrate.Conn)) })
		}
	})
	t.Cleanup(func() { s.Close(); all.Wait() })
	return s
}

// A stream in both directions goes through three servers again and again, and sometimes is given back: its user sees one stream.
func TestStreamMoves(t *testing.T) {
	moves := 200
	if testing.Short() {
		moves = 40
	}
	o := migrate.Options{Movable: migrate.Later}
	a := newServer(t, o)
	user := dial(t, a.Addr())
	servers := []*server{streams(t, a), streams(t, a.peer(t, o)), streams(t, a.peer(t, o))}
	if err := user.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close() }) // before the servers wait for their streams
	var traffic sync.WaitGroup
	traffic.Go(func() { readNumbers(t, user) })
	traffic.Go(func() { writeUntilClosed(user) })

	at := 0
	for i := range moves {
		if i%5 == 4 {
			e := servers[at].export(t, user)
			unix.Close(e.FD())
			e.Back()
			continue
		}
		next := (at + 1) % len(servers)
		servers[at].move(t, user, servers[next])
		at = next
	}
	user.Close()
	traffic.Wait()
}

// readNumbers wants the numbers in order, none lost or doubled.
func readNumbers(t *testing.T, user net.Conn) {
	lines := bufio.NewScanner(user)
	n := 0
	for ; lines.Scan(); n++ {
		if lines.Text() != strconv.Itoa(n) {
			t.Errorf("number %d reads %q", n, lines.Text())
			user.Close()
			return
		}
	}
	if err := lines.Err(); n == 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("the stream ended after %d numbers: %v", n, err)
	}
}

func writeUntilClosed(user net.Conn) {
	for {
		if _, err := user.Write([]byte("some bytes for the server")); err != nil {
			return
		}
	}
}
