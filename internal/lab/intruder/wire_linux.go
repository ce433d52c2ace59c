package intruder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Send sends an IPv4 packet to all IGMPv3 routers from an interface, with whatever source address it bears.
func Send(ifname string, packet []byte) error {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return fmt.Errorf("interface %s: %w", ifname, err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("raw socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(ifi.Index)}); err != nil {
		return fmt.Errorf("send from %s: %w", ifname, err)
	}
	if err := unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: [4]byte{224, 0, 0, 22}}); err != nil {
		return fmt.Errorf("send from %s: %w", ifname, err)
	}
	return nil
}

// Capture waits for the next signed join of the group on an interface, sent or received, and returns its IPv4 packet.
func Capture(ctx context.Context, ifname string, group netip.Addr) ([]byte, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", ifname, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	defer unix.Close(fd)
	// ETH_P_ALL in network byte order: what the host itself sends is seen by nothing less.
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL << 8, Ifindex: ifi.Index}); err != nil {
		return nil, fmt.Errorf("capture on %s: %w", ifname, err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		return nil, fmt.Errorf("capture on %s: %w", ifname, err)
	}
	buf := make([]byte, 65536)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, fmt.Errorf("capture on %s: %w", ifname, err)
		case isJoinOf(group, buf[:n]):
			return append([]byte(nil), buf[:n]...), nil
		}
	}
	return nil, fmt.Errorf("no signed join of %v on %s: %w", group, ifname, ctx.Err())
}

// CaptureWithin is how long Capture is given by the lab.
const CaptureWithin = 5 * time.Second
