package traffic

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// conn reports how it ends. While a request is on it, the request's outcome is waited for: only that tells an answer that was
// given up from one that was read to its end.
type conn struct {
	net.Conn
	user   netip.Addr
	id     int64
	opened time.Time
	emit   func(Event)

	mu     sync.Mutex
	busy   bool
	failed bool // the last request on it failed
	kept   bool // it may serve more than one request
	server string
	last   time.Time // when that answered
	heard  int       // answers
	end    *Event    // how it ended, once it has
	sent   bool
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.check(err)
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.check(err)
	return n, err
}

func (c *conn) Close() error {
	c.ended(Own, nil)
	return c.Conn.Close()
}

func (c *conn) check(err error) {
	switch how := endOf(err); how {
	case "":
	case EOF:
		c.ended(EOF, nil)
	default:
		c.ended(how, err)
	}
}

// endOf is how a connection ended by an error of its socket; empty where it did not.
func endOf(err error) How {
	switch {
	case err == nil, errors.Is(err, net.ErrClosed):
		return ""
	case errors.Is(err, io.EOF):
		return EOF
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Reset
	default:
		return Other
	}
}

func (c *conn) ended(how How, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end == nil {
		c.end = &Event{Kind: Close, User: c.user, Start: c.opened, End: time.Now(), Conn: c.id, How: how}
		if err != nil {
			c.end.Err = err.Error()
		}
	}
	c.report()
}

// take marks the connection as used by a request.
func (c *conn) take() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = true
}

// count takes an answer that says how many there were on the connection: another number than the user's is another session.
func (c *conn) count(said string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard++
	if said != "" && said != strconv.Itoa(c.heard) {
		return fmt.Errorf("session lost: answer %d on the connection says that it is number %s", c.heard, said)
	}
	return nil
}

// release says how the request on it went; server is who answered.
func (c *conn) release(server string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy, c.failed = false, !ok
	if ok {
		c.server, c.last = server, time.Now()
	}
	c.report()
}

// since is when it was opened, where it serves more than one request.
func (c *conn) since() time.Time {
	if c.kept {
		return c.opened
	}
	return time.Time{}
}

// report sends the end once no request is on the connection. The caller holds mu.
func (c *conn) report() {
	if c.end == nil || c.busy || c.sent {
		return
	}
	c.sent = true
	e := *c.end
	switch {
	case e.How == Own && c.failed:
		e.How = Timeout
	case e.How == EOF && !c.kept && !c.failed:
		e.How = Own // the server closes first what is not kept alive
	}
	e.Server, e.Heard = c.server, c.last
	c.emit(e)
}
