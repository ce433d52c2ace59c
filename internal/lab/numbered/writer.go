package numbered

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Send writes words as the hello says until ctx is done or the writer is held up (os.ErrDeadlineExceeded); rest is the end of a word that was
// begun, and the source goes on behind it.
func (s *Source) Send(ctx context.Context, w io.Writer, h Hello, rest []byte) ([]byte, error) {
	var tick <-chan time.Time
	if h.Pace > 0 {
		t := time.NewTicker(h.Pace)
		defer t.Stop()
		tick = t.C
	} else {
		always := make(chan time.Time)
		close(always)
		tick = always
	}
	p := append(make([]byte, 0, (int(h.Words)+1)*WordBytes), rest...)
	for {
		p = s.Append(p, int(h.Words))
		n, err := w.Write(p)
		if n < len(p) {
			// Whole words are another writer's to write.
			begun := (len(p) - n) % WordBytes
			s.Next -= uint64(len(p)-n) / WordBytes
			return append([]byte(nil), p[n:n+begun]...), errors.Join(err, io.ErrShortWrite)
		}
		p = p[:0]
		select {
		case <-ctx.Done():
			return nil, nil
		case <-tick:
		}
		if ctx.Err() != nil {
			return nil, nil
		}
	}
}

// HeldUp says whether a writer or a reader ended because it was told to, by a deadline.
func HeldUp(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// Limit has the kernel send no more bytes a second than the hello says, so that the queue of a writer without a pace is full all the time:
// a quarter of a second's worth.
func (h Hello) Limit(c net.Conn) error {
	sc, ok := c.(syscall.Conn)
	if h.Rate == 0 || !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := raw.Control(func(fd uintptr) {
		err = errors.Join(unix.SetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, uint64(h.Rate)),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, int(h.Rate/4)))
	})
	return errors.Join(ctlErr, err)
}
