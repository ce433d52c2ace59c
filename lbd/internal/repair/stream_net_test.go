package repair

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

// numbered is the bytes of a stream from an offset on: each belongs to its place.
func numbered(offset uint64, n int) []byte {
	o := int(offset % period)
	return pattern[o : o+n]
}

const (
	period  = 65521
	longest = 1 << 18
)

var pattern = func() []byte {
	b := make([]byte, period+longest)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range period {
		b[i] = byte(r.Uint32())
	}
	for i := period; i < len(b); i++ {
		b[i] = b[i-period]
	}
	return b
}()

// end is one end of a connection that streams numbered bytes both ways.
type end struct {
	c        *net.TCPConn
	tx, rx   atomic.Uint64
	chunk    int
	pause    time.Duration
	stopping atomic.Bool
	wg       sync.WaitGroup
	failed   chan error
}

func newEnd(c *net.TCPConn, chunk int, pause time.Duration) *end {
	return &end{c: c, chunk: chunk, pause: pause, failed: make(chan error, 2)}
}

func (e *end) start() {
	e.stopping.Store(false)
	e.wg.Go(func() { e.report(e.read()) })
	e.wg.Go(func() { e.report(e.write()) })
}

func (e *end) report(err error) {
	if err != nil && (!e.stopping.Load() || !errors.Is(err, os.ErrDeadlineExceeded)) {
		e.failed <- err
	}
}

func (e *end) read() error {
	b := make([]byte, longest)
	for {
		n, err := e.c.Read(b)
		if !bytes.Equal(b[:n], numbered(e.rx.Load(), n)) {
			return fmt.Errorf("wrong bytes after %d", e.rx.Load())
		}
		e.rx.Add(uint64(n))
		if err != nil {
			return err
		}
	}
}

func (e *end) write() error {
	for !e.stopping.Load() {
		n, err := e.c.Write(numbered(e.tx.Load(), e.chunk))
		e.tx.Add(uint64(n))
		if err != nil {
			return err
		}
		time.Sleep(e.pause)
	}
	return nil
}

// stop leaves the connection with nobody who reads or writes.
func (e *end) stop() {
	e.stopping.Store(true)
	e.c.SetDeadline(time.Now().Add(-time.Second))
	e.wg.Wait()
}

// stopWriting lets the rest arrive.
func (e *end) stopWriting() { e.stopping.Store(true) }

// with goes on with another connection.
func (e *end) with(c *net.TCPConn) { e.c = c }

func check(t *testing.T, ends ...*end) {
	t.Helper()
	for _, e := range ends {
		select {
		case err := <-e.failed:
			t.Fatal(err)
		default:
		}
	}
}

// TestNetMovesUnderTraffic moves connections that stream both ways to and fro; each byte arrives, once, in its place.
func TestNetMovesUnderTraffic(t *testing.T) {
	for _, c := range []struct {
		name, vip, listen string
		chunk             int
		pause             time.Duration
		moves             int
	}{
		{"paced", vip4, vip4, 1000, time.Millisecond, 150},
		{"pacedIPv6", vip6, vip6, 1000, time.Millisecond, 150},
		{"pacedMapped", vip4, "::", 1000, time.Millisecond, 100},
		{"bulk", vip4, vip4, longest, 0, 60},
		{"bulkIPv6", vip6, vip6, longest, 0, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newNetwork(t, c.vip, c.listen)
			moves := c.moves
			if testing.Short() {
				moves = 10
			}
			streamAndMove(t, w, moves, c.chunk, c.pause)
		})
	}
}

const connections = 3

func streamAndMove(t *testing.T, w *network, moves, chunk int, pause time.Duration) {
	var users, servers []*end
	for range connections {
		u, s := w.connect()
		users, servers = append(users, newEnd(u, chunk, pause)), append(servers, newEnd(s, chunk, pause))
	}
	all := append(append([]*end{}, users...), servers...)
	for _, e := range all {
		e.start()
	}
	for i := range moves {
		awaitProgress(t, all)
		var conns []*net.TCPConn
		for _, s := range servers {
			s.stop()
			conns = append(conns, s.c)
		}
		check(t, all...)
		for j, c := range w.move(conns, 1-i%2) {
			servers[j].with(c)
			servers[j].start()
		}
	}
	for _, e := range all {
		e.stopWriting()
	}
	for i := range users {
		u, s := users[i], servers[i]
		testnet.Eventually(t, 30*time.Second, func() bool { return u.rx.Load() == s.tx.Load() && s.rx.Load() == u.tx.Load() }, "all has arrived")
		u.stop()
		s.stop()
		t.Logf("connection %d: %d bytes up, %d down", i, u.tx.Load(), s.tx.Load())
	}
	check(t, all...)
}

// awaitProgress waits until all have received something more.
func awaitProgress(t *testing.T, ends []*end) {
	t.Helper()
	before := make([]uint64, len(ends))
	for i, e := range ends {
		before[i] = e.rx.Load()
	}
	testnet.Eventually(t, 20*time.Second, func() bool {
		check(t, ends...)

		for i, e := range ends {
			if e.rx.Load() == before[i] {
				return false
			}
		}
		return true
	}, "bytes arrive both ways")
}
