package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/manycast/manycast/internal/lab/numbered"
	"github.com/manycast/manycast/lbd/migrate"
)

// stream is the server's end of one stream of numbered bytes both ways. Another server goes on with it where it has the same fields.
type stream struct {
	Hello  numbered.Hello
	Source numbered.Source
	Sink   numbered.Sink
	Rest   []byte // of a word that was begun
}

// helloWithin is how long a user may take to begin its stream.
const helloWithin = 10 * time.Second

// greet reads how a user begins.
func greet(c net.Conn) (*stream, error) {
	if err := c.SetReadDeadline(time.Now().Add(helloWithin)); err != nil {
		return nil, err
	}
	p := make([]byte, numbered.HelloBytes)
	if _, err := io.ReadFull(c, p); err != nil {
		return nil, err
	}
	h, err := numbered.ParseHello(p)
	if err != nil {
		return nil, err
	}
	return &stream{
		Hello: h, Source: numbered.Source{Stream: h.Stream}, Sink: numbered.Sink{Stream: h.Stream},
	}, c.SetReadDeadline(time.Time{})
}

// arrived is a stream that goes on here.
func arrived(state []byte) (*stream, error) {
	var s stream
	if err := json.Unmarshal(state, &s); err != nil {
		return nil, fmt.Errorf("state of a stream: %w", err)
	}
	return &s, nil
}

func checkStream(state []byte) error {
	_, err := arrived(state)
	return err
}

// serve works with a stream until its end, or until another server goes on with it.
func (s *stream) serve(ctx context.Context, c *migrate.Conn) error {
	for {
		c.SetMovable(migrate.Now)
		if err := s.run(ctx, c); !errors.Is(err, migrate.ErrMoving) {
			return err
		}
		state, err := json.Marshal(s)
		if err != nil {
			return err
		}
		if err := c.Move(state); !errors.Is(err, migrate.ErrStays) {
			return err
		}
	}
}

// movable is a *migrate.Conn, as far as a stream's work needs it.
type movable interface {
	net.Conn
	SetMovable(migrate.When)
}

// run sends and receives until the user has sent all it wants to, and then says what came. With migrate.ErrMoving the stream can go on elsewhere.
func (s *stream) run(ctx context.Context, c movable) error {
	if err := s.Hello.Limit(c); err != nil {
		return fmt.Errorf("stream %d: %w", s.Hello.Stream, err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	received := make(chan error, 1)
	go func() {
		received <- s.receive(c)
		stop()
	}()
	rest, sendErr := s.Source.Send(ctx, c, s.Hello, s.Rest)
	s.Rest = rest
	if sendErr != nil && !errors.Is(sendErr, migrate.ErrMoving) {
		c.Close() // a reset need not wake the reader
	}
	if err := errors.Join(sendErr, <-received); err != nil {
		return err
	}
	c.SetMovable(migrate.Never) // what is left is said at once
	said, err := json.Marshal(s.Sink.Seen)
	if err != nil {
		return err
	}
	_, err = c.Write(append(s.Source.AppendEnd(nil), said...))
	return err
}

func (s *stream) receive(c net.Conn) error {
	buf := make([]byte, 64<<10)
	for !s.Sink.Ended {
		n, err := c.Read(buf)
		s.Sink.Take(buf[:n])
		if err != nil && !s.Sink.Ended {
			return err
		}
	}
	return nil
}

// serveStreams serves streams until the listener is closed.
func (a *App) serveStreams(ctx context.Context) error {
	for {
		c, err := a.streams.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("streams: %w", err)
		}
		a.served.Go(func() {
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			a.serveStream(ctx, c.(*migrate.Conn)) //nolint:errcheck // the user says how it ended
		})
	}
}

func (a *App) serveStream(ctx context.Context, c *migrate.Conn) (err error) {
	var s *stream
	if state, ok := c.Imported(); ok {
		s, err = arrived(state)
	} else {
		s, err = greet(c)
	}
	if err != nil {
		return err
	}
	s.Source.Writer = a.number
	return s.serve(ctx, c)
}
