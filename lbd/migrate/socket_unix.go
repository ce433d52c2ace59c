//go:build unix

package migrate

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// listensAt returns where a listener listens: [::] without IPV6_V6ONLY is all addresses of both families.
func listensAt(l *net.TCPListener) ([]netip.AddrPort, error) {
	at := addrPort(l.Addr())
	listens := []netip.AddrPort{at}
	if !at.Addr().Is6() || !at.Addr().IsUnspecified() {
		return listens, nil
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	var only int
	var failed error
	if err := raw.Control(func(fd uintptr) { only, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) }); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, fmt.Errorf("families of listener %v: %w", at, failed)
	}
	if only == 0 {
		listens = append(listens, netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()))
	}
	return listens, nil
}
