package repair

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Queues of TCP_REPAIR_QUEUE (<linux/tcp.h>).
const (
	noQueue = iota
	receiveQueue
	sendQueue
)

// Options of the SYN (RFC 9293 section 3.1, RFC 7323, RFC 2018), as TCP_REPAIR_OPTIONS has them.
const (
	optionMSS           = 2
	optionScale         = 3
	optionSACKPermitted = 4
	optionTimestamps    = 8
)

const (
	tcpAOInfo = 40 // TCP_AO_INFO
	sendLock  = 1  // SOCK_SNDBUF_LOCK
	recvLock  = 2  // SOCK_RCVBUF_LOCK
)

// info is the beginning of struct tcp_info.
type info struct {
	state, congestionState, retransmits, probes, backoff, options uint8

	scales uint8 // send in the low half, receive in the high one
}

// Bits of info.options (TCPI_OPT_...).
const (
	infoTimestamps   = 1
	infoSACK         = 2
	infoScaling      = 4
	infoMicroseconds = 64 // since Linux 6.7
)

// fault is the first error of a row of calls on one socket: those after it do nothing.
type fault struct {
	fd  int
	err error
}

func (f *fault) fail(what string, err error) {
	if f.err == nil && err != nil {
		f.err = fmt.Errorf("%s: %w", what, err)
	}
}

func (f *fault) get(level, option int, p unsafe.Pointer, n uintptr, what string) {
	if f.err != nil {
		return
	}
	size := uint32(n)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(f.fd), uintptr(level), uintptr(option), uintptr(p), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		f.fail("getsockopt "+what, errno)
	}
}

func (f *fault) set(level, option int, p unsafe.Pointer, n uintptr, what string) {
	if f.err != nil {
		return
	}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(f.fd), uintptr(level), uintptr(option), uintptr(p), n, 0)
	if errno != 0 {
		f.fail("setsockopt "+what, errno)
	}
}

func (f *fault) getInt(level, option int, what string) int {
	var v int32
	f.get(level, option, unsafe.Pointer(&v), 4, what)
	return int(v)
}

func (f *fault) setInt(level, option, value int, what string) {
	v := int32(value)
	f.set(level, option, unsafe.Pointer(&v), 4, what)
}

func (f *fault) tcpInt(option int, what string) int { return f.getInt(unix.IPPROTO_TCP, option, what) }

func (f *fault) setTCP(option, value int, what string) {
	f.setInt(unix.IPPROTO_TCP, option, value, what)
}

func (f *fault) ioctl(request int, what string) int {
	if f.err != nil {
		return 0
	}
	var v int32
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), uintptr(request), uintptr(unsafe.Pointer(&v)))
	if errno != 0 {
		f.fail("ioctl "+what, errno)
	}
	return int(v)
}

// unsent is how many bytes wait in the send queue, a FIN counted.
func (f *fault) unsent() int { return f.ioctl(unix.SIOCOUTQNSD, "SIOCOUTQNSD") }

func (f *fault) queue(q int) { f.setTCP(unix.TCP_REPAIR_QUEUE, q, "TCP_REPAIR_QUEUE") }

// sequence is the number after the last byte of the queue that was chosen.
func (f *fault) sequence() uint32 { return uint32(f.tcpInt(unix.TCP_QUEUE_SEQ, "TCP_QUEUE_SEQ")) }

func (f *fault) setSequence(q int, number uint32) {
	f.queue(q)
	f.setTCP(unix.TCP_QUEUE_SEQ, int(int32(number)), "TCP_QUEUE_SEQ")
}

func (f *fault) info() (i info) {
	f.get(unix.IPPROTO_TCP, unix.TCP_INFO, unsafe.Pointer(&i), unsafe.Sizeof(i), "TCP_INFO")
	return i
}

// memory is how many bytes the receive queues take and may take, are on their way to the interface, and so on (SK_MEMINFO_...).
func (f *fault) memory() (m [9]uint32) {
	f.get(unix.SOL_SOCKET, unix.SO_MEMINFO, unsafe.Pointer(&m), unsafe.Sizeof(m), "SO_MEMINFO")
	return m
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// disconnect ends a connection; in repair mode it says nothing.
func disconnect(fd int) error {
	unspecified := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)), unsafe.Sizeof(unspecified))
	if errno != 0 {
		return fmt.Errorf("disconnect: %w", errno)
	}
	return nil
}
