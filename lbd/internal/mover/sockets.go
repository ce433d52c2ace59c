package mover

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/lbd/internal/repair"
)

// Sockets is what is done to sockets: package repair, or a fake.
type Sockets interface {
	// Freeze takes a connection's state, encoded. The socket owns fd from now on, unless there is an error.
	Freeze(fd int) (Socket, []byte, error)
	// Drop closes the descriptor of a connection that is not to be touched.
	Drop(fd int) error
	// Restore makes a socket of it, in repair mode. A state of any other connection than that is refused.
	Restore(local, remote netip.AddrPort, state []byte) (Socket, error)
}

// Socket is one in repair mode. It is no type of its own, so that others may stand between (dyntcp/serving).
type Socket = interface {
	FD() int
	// Thaw lets it live.
	Thaw() error
	// Close closes the descriptor; of a connection that does not live it is silent.
	Close() error
}

// Kernel are the sockets of this machine. It needs CAP_NET_ADMIN.
type Kernel struct{}

// Freeze implements Sockets.
func (Kernel) Freeze(fd int) (Socket, []byte, error) {
	if err := repair.Movable(fd); err != nil {
		return nil, nil, err
	}
	f, err := repair.Freeze(fd)
	if err != nil {
		return nil, nil, err
	}
	return f, f.State.Append(make([]byte, 0, f.State.Size())), nil
}

// Drop implements Sockets.
func (Kernel) Drop(fd int) error { return unix.Close(fd) }

// Restore implements Sockets.
func (Kernel) Restore(local, remote netip.AddrPort, state []byte) (Socket, error) {
	s, err := repair.Decode(state)
	if err != nil {
		return nil, err
	}
	if unmap(s.Local) != local || unmap(s.Remote) != remote {
		return nil, fmt.Errorf("%w: its state is of %v and %v", errOther, s.Local, s.Remote)
	}
	r, err := repair.Restore(s)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// errOther is of a giver that sends something else than it has offered.
var errOther = errors.New("it is another connection than was offered")

// errGone is of what was undone before it was done.
var errGone = errors.New("it was undone meanwhile")

func notYet(what string) error { return fmt.Errorf("%s: %w", what, errGone) }
