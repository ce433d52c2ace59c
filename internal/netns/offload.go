package netns

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What of an interface ETHTOOL's ioctl sets (<linux/ethtool.h>).
const (
	ethtoolTxChecksums = 0x17
	ethtoolGRO         = 0x2c
)

// WholeChecksums has an interface send checksums as a card would have put them in. A veth leaves them to whoever receives, which is wrong
// where XDP sends frames on as they are.
func (n *Namespace) WholeChecksums(ifname string) error {
	return n.offload(ifname, ethtoolTxChecksums, 0)
}

// TakesXDP has an end of a veth take frames that XDP redirects to it: without GRO or a program of its own it drops them in silence.
func (n *Namespace) TakesXDP(ifname string) error { return n.offload(ifname, ethtoolGRO, 1) }

func (n *Namespace) offload(ifname string, what, value uint32) error {
	err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		set := [2]uint32{what, value}
		var ifreq [40]byte // struct ifreq: the name, then a pointer
		copy(ifreq[:nameMax], ifname)
		*(*uintptr)(unsafe.Pointer(&ifreq[nameMax+1])) = uintptr(unsafe.Pointer(&set))
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifreq))); errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("interface %s in %s: offloads: %w", ifname, n.name, err)
	}
	return nil
}
