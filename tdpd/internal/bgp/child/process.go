package child

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// process is one that runs, started here or found.
type process struct {
	pid  int
	done chan struct{} // closed at its end
	err  error         // then: how it ended
}

var errGone = errors.New("it is gone")

// processOf is one that somebody else has started.
func processOf(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	p := &process{pid: pid, done: make(chan struct{}), err: errGone}
	go func() {
		defer close(p.done)
		defer unix.Close(fd)
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	return p, nil
}

// stop ends it, without a word to its neighbors.
func (p *process) stop() error {
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		select {
		case <-p.done:
			return nil
		default:
		}
		if err := unix.Kill(p.pid, s); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end the BGP speaker: %w", os.NewSyscallError("kill", err))
		}
		select {
		case <-p.done:
			return nil
		case <-time.After(stopWithin):
		}
	}
	return fmt.Errorf("the BGP speaker, process %d, does not end", p.pid)
}
