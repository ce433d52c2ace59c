package migrate_test

import (
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/manycast/manycast/lbd/migrate"
)

// BenchmarkMove moves idle connections to another server and back, many at once: what the application and the unix sockets of two agents
// cost, without that which is done to the sockets between.
func BenchmarkMove(b *testing.B) {
	const connections, atOnce = 1000, 256
	o := migrate.Options{Movable: migrate.Later}
	first := newServer(b, o)
	users := make(chan net.Conn, connections)
	for range connections {
		users <- dial(b, first.Addr())
	}
	second := first.peer(b, o)
	var serving sync.WaitGroup
	for _, s := range []*server{first, second} {
		serving.Go(func() { serveIdle(s, &serving) })
	}
	at := map[net.Conn]*server{}
	var mu sync.Mutex
	other := func(user net.Conn) (from, to *server) {
		mu.Lock()
		defer mu.Unlock()
		from, to = first, second
		if at[user] == second {
			from, to = second, first
		}
		at[user] = to
		return from, to
	}
	var workers sync.WaitGroup
	moves := make(chan struct{}, b.N)
	for range b.N {
		moves <- struct{}{}
	}
	close(moves)
	b.ResetTimer()
	for range atOnce {
		workers.Go(func() {
			for range moves {
				user := <-users
				from, to := other(user)
				from.move(b, user, to)
				users <- user
			}
		})
	}
	workers.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "moves/s")
	b.StopTimer()
	for range connections {
		(<-users).Close()
	}
	first.Close()
	second.Close()
	serving.Wait()
}

// serveIdle has the connections wait, and move with 100 bytes.
func serveIdle(s *server, serving *sync.WaitGroup) {
	for {
		c, err := s.Accept()
		if err != nil {
			return
		}
		serving.Go(func() {
			c := c.(*migrate.Conn)
			defer c.Close()
			c.SetMovable(migrate.Now)
			for {
				_, err := c.Read(make([]byte, 1))
				if !errors.Is(err, migrate.ErrMoving) || !errors.Is(c.Move(make([]byte, 100)), migrate.ErrStays) {
					return
				}
			}
		})
	}
}
