package probe

import (
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/netns"
)

// SendLabelled sends packet, behind a label stack of one entry (RFC 3032), out of an interface to the Ethernet address of another one.
func SendLabelled(ns *netns.Namespace, ifname string, to net.HardwareAddr, label uint32, packet []byte) error {
	const bottom, ttl = 1 << 8, 64
	frame := append(binary.BigEndian.AppendUint32(nil, label<<12|bottom|ttl), packet...)
	err := ns.Do(func() error {
		out, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		at := unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_MPLS_UC)), Ifindex: out.Index, Halen: 6}
		copy(at.Addr[:], to)
		return unix.Sendto(fd, frame, 0, &at)
	})
	if err != nil {
		return fmt.Errorf("send a labelled packet out of %s: %w", ifname, err)
	}
	return nil
}
