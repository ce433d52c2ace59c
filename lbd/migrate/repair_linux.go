package migrate

import (
	"net"

	"golang.org/x/sys/unix"
)

// inRepair reports whether a connection is in repair mode, which needs no privilege to be asked. One of which the kernel does not say
// counts as such: to be closed.
func inRepair(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	mode := 1
	err = raw.Control(func(fd uintptr) {
		if m, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR); err == nil {
			mode = m
		}
	})
	return err != nil || mode != 0
}
