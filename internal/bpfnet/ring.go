package bpfnet

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Ring reads a ring buffer. Who waits does it as for a socket: ringbuf.Reader waits in a system call of its own, and the runtime, where it has no other
// processor left (GOMAXPROCS), takes up to 20 ms to find out that nothing else runs meanwhile.
type Ring struct {
	reader *ringbuf.Reader
	file   *os.File // of the map, for the runtime's poller
	conn   syscall.RawConn
}

// OpenRing opens the ring buffer m, which is the caller's still.
func OpenRing(m *ebpf.Map) (*Ring, error) {
	reader, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, fmt.Errorf("read ring buffer %s: %w", m, err)
	}
	reader.SetDeadline(time.Unix(1, 0)) // what is not there is not waited for
	r := &Ring{reader: reader}
	if err := r.watch(m); err != nil {
		return nil, errors.Join(fmt.Errorf("wait for ring buffer %s: %w", m, err), reader.Close())
	}
	return r, nil
}

func (r *Ring) watch(m *ebpf.Map) error {
	fd, err := unix.FcntlInt(uintptr(m.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // os polls such files alone
		return errors.Join(err, unix.Close(fd))
	}
	r.file = os.NewFile(uintptr(fd), m.String())
	if err := r.file.SetReadDeadline(time.Time{}); err != nil { // it is not polled
		return errors.Join(err, r.file.Close())
	}
	r.conn, err = r.file.SyscallConn()
	return err
}

// ReadInto waits for the next record. After Close it is os.ErrClosed.
func (r *Ring) ReadInto(record *ringbuf.Record) error {
	var err error
	waitErr := r.conn.Read(func(uintptr) bool {
		err = r.reader.ReadInto(record)
		return !errors.Is(err, os.ErrDeadlineExceeded)
	})
	if waitErr != nil {
		return fmt.Errorf("ring buffer: %w: %w", os.ErrClosed, waitErr)
	}
	return err
}

// AvailableBytes are those that can be read without waiting.
func (r *Ring) AvailableBytes() int { return r.reader.AvailableBytes() }

// Close ends it, and who waits.
func (r *Ring) Close() error { return errors.Join(r.file.Close(), r.reader.Close()) }
