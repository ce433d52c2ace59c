package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// FlowOf is the connection of a server's TCP socket, in whatever network namespace that is; ErrGone: it has none, or no more.
func FlowOf(socket int) (Flow, error) {
	local, err := unix.Getsockname(socket)
	if err != nil {
		return Flow{}, fmt.Errorf("name of a socket: %w", err)
	}
	remote, err := unix.Getpeername(socket)
	if errors.Is(err, unix.ENOTCONN) {
		err = ErrGone
	}
	if err != nil {
		return Flow{}, fmt.Errorf("peer of a socket: %w", err)
	}
	return Flow{User: addrPortOf(remote), VIP: addrPortOf(local)}, nil
}

func addrPortOf(s unix.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr).Unmap(), uint16(s.Port))
	}
	return netip.AddrPort{}
}
