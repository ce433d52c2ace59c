package repair

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// piece is how many bytes go into the kernel by one call: one socket buffer's (MAX_SKB_FRAGS pages, at the least).
const piece = 64 << 10

// Restored is a connection that has come from another socket, in repair mode: nothing was sent yet.
type Restored struct {
	socket
	state State
	again bool // the last of what was sent is yet to be: again
	force bool // buffers hold more than they are to
}

// Restore makes a socket of a state, beside whoever listens to the same port. The local address is one of this machine. The state is checked
// first: ErrInvalid. A connection of the same addresses that is here already is EADDRNOTAVAIL. The Restored goes on to use the state's queues.
func Restore(s State) (*Restored, error) {
	r, err := restore(s)
	if err != nil {
		return nil, fmt.Errorf("restore the connection of %v to %v: %w", s.Remote, s.Local, err)
	}
	return r, nil
}

func restore(s State) (*Restored, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	family := unix.AF_INET6
	if s.Local.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	r := &Restored{socket: socket{fd: fd}, state: s}
	f := &fault{fd: fd}
	f.setTCP(unix.TCP_REPAIR, unix.TCP_REPAIR_ON, "TCP_REPAIR (CAP_NET_ADMIN?)") // first: it lets bind pass beside a listener
	r.force = f.buffers(&s)
	f.setOptions(&s)
	f.connect(&s)
	f.negotiated(&s)
	r.again = again(&s)
	f.push(s.Sent[:len(s.Sent)-r.lastByte()])
	if len(s.Received) > 0 {
		f.queue(receiveQueue)
		f.push(s.Received)
		f.queue(sendQueue)
	}
	f.set(unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, unsafe.Pointer(&s.Window), unsafe.Sizeof(s.Window), "TCP_REPAIR_WINDOW")
	f.shutdown(&s, r.again)
	if f.err != nil {
		return nil, errors.Join(f.err, r.Close())
	}
	return r, nil
}

// buffers makes room for the queues, and tells whether that is more than the buffers are to be: a socket buffer counts with what it does not use.
func (f *fault) buffers(s *State) (force bool) {
	send, receive := max(s.SendBuffer, 2*(len(s.Sent)+len(s.Unsent))+piece), max(s.ReceiveBuffer, 2*len(s.Received)+piece)
	f.setInt(unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, send/2, "SO_SNDBUFFORCE") // the kernel doubles it
	f.setInt(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receive/2, "SO_RCVBUFFORCE")
	return send > s.SendBuffer || receive > s.ReceiveBuffer
}

func (f *fault) setOptions(s *State) {
	o := s.Options
	if o.NoDelay {
		f.setTCP(unix.TCP_NODELAY, 1, "TCP_NODELAY")
	}
	if o.KeepAlive {
		f.setInt(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1, "SO_KEEPALIVE")
		f.setTCP(unix.TCP_KEEPIDLE, int(o.Idle/time.Second), "TCP_KEEPIDLE")
		f.setTCP(unix.TCP_KEEPINTVL, int(o.Interval/time.Second), "TCP_KEEPINTVL")
		f.setTCP(unix.TCP_KEEPCNT, int(o.Count), "TCP_KEEPCNT")
	}
	if o.UserTimeout != 0 {
		f.setTCP(unix.TCP_USER_TIMEOUT, int(o.UserTimeout/time.Millisecond), "TCP_USER_TIMEOUT")
	}
	if o.Linger >= 0 {
		linger := unix.Linger{Onoff: 1, Linger: o.Linger}
		f.set(unix.SOL_SOCKET, unix.SO_LINGER, unsafe.Pointer(&linger), unsafe.Sizeof(linger), "SO_LINGER")
	}
	if o.TOS != 0 && s.Local.Addr().Unmap().Is4() {
		f.setInt(unix.IPPROTO_IP, unix.IP_TOS, int(o.TOS), "IP_TOS")
	} else if o.TOS != 0 {
		f.setInt(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, int(o.TOS), "IPV6_TCLASS")
	}
	if s.Local.Addr().Is4In6() {
		f.setInt(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0, "IPV6_V6ONLY")
	}
	if o.Congestion != "" {
		if err := unix.SetsockoptString(f.fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, o.Congestion); !errors.Is(err, unix.ENOENT) {
			f.fail("setsockopt TCP_CONGESTION "+o.Congestion, err)
		}
	}
}

