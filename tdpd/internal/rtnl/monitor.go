package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Monitor receives notifications. It stays in the network namespace in which it was opened.
type Monitor struct {
	file   *os.File
	raw    syscall.RawConn
	buf    []byte
	losing bool // since an ENOBUFS not all has been taken that waited
}

// Listen subscribes to groups (RTNLGRP_...). The kernel keeps up to about buffer bytes of what has not been read, and passes on what
// filter accepts; nil is all.
func Listen(groups []int, buffer int, filter []bpf.Instruction) (*Monitor, error) {
	fd, _, err := open(unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, err
	}
	// Forced as far as CAP_NET_ADMIN goes, else within net.core.rmem_max.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	if err == nil && filter != nil {
		err = attach(fd, filter)
	}
	for _, g := range groups {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink: subscribe: %w", err)
	}
	m := &Monitor{file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, bufferSize)}
	if m.raw, err = m.file.SyscallConn(); err != nil {
		m.file.Close()
		return nil, err
	}
	return m, nil
}

func attach(fd int, filter []bpf.Instruction) error {
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return err
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// Offsets in a notification about a route, for filters.
const (
	OffsetType     = 4  // 2 bytes, see Swap16
	OffsetPort     = 12 // 4 bytes, see Swap32
	OffsetFamily   = 16
	OffsetProtocol = 21
)

// Swap16 is how a filter sees a number of the header.
func Swap16(v uint16) uint32 {
	return uint32(binary.BigEndian.Uint16(native.AppendUint16(nil, v)))
}

// Swap32 is how a filter sees a number of the header.
func Swap32(v uint32) uint32 { return binary.BigEndian.Uint32(native.AppendUint32(nil, v)) }

// Receive waits for notifications and calls do with each. An error that is ENOBUFS says that some were lost, and that the Monitor
// goes on; after Close all calls fail. The kernel says so when it begins to lose, and goes on to until all that waits is taken: then
// Receive says it again, and whoever looks what there is then misses nothing.
func (m *Monitor) Receive(do func(Message)) error {
	if m.losing && !m.Waiting() {
		m.losing = false
		return fmt.Errorf("netlink: notifications: %w", unix.ENOBUFS)
	}
	var n int
	var failed error
	err := m.raw.Read(func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), m.buf, 0)
		return failed != unix.EAGAIN
	})
	if err == nil && failed != unix.EINTR {
		err = failed
	}
	if err != nil {
		m.losing = m.losing || errors.Is(err, unix.ENOBUFS)
		return fmt.Errorf("netlink: notifications: %w", err)
	}
	return messages(m.buf[:max(n, 0)], func(msg Message) error { do(msg); return nil })
}

// Waiting reports whether there is something to receive, at once.
func (m *Monitor) Waiting() bool {
	waiting := false
	err := m.raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		waiting = n > 0 || err != nil
	})
	return waiting || err != nil
}

// Close ends Receive.
func (m *Monitor) Close() error { return m.file.Close() }
