// Package packetsock opens packet sockets (packet(7)) on one interface: they hear what no membership of the kernel's asks for, and make
// the kernel report nothing.
package packetsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Config says what a socket hears: IPv4 packets of others that the filter takes, from the IP header on.
type Config struct {
	Ifindex      int
	Name         string // of the file, in errors
	Filter       []bpf.Instruction
	AllMulticast bool // whatever group's Ethernet address it comes to
	Buffer       int  // bytes that wait to be read; 0: the system's default
}

// Open opens a socket. It is bound last, so that the filter sees every packet. Without CAP_NET_RAW the error is EPERM.
func Open(cfg Config) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	err = errors.Join(AttachFilter(fd, cfg.Filter), unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	if cfg.Buffer > 0 {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, cfg.Buffer))
	}
	if cfg.AllMulticast {
		all := &unix.PacketMreq{Ifindex: int32(cfg.Ifindex), Type: unix.PACKET_MR_ALLMULTI}
		err = errors.Join(err, unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, all))
	}
	err = errors.Join(err, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: cfg.Ifindex}))
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), cfg.Name), nil
}

// Nothing is a filter that takes nothing, for sockets that only send.
var Nothing = []bpf.Instruction{bpf.RetConstant{Val: 0}}

// AttachFilter gives any socket a classic BPF filter.
func AttachFilter(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assemble filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

// Join adds a group's Ethernet address to those that the interface takes, for as long as the socket is open.
func Join(socket *os.File, ifindex int, group netip.Addr) error {
	return membership(socket, unix.PACKET_ADD_MEMBERSHIP, ifindex, group)
}

// Leave takes it back.
func Leave(socket *os.File, ifindex int, group netip.Addr) error {
	return membership(socket, unix.PACKET_DROP_MEMBERSHIP, ifindex, group)
}

// membership names the group's Ethernet address, 01:00:5e and the low 23 bits (RFC 1112 section 6.4).
func membership(socket *os.File, option, ifindex int, group netip.Addr) error {
	g := group.As4()
	request := &unix.PacketMreq{
		Ifindex: int32(ifindex), Type: unix.PACKET_MR_MULTICAST, Alen: 6,
		Address: [8]byte{0x01, 0x00, 0x5e, g[1] & 0x7f, g[2], g[3]},
	}
	err := control(socket, func(fd int) error { return unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, option, request) })
	if err != nil {
		return fmt.Errorf("link membership of %v: %w", group, err)
	}
	return nil
}

// Bound reports whether the socket is still on its interface: the kernel unbinds it when that is gone (packet(7)).
func Bound(socket *os.File, ifindex int) (bool, error) {
	bound := false
	err := control(socket, func(fd int) error {
		name, err := unix.Getsockname(fd)
		link, ok := name.(*unix.SockaddrLinklayer)
		bound = ok && link.Ifindex == ifindex
		return err
	})
	return bound, err
}

func control(socket *os.File, do func(fd int) error) error {
	conn, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	return failed
}

func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
