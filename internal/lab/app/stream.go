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
func greet(c net.Conn, writer uint8) (*stream, error) {
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
		Hello: h, Source: numbered.Source{Stream: h.Stream, Writer: writer}, Sink: numbered.Sink{Stream: h.Stream},
	}, c.SetReadDeadline(time.Time{})
}

// run sends and receives until the user has sent all it wants to, and then says what came. A deadline in the past ends it before:
// then the stream can go on elsewhere.
func (s *stream) run(ctx context.Context, c net.Conn) error {
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
	if sendErr != nil && !numbered.HeldUp(sendErr) {
		c.Close() // a reset need not wake the reader
	}
	if err := errors.Join(sendErr, <-received); err != nil {
		return err
	}
	said, err := json.Marshal(s.Sink.Seen)
	if err != nil {
		return err
	}
	_, err = c.Write(append(s.Source.AppendEnd(nil), said...))
	return err
}

func (s *stream) receive(c net.Conn) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		s.Sink.Take(buf[:n])
		switch {
		case s.Sink.Ended:
			return nil
		case err != nil:
			return err
		}
	}
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
			if s, err := greet(c, a.number); err == nil {
				s.run(ctx, c) //nolint:errcheck // the user says how it ended
			}
		})
	}
}
