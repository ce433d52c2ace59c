package traffic

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Flows are users with flows of UDP that last, as QUIC has them: numbered datagrams, each of which is sent back. A flow belongs to the server that
// answers it first; where another one answers it is over.
type Flows struct {
	Users   []netip.Addr
	Address string        // host:port of who sends datagrams back, its name and a space in front
	Pace    time.Duration // between two datagrams of a flow
	Age     time.Duration // each user has one flow that lasts, and one that is followed by another when it is so old
}

const (
	flowSilent = 2 * time.Second        // a flow without an answer for that long is given up
	lastAnswer = 200 * time.Millisecond // answers to the last datagrams may take
	numberSize = 8
)

// Run runs the flows until ctx is done, ends them in peace, and writes their events to w, one JSON object a line.
func (f *Flows) Run(ctx context.Context, w io.Writer) error {
	if len(f.Users) == 0 || f.Pace <= 0 || f.Age <= 0 {
		return errors.New("flows: want users, a time between datagrams, and an age")
	}
	out := &output{enc: json.NewEncoder(w)}
	group, ctx := errgroup.WithContext(ctx)
	for _, user := range f.Users {
		group.Go(func() error { return f.keep(ctx, out, user, 0) })
		group.Go(func() error { return f.keep(ctx, out, user, f.Age) })
	}
	return group.Wait()
}

// keep has a user have a flow, and another one when that is over; age 0: it lasts.
func (f *Flows) keep(ctx context.Context, out *output, user netip.Addr, age time.Duration) error {
	dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(user, 0))}
	for ctx.Err() == nil {
		if err := out.err(); err != nil {
			return err // nobody reads
		}
		c, err := dialer.DialContext(context.WithoutCancel(ctx), "udp4", f.Address) // which waits for nothing
		if err != nil {
			return fmt.Errorf("flow of %v: %w", user, err)
		}
		out.emit(f.flow(ctx, &flow{conn: c}, Event{Kind: Flow, User: user, Start: time.Now(), Conn: out.conns.Add(1)}, age))
	}
	return nil
}

// flow works with one flow to its end, and says what became of it.
func (f *Flows) flow(ctx context.Context, u *flow, e Event, age time.Duration) Event {
	if age > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, age)
		defer stop()
	}
	u.heard, u.other = e.Start, make(chan string, 1)
	var done sync.WaitGroup
	done.Go(u.listen)
	e.How = Own
	if err := u.send(ctx, f.Pace); err != nil {
		e.How, e.Err = Other, err.Error()
		if errors.Is(err, errUnanswered) {
			e.How = Timeout
		}
	}
	e.End = time.Now()
	u.conn.Close()
	done.Wait()
	e.Server, e.Datagrams = u.server, &u.seen
	return e
}

// flow is one flow.
type flow struct {
	conn  net.Conn
	other chan string // has another server that has answered

	mu       sync.Mutex
	server   string
	answered []bool // by number
	heard    time.Time
	seen     Datagrams
}

var (
	errTaken      = errors.New("answers on the flow of another server")
	errUnanswered = errors.New("no answer")
)

// send sends datagrams until ctx is done, and waits for the last answers. An error says that the flow is over.
func (u *flow) send(ctx context.Context, pace time.Duration) error {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		if silent := u.next(); silent > flowSilent {
			return fmt.Errorf("%w for %v", errUnanswered, silent.Round(time.Millisecond))
		}
		select {
		case <-tick.C:
			continue
		case name := <-u.other:
			return fmt.Errorf("%s %w", name, errTaken)
		case <-ctx.Done():
		}
		select {
		case name := <-u.other:
			return fmt.Errorf("%s %w", name, errTaken)
		case <-time.After(lastAnswer):
			return nil
		}
	}
}

// next sends a datagram, and says for how long there was no answer.
func (u *flow) next() (silent time.Duration) {
	u.mu.Lock()
	number := uint64(len(u.answered))
	u.answered = append(u.answered, false)
	u.seen.Sent++
	silent = time.Since(u.heard)
	u.mu.Unlock()
	_, _ = u.conn.Write(binary.BigEndian.AppendUint64(nil, number)) // one that does not leave is not answered
	return silent
}

// listen takes answers until the socket is closed.
func (u *flow) listen() {
	buf := make([]byte, 2048)
	for {
		n, err := u.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n > numberSize { // an error is an ICMP message's: nobody was there for one datagram
			u.take(time.Now(), buf[:n])
		}
	}
}

func (u *flow) take(now time.Time, p []byte) {
	server, _, _ := bytes.Cut(p[:len(p)-numberSize], []byte(" "))
	number := binary.BigEndian.Uint64(p[len(p)-numberSize:])
	u.mu.Lock()
	defer u.mu.Unlock()
	if number >= uint64(len(u.answered)) {
		return
	}
	if u.answered[number] {
		u.seen.Doubled++
	} else {
		u.seen.Answered++
	}
	u.answered[number], u.heard = true, now
	if u.server == "" {
		u.server = string(server)
	}
	if u.server != string(server) {
		select {
		case u.other <- string(server):
		default:
		}
	}
}
