package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/manycast/manycast/lbd/internal/handover"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

// Link is a link with a peer that is known. Send and Close are for any goroutine, Receive for one.
type Link struct {
	Peer Peer

	cfg    Config
	conn   *tls.Conn
	frames frames
	parts  assembler

	mu      sync.Mutex
	queue   queue
	err     error         // why it is down
	waiting chan struct{} // holds one where there is something in the queue
	down    chan struct{}
	writer  sync.WaitGroup
}

// Dial opens a link to the server of that name. Errors say who was called.
func Dial(ctx context.Context, address, name string, cfg Config) (*Link, error) {
	cfg = cfg.withDefaults()
	session, err := cfg.session()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Handshake)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("link to %s: %w", name, err)
	}
	l, err := cfg.call(ctx, tls.Client(raw, session), name)
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("link to %s at %s: %w", name, address, err)
	}
	return l, nil
}

// call says Hello first; the other answers.
func (c Config) call(ctx context.Context, conn *tls.Conn, want string) (*Link, error) {
	l, err := c.handshake(ctx, conn)
	if err != nil {
		return nil, err
	}
	if err := l.say(c.hello(nil)); err != nil {
		return nil, err
	}
	m, err := l.frames.next()
	if err != nil {
		return nil, fmt.Errorf("waiting for Hello: %w", err)
	}
	if l.Peer, err = c.check(m, conn.ConnectionState(), want); err != nil {
		_ = l.say(c.hello(err)) // it may have gone by itself
		return nil, err
	}
	return l.begin(), nil
}

// answer waits for Hello, and answers.
func (c Config) answer(ctx context.Context, conn *tls.Conn) (*Link, error) {
	l, err := c.handshake(ctx, conn)
	if err != nil {
		return nil, err
	}
	m, err := l.frames.next()
	if err != nil {
		return nil, fmt.Errorf("waiting for Hello: %w", err)
	}
	var refusal error
	l.Peer, refusal = c.check(m, conn.ConnectionState(), "")
	if err := l.say(c.hello(refusal)); err != nil && refusal == nil {
		return nil, err
	}
	if refusal != nil {
		_ = conn.CloseWrite() // the answer gets there before the end does
		return nil, refusal
	}
	return l.begin(), nil
}

// handshake is TLS; all until begin has to be over in time.
func (c Config) handshake(ctx context.Context, conn *tls.Conn) (*Link, error) {
	if err := conn.SetDeadline(time.Now().Add(c.Handshake)); err != nil {
		return nil, err
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	if s := conn.ConnectionState(); s.NegotiatedProtocol != protocol {
		return nil, fmt.Errorf("TLS: protocol %q, want %q", s.NegotiatedProtocol, protocol)
	}
	return &Link{
		cfg: c, conn: conn, frames: frames{r: conn, limit: maxHello},
		waiting: make(chan struct{}, 1), down: make(chan struct{}),
	}, nil
}

func (l *Link) say(m *handoverv1.Message) error {
	b, err := appendFrame(nil, m)
	if err != nil {
		return err
	}
	_, err = l.conn.Write(b)
	return err
}

// begin lets the link work.
func (l *Link) begin() *Link {
	l.frames.limit = maxFrame
	l.writer.Go(l.write)
	return l
}

// Send queues messages, to be written at once together with what waits; it never waits itself. An error says that the link is down,
// and wraps why. That there is none does not say that they arrive.
func (l *Link) Send(messages ...handover.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	for _, m := range messages {
		if err := l.queue.add(m); err != nil {
			l.fail(err)
			return l.err
		}
	}
	if n := l.queue.bytes(); n > l.cfg.Queue {
		l.fail(fmt.Errorf("%w: %d bytes wait for it", ErrOverflow, n))
		return l.err
	}
	select {
	case l.waiting <- struct{}{}:
	default:
	}
	return nil
}

// Receive waits for the next message. An error says that the link is down, and wraps why.
func (l *Link) Receive() (handover.Message, error) {
	for {
		if err := l.conn.SetReadDeadline(time.Now().Add(l.cfg.Idle)); err != nil {
			return nil, l.end(err)
		}
		p, err := l.frames.next()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = fmt.Errorf("no word for %v: %w", l.cfg.Idle, err)
			}
			return nil, l.end(err)
		}
		if h := p.GetHello(); h != nil {
			return nil, l.end(fmt.Errorf("%w: %.200s", ErrRefused, nameOr(h.GetError(), "a second Hello")))
		}
		m, err := l.parts.take(p)
		if err != nil {
			return nil, l.end(err)
		}
		if m != nil {
			return m, nil
		}
	}
}

// Close ends the link. What waits to be written is dropped.
func (l *Link) Close() error {
	_ = l.end(errors.New("closed here"))
	l.writer.Wait()
	return nil
}

// Down is closed when the link is.
func (l *Link) Down() <-chan struct{} { return l.down }

// end takes the link down, and says why it is: the first reason counts.
func (l *Link) end(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail(err)
	return l.err
}

// fail is end under the lock.
func (l *Link) fail(err error) {
	if l.err != nil {
		return
	}
	l.err = fmt.Errorf("link with %s: %w: %w", l.Peer.Name, ErrDown, err)
	l.queue = queue{}
	close(l.down)
	_ = l.conn.NetConn().Close() // TLS's own close would wait for a peer that does not read
}

// maxWrite is what one write may have, so that its deadline means something.
const maxWrite = 256 << 10

// write is the writer's goroutine.
func (l *Link) write() {
	alive := time.NewTicker(l.cfg.Alive)
	defer alive.Stop()
	var buf []byte
	for {
		select {
		case <-l.down:
			return
		case <-l.waiting:
		case <-alive.C:
			if err := l.writeAll(l.aliveFrame(buf[:0])); err != nil {
				_ = l.end(err)
				return
			}
		}
		for {
			l.mu.Lock()
			var err error
			buf, err = l.queue.next(buf)
			l.mu.Unlock()
			if err == nil && len(buf) == 0 {
				break
			}
			if err == nil {
				err = l.writeAll(buf)
			}
			if err != nil {
				_ = l.end(err)
				return
			}
		}
	}
}

func (l *Link) aliveFrame(b []byte) []byte {
	b, err := appendFrame(b, &handoverv1.Message{About: &handoverv1.Message_Alive{Alive: &handoverv1.Alive{}}})
	if err != nil {
		panic("peer: " + err.Error()) // it is empty
	}
	return b
}

func (l *Link) writeAll(b []byte) error {
	for len(b) > 0 {
		if err := l.conn.SetWriteDeadline(time.Now().Add(l.cfg.Stall)); err != nil {
			return err
		}
		n, err := l.conn.Write(b[:min(maxWrite, len(b))])
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("%w for %v: %w", ErrOverflow, l.cfg.Stall, err)
			}
			return err
		}
		b = b[n:]
	}
	return nil
}
