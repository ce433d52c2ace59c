package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/manycast/manycast/internal/lab/numbered"
)

// Streams are users with long-lived connections on which numbered bytes go both ways.
type Streams struct {
	Users   []netip.Addr
	Address string   // host:port
	Servers []string // their names, in the order of their numbers, from 1
}

// profile is a kind of stream.
type profile struct {
	name     string
	oneIn    int // every so many users have one
	down, up numbered.Hello
}

// The kinds. Bulk is no more than the kernel of its sender lets go, so that the sender's queue is full and the machine has time for others.
var profiles = []profile{
	{"stream", 1, paced(50*time.Millisecond, 8), paced(50*time.Millisecond, 8)},
	{Paced, 16, paced(time.Millisecond, 8), paced(time.Millisecond, 8)},
	{Bulk, 24, numbered.Hello{Words: 2048, Rate: 1 << 20}, paced(100*time.Millisecond, 1)},
	{"upload", 24, paced(100*time.Millisecond, 1), numbered.Hello{Words: 2048, Rate: 1 << 20}},
}

// Kinds of streams whose waits tell something: data each millisecond, and as much as the kernel sends.
const (
	Paced = "paced"
	Bulk  = "bulk"
)

func paced(pace time.Duration, words uint16) numbered.Hello {
	return numbered.Hello{Pace: pace, Words: words}
}

const (
	silentAfter = 3 * time.Second       // a stream without data for that long is given up
	waitsEvery  = 50 * time.Millisecond // the longest wait of each such time is told
	redialAfter = 10 * time.Millisecond
)

// Run runs the streams until ctx is done, ends them in peace, and writes their events to w, one JSON object a line.
func (s *Streams) Run(ctx context.Context, w io.Writer) error {
	if len(s.Users) == 0 || len(s.Servers) == 0 || len(s.Servers) > numbered.MaxWriter {
		return fmt.Errorf("streams: want users, and 1 to %d servers", numbered.MaxWriter)
	}
	out := &output{enc: json.NewEncoder(w)}
	group, ctx := errgroup.WithContext(ctx)
	for i, user := range s.Users {
		for k, p := range profiles {
			if i%p.oneIn == k%p.oneIn {
				u := &subscriber{Streams: s, user: user, profile: p, out: out}
				group.Go(func() error { return u.run(ctx) })
			}
		}
	}
	return group.Wait()
}

// subscriber is one user's streams of one kind, one after the other.
type subscriber struct {
	*Streams
	user    netip.Addr
	profile profile
	out     *output
	heard   time.Time // the last data, also on the stream before
}

func (u *subscriber) run(ctx context.Context) error {
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(u.user, 0)), Timeout: firstWithin, KeepAlive: -1}
	for ctx.Err() == nil {
		if err := u.out.err(); err != nil {
			return err // nobody reads
		}
		c, err := dialer.DialContext(ctx, "tcp4", u.Address)
		if err == nil {
			u.stream(ctx, c)
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(redialAfter):
		}
	}
	return nil
}

// stream works with one connection to its end.
func (u *subscriber) stream(ctx context.Context, c net.Conn) {
	defer c.Close()
	now := time.Now()
	e := Event{User: u.user, Start: now, End: now, Conn: u.out.conns.Add(1), Stream: u.profile.name}
	e.Kind = Open
	u.out.emit(e)
	r := &reader{subscriber: u, conn: e.Conn, sink: numbered.Sink{Stream: uint16(e.Conn)}}
	up, err := u.exchange(ctx, c, r)
	e.Kind, e.End, e.Server, e.Bytes = Close, time.Now(), r.server, &Bytes{Down: r.sink.Seen, Up: up}
	switch {
	case err == nil:
		e.How = Own
	case errors.Is(err, errSilent):
		e.How, e.Err = Timeout, err.Error()
	default:
		e.How, e.Err = endOf(err), err.Error()
	}
	u.out.emit(e)
}

var errSilent = fmt.Errorf("no data for %v", silentAfter)

// exchange sends and receives until ctx is done, and then learns what came to the server.
func (u *subscriber) exchange(ctx context.Context, c net.Conn, r *reader) (up *numbered.Counts, err error) {
	hello := u.profile.down
	hello.Stream = r.sink.Stream
	if err := u.profile.up.Limit(c); err != nil {
		return nil, err
	}
	if _, err := c.Write(hello.Append(nil)); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	type received struct {
		behind []byte
		err    error
	}
	done := make(chan received, 1)
	go func() {
		behind, err := r.read(c)
		done <- received{behind, err}
		stop()
		c.SetWriteDeadline(time.Now()) //nolint:errcheck // a writer that waits for room has nothing to wait for
	}()
	source := numbered.Source{Stream: hello.Stream}
	_, sendErr := source.Send(ctx, c, u.profile.up, nil)
	if sendErr == nil {
		_, sendErr = c.Write(source.AppendEnd(nil))
	}
	d := <-done
	switch {
	case d.err != nil && !errors.Is(sendErr, syscall.ECONNRESET):
		return nil, d.err
	case sendErr != nil: // who writes is told of a reset, who reads has then come to the end
		return nil, sendErr
	}
	up = new(numbered.Counts)
	if err := json.Unmarshal(d.behind, up); err != nil {
		return nil, fmt.Errorf("the server's last words: %w", io.ErrUnexpectedEOF)
	}
	return up, nil
}

// reader reads what the server sends, and notes waits.
type reader struct {
	*subscriber
	conn   int64
	sink   numbered.Sink
	server string // who wrote last
	worst  Event  // the longest wait since told
	told   time.Time
}

// read reads to the end of the connection. An end before the stream's is an error.
func (r *reader) read(c net.Conn) (behind []byte, err error) {
	buf := make([]byte, 64<<10)
	for {
		if err := c.SetReadDeadline(time.Now().Add(silentAfter)); err != nil {
			return nil, err
		}
		n, err := c.Read(buf)
		if n > 0 && !r.sink.Ended {
			behind = r.sink.Take(buf[:n])
			r.note(time.Now())
		} else {
			behind = append(behind, buf[:n]...)
		}
		switch {
		case errors.Is(err, io.EOF) && r.sink.Ended:
			return behind, nil
		case numbered.HeldUp(err):
			return nil, errSilent
		case err != nil:
			return nil, err
		case len(behind) > len(buf):
			return nil, errors.New("the server says more at the end than it has to say")
		}
	}
}

// note takes note of data.
func (r *reader) note(now time.Time) {
	e := Event{User: r.user, Start: r.heard, End: now, Conn: r.conn, Stream: r.profile.name, Pace: r.profile.down.Pace}
	if name := r.writer(); name != r.server {
		s := e
		s.Kind, s.Server, s.OK = Switch, name, r.server != ""
		if !r.heard.IsZero() {
			r.out.emit(s)
		}
		r.server = name
	}
	if e.Kind = Wait; !r.heard.IsZero() && e.End.Sub(e.Start) > r.worst.End.Sub(r.worst.Start) {
		e.Server = r.server
		r.worst = e
	}
	r.heard = now
	if now.Sub(r.told) >= waitsEvery && (r.profile.name == Paced || r.profile.name == Bulk) {
		if r.worst.Kind == Wait {
			r.out.emit(r.worst)
		}
		r.worst, r.told = Event{}, now
	}
}

// writer is the server that wrote last.
func (r *reader) writer() string {
	if w := int(r.sink.Writer); w > 0 && w <= len(r.Servers) {
		return r.Servers[w-1]
	}
	return ""
}
