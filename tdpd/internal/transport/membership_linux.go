package transport

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// membership is that of a group by an interface. Each has a socket of its own, on which nothing comes: the kernel bounds how many one
// socket may have (net.ipv4.igmp_max_memberships, 20), and whoever has joined, a socket that listens hears the group.
type membership struct {
	index int // of the interface
	fd    int
}

func join(group netip.Addr, index int) (membership, error) {
	family := unix.AF_INET
	if group.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return membership{}, os.NewSyscallError("socket", err)
	}
	if group.Is4() {
		err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(index)})
	} else {
		err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(index)})
	}
	if err != nil {
		unix.Close(fd)
		return membership{}, os.NewSyscallError("setsockopt", err)
	}
	return membership{index, fd}, nil
}

// leave ends it; the interface may be gone.
func (m membership) leave() { unix.Close(m.fd) }