// connect leaves the socket ESTABLISHED, with sequence numbers before the queues. Nothing is sent. The MSS is set before because the size of
// segments comes of it only here; MSS of more than the option takes go on to be smaller until the path's MTU changes.
func (f *fault) connect(s *State) {
	f.setTCP(unix.TCP_MAXSEG, max(88, min(int(s.MSS), 32767)), "TCP_MAXSEG")
	f.setSequence(receiveQueue, s.ReceiveNext-uint32(len(s.Received)))
	f.setSequence(sendQueue, s.SendUnacknowledged)
	if f.err == nil {
		f.fail("bind (its address is not this machine's?)", unix.Bind(f.fd, sockaddr(s.Local)))
	}
	if f.err == nil {
		f.fail("connect", unix.Connect(f.fd, sockaddr(s.Remote)))
	}
}

// negotiated is what the SYNs said. Window scaling is set in any case, as no scale where there was none: else the socket keeps one of its own.
func (f *fault) negotiated(s *State) {
	o := append(make([]unix.TCPRepairOpt, 0, 4),
		unix.TCPRepairOpt{Code: optionMSS, Val: uint32(s.MSS)},
		unix.TCPRepairOpt{Code: optionScale, Val: uint32(s.SendScale) | uint32(s.ReceiveScale)<<16})
	if s.SACK {
		o = append(o, unix.TCPRepairOpt{Code: optionSACKPermitted})
	}
	if s.Timestamps {
		o = append(o, unix.TCPRepairOpt{Code: optionTimestamps})
	}
	f.set(unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS, unsafe.Pointer(&o[0]), uintptr(len(o))*unsafe.Sizeof(o[0]), "TCP_REPAIR_OPTIONS")
	if !s.Timestamps {
		return
	}
	f.setTCP(unix.TCP_TIMESTAMP, int(int32(nextTimestamp(s))), "TCP_TIMESTAMP")
	if s.Microseconds && f.info().options&infoMicroseconds == 0 {
		f.fail("TCP_TIMESTAMP", errors.New("this kernel has no timestamps in microseconds: Linux 6.7 has"))
	}
}

// nextTimestamp is after all that the peer has seen (PAWS, RFC 7323 section 5). The lowest bit is the unit's, since Linux 6.7, and so the last one
// seen may have been one later than told.
func nextTimestamp(s *State) uint32 {
	if s.Microseconds {
		return s.Timestamp + 2 | 1
	}
	return (s.Timestamp + 2) &^ 1
}

// push puts bytes into the queue that was chosen, or sends them where the socket is thawed.
func (f *fault) push(b []byte) {
	for len(b) > 0 && f.err == nil {
		n, err := unix.SendmsgN(f.fd, b[:min(len(b), piece)], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != nil {
			f.fail(fmt.Sprintf("%d more bytes into a queue", len(b)), err)
			return
		}
		b = b[n:]
	}
}

// shutdown closes directions that were. The socket of a connection whose peer has sent its FIN never gets another one: when the application closes,
// too, it does not wait for it longer than TCP_LINGER2 says. Our own FIN follows what was never sent; one that was sent is in flight again, or sent again.
func (f *fault) shutdown(s *State, again bool) {
	if s.ReceiveClosed && f.err == nil {
		f.setTCP(unix.TCP_LINGER2, 1, "TCP_LINGER2")
		f.fail("shutdown", unix.Shutdown(f.fd, unix.SHUT_RD))
	}
	if s.SendClosed && len(s.Unsent) == 0 && !again {
		f.closeWrite()
	}
}

func (f *fault) closeWrite() {
	if f.err == nil {
		f.fail("shutdown", unix.Shutdown(f.fd, unix.SHUT_WR))
	}
}
