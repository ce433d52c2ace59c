// Package peercred says who is at the other end of a unix socket.
package peercred

import (
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Of are the credentials of the process at the other end, as of when it connected, or began to listen (SO_PEERCRED of unix(7)).
func Of(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("peer's credentials: %w", err)
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return nil, fmt.Errorf("peer's credentials: %w", err)
	}
	if failed != nil {
		return nil, fmt.Errorf("peer's credentials: %w", failed)
	}
	return cred, nil
}

// Listener is the process that listens at a unix socket.
func Listener(path string) (pid int, err error) {
	c, err := net.DialTimeout("unix", path, time.Second) // a full backlog takes nobody
	if err != nil {
		return 0, err
	}
	defer c.Close()
	cred, err := Of(c.(*net.UnixConn))
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}
