package repair

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// socket is a descriptor in repair mode until it is thawed.
type socket struct {
	fd     int
	thawed bool
}

// FD is the socket's descriptor, until Close.
func (s *socket) FD() int { return s.fd }

// Close closes the descriptor. A connection that was not thawed ends at once, whoever else has descriptors of it, and says nothing: no FIN, no RST.
// One that was thawed is not touched where others have descriptors of it.
func (s *socket) Close() error {
	if s.fd < 0 {
		return nil
	}
	var err error
	if !s.thawed {
		err = disconnect(s.fd)
	}
	err = errors.Join(err, unix.Close(s.fd))
	s.fd = -1
	if err != nil {
		return fmt.Errorf("close a frozen connection: %w", err)
	}
	return nil
}

// revive ends repair mode with a probe of the window, whose answer tells what has been acknowledged meanwhile. Repair mode took the option to reuse
// addresses away, without which the application cannot listen again beside the connection.
func (s *socket) revive() error {
	f := &fault{fd: s.fd}
	f.setTCP(unix.TCP_REPAIR, unix.TCP_REPAIR_OFF, "TCP_REPAIR")
	s.thawed = f.err == nil
	f.setInt(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR")
	return f.err
}
