package migrate

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// ServeHTTP serves srv on l as srv.Serve does, and has keep-alive connections move between requests. While a request is served, or part of
// one has come, a connection that is asked to leave waits. Hijacked ones stay, and all where srv.Protocols has unencrypted HTTP/2.
//
// What the application keeps for a connection between requests belongs in the context that srv.ConnContext makes for
// it, from the bytes that Conn.Imported returns: ConnContext and ConnState are called with a *Conn. export returns these bytes, of that
// context, when the connection is about to leave; with an error it stays. No request is served meanwhile. nil: nothing travels.
//
// Options.Movable of l is best Later. ServeHTTP sets srv.ConnContext and srv.ConnState to functions that call those that were there.
func ServeHTTP(srv *http.Server, l *Listener, export func(ctx context.Context) ([]byte, error)) error {
	if srv.Protocols != nil && srv.Protocols.UnencryptedHTTP2() {
		return srv.Serve(stayingListener{l})
	}
	if export == nil {
		export = func(context.Context) ([]byte, error) { return nil, nil }
	}
	was := srv.ConnContext
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		h, ok := c.(*httpConn)
		if ok {
			c = h.Conn
		}
		if was != nil {
			ctx = was(ctx, c)
		}
		if ok {
			h.context = ctx
		}
		return ctx
	}
	told := srv.ConnState
	srv.ConnState = func(c net.Conn, s http.ConnState) {
		if h, ok := c.(*httpConn); ok {
			h.enter(s)
			c = h.Conn
		}
		if told != nil {
			told(c, s)
		}
	}
	wait := srv.IdleTimeout
	if wait == 0 {
		wait = srv.ReadTimeout
	}
	return srv.Serve(httpListener{l, export, wait})
}

type httpListener struct {
	*Listener
	export func(context.Context) ([]byte, error)
	wait   time.Duration // of a connection for its next request, 0 or less: for ever
}

func (l httpListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := c.(*Conn)
	conn.SetMovable(Later)
	h := &httpConn{Conn: conn, export: l.export, wait: l.wait}
	_, h.imported = conn.Imported()
	h.idle.Store(true)
	return h, nil
}

// stayingListener is for HTTP/2: what it knows of a connection cannot be had from outside net/http.
type stayingListener struct{ *Listener }

func (l stayingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.(*Conn).SetMovable(Never)
	return c, nil
}

// httpConn is a connection as net/http has it. That reads ahead, into a buffer of its own. It reads as much as the buffer has room for, so
// a Read with as much room as the first one had shows that nothing is left in there, and while it waits the connection may move. Where
// that is not so, the start of a request is in the buffer.
type httpConn struct {
	*Conn
	export  func(context.Context) ([]byte, error)
	context context.Context
	room    int         // of the first Read
	idle    atomic.Bool // no part of a request has come since the last one

	imported bool          // and net/http has yet to say how long it may be silent
	wait     time.Duration // so long a connection may be silent between requests
	header   time.Duration // so long the next request's head may take once it has begun; 0: as net/http says
}

// SetReadDeadline has a connection that has come from elsewhere wait for its next request as others do between requests: net/http takes it for a
// new one, which has to say something soon.
func (c *httpConn) SetReadDeadline(t time.Time) error {
	if !c.imported {
		return c.Conn.SetReadDeadline(t)
	}
	c.imported = false
	if !t.IsZero() {
		c.header = time.Until(t)
	}
	if t = (time.Time{}); c.wait > 0 {
		t = time.Now().Add(c.wait)
	}
	return c.Conn.SetReadDeadline(t)
}

// enter hears what net/http says of the connection.
func (c *httpConn) enter(s http.ConnState) {
	switch s {
	case http.StateIdle:
		c.idle.Store(true)
	case http.StateHijacked:
		c.SetMovable(Never)
	}
}

// Read reads, and moves the connection where that is asked for meanwhile: then it ends with io.EOF, so that net/http closes the shell.
func (c *httpConn) Read(p []byte) (int, error) {
	if c.room == 0 {
		c.room = len(p)
	}
	if !c.idle.Load() || len(p) != c.room {
		return c.Conn.Read(p)
	}
	c.SetMovable(Now)
	for {
		n, err := c.Conn.Read(p)
		if errors.Is(err, ErrMoving) && !c.leave() {
			continue
		}
		c.idle.Store(false)
		c.SetMovable(Later)
		if c.header > 0 && n > 0 {
			_ = c.Conn.SetReadDeadline(time.Now().Add(c.header)) // a closed connection ends without
			c.header = 0
		}
		if errors.Is(err, ErrMoving) {
			err = io.EOF
		}
		return n, err
	}
}

// leave reports whether the connection is not ours any more.
func (c *httpConn) leave() bool {
	state, err := c.export(c.context)
	if err != nil {
		c.Stay(err.Error())
		return false
	}
	return !errors.Is(c.Move(state), ErrStays)
}

// ReadFrom lets responses be sent by the kernel (sendfile). No move interrupts it: the connection is not idle.
func (c *httpConn) ReadFrom(r io.Reader) (int64, error) {
	turn, err := c.begin()
	if err != nil {
		return 0, err
	}
	defer c.end(turn)
	return c.tcp.ReadFrom(r)
}
