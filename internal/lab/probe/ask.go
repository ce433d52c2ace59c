package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/manycast/manycast/internal/netns"
)

// Asker is users that ask by UDP at an even pace, each question with a number, and note which were answered: what fails for some
// milliseconds shows.
type Asker struct {
	every time.Duration // between two questions of one user
	users []*asking
	quiet atomic.Bool // nobody asks
	stop  chan struct{}
	done  sync.WaitGroup
}

// asking is one user.
type asking struct {
	user netip.Addr
	conn *net.UDPConn

	mu        sync.Mutex
	questions []question // by number
	twice     []Twice
}

type question struct {
	at       time.Time
	answered bool
	by       string // the first who did
}

// Twice is a question that was answered more than once: two servers had it, or one had it twice.
type Twice struct {
	Asked  time.Time
	First  string
	Second string
}

// multicastTTL lets questions to a group pass some routers.
const multicastTTL = 16

// Ask starts users that ask to, a server or a group. An answer begins with the server's name and a space, and ends with what was sent.
func Ask(ns *netns.Namespace, users []netip.Addr, to netip.AddrPort, every time.Duration) (*Asker, error) {
	a := &Asker{every: every, stop: make(chan struct{})}
	for _, u := range users {
		err := ns.Do(func() error {
			c, err := (&net.ListenConfig{}).ListenPacket(context.Background(), "udp4", netip.AddrPortFrom(u, 0).String())
			if err != nil {
				return err
			}
			a.users = append(a.users, &asking{user: u, conn: c.(*net.UDPConn)})
			return ipv4.NewPacketConn(c).SetMulticastTTL(multicastTTL)
		})
		if err != nil {
			a.close()
			return nil, fmt.Errorf("user %v: %w", u, err)
		}
	}
	for _, u := range a.users {
		a.done.Go(u.listen)
	}
	a.done.Go(func() { a.run(to) })
	return a, nil
}

func (a *Asker) close() {
	for _, u := range a.users {
		u.conn.Close()
	}
}

func (u *asking) listen() {
	buf := make([]byte, 2048)
	for {
		n, _, err := u.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < payloadBytes {
			continue
		}
		server, _, _ := bytes.Cut(buf[:n-payloadBytes], []byte(" "))
		u.answer(binary.BigEndian.Uint64(buf[n-payloadBytes:]), string(server))
	}
}

func (u *asking) answer(number uint64, server string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if number >= uint64(len(u.questions)) {
		return
	}
	q := &u.questions[number]
	if q.answered {
		u.twice = append(u.twice, Twice{Asked: q.at, First: q.by, Second: server})
	}
	q.answered, q.by = true, server
}

// run asks whatever is due, the users in turn.
func (a *Asker) run(to netip.AddrPort) {
	pace := a.every / time.Duration(len(a.users))
	tick := time.NewTicker(pace)
	defer tick.Stop()
	payload := make([]byte, payloadBytes)
	asked := 0
	for began := time.Now(); ; {
		select {
		case <-a.stop:
			return
		case <-tick.C:
		}
		for due := int(time.Since(began) / pace); asked < due; asked++ {
			if a.quiet.Load() {
				continue
			}
			u := a.users[asked%len(a.users)]
			u.mu.Lock()
			binary.BigEndian.PutUint64(payload, uint64(len(u.questions)))
			u.questions = append(u.questions, question{at: time.Now()})
			u.mu.Unlock()
			_, _ = u.conn.WriteToUDPAddrPort(payload, to) // one that does not leave is not answered
		}
	}
}

// Pause has nobody ask, or all again.
func (a *Asker) Pause(quiet bool) { a.quiet.Store(quiet) }

// Stop ends the users.
func (a *Asker) Stop() {
	close(a.stop)
	a.close()
	a.done.Wait()
}

// Gap is what questions tell of a time.
type Gap struct {
	Asked   int
	Lost    int           // questions that were not answered
	Longest time.Duration // that a user had no answer, beyond its pace; 0 where none was lost
	Last    time.Time     // the last question that was lost

	User  netip.Addr // whose the longest was
	Since time.Time  // when it began
}

// Twice are the questions of all users that were answered more than once.
func (a *Asker) Twice() (all []Twice) {
	for _, u := range a.users {
		u.mu.Lock()
		all = append(all, u.twice...)
		u.mu.Unlock()
	}
	return all
}

// Gap judges the questions from one time to another. Leave the last of them time for their answers.
func (a *Asker) Gap(from, to time.Time) (g Gap) {
	for _, u := range a.users {
		u.mu.Lock()
		before := g.Longest
		g.add(u.questions, from, to, a.every)
		u.mu.Unlock()
		if g.Longest > before {
			g.User = u.user
		}
	}
	return g
}

func (g *Gap) add(questions []question, from, to time.Time, every time.Duration) {
	var answered, lost time.Time // the last that was, the first that was not since
	end := func(at time.Time) {
		if lost.IsZero() {
			return
		}
		since := answered
		if since.IsZero() {
			since = lost
		}
		if silent := at.Sub(since) - every; silent > g.Longest {
			g.Longest, g.Since = silent, since
		}
		lost = time.Time{}
	}
	for _, q := range questions {
		switch {
		case q.at.Before(from) && q.answered:
			answered = q.at
		case q.at.Before(from):
		case !q.at.Before(to):
			if q.answered {
				end(q.at)
				return
			}
		case q.answered:
			g.Asked++
			end(q.at)
			answered = q.at
		default:
			g.Asked++
			g.Lost++
			if lost.IsZero() {
				lost = q.at
			}
			if q.at.After(g.Last) {
				g.Last = q.at
			}
		}
	}
	end(to)
}
