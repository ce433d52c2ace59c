package repair

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dumps bounds how often Freeze reads a connection again that changes meanwhile: packets on their way past a gate that has just been shut.
const dumps = 10

// Frozen is a connection of this machine in repair mode: it goes on here (Thaw), or elsewhere, and then ends here (Close).
type Frozen struct {
	socket
	State State
}

// Freeze takes the state of a connection. The application neither reads nor writes any more; packets have to be kept away from the socket. The
// Frozen owns fd from now on; after an error, which holds a Reason where the connection is not to be moved, the connection goes on and fd is the caller's.
func Freeze(fd int) (*Frozen, error) {
	f := &fault{fd: fd}
	z := &Frozen{socket: socket{fd: fd}}
	i := f.movable()
	f.addresses(&z.State)
	f.options(&z.State)
	if f.err != nil {
		return nil, fmt.Errorf("freeze: %w", f.err)
	}
	f.setTCP(unix.TCP_REPAIR, unix.TCP_REPAIR_ON, "TCP_REPAIR (CAP_NET_ADMIN?)")
	if f.err != nil {
		return nil, fmt.Errorf("freeze: %w", f.err)
	}
	f.connection(&z.State, i)
	if f.err == nil {
		f.err = z.State.Validate()
	}
	if f.err != nil {
		err := fmt.Errorf("freeze the connection of %v to %v: %w", z.State.Remote, z.State.Local, f.err)
		if e := z.Thaw(); e != nil {
			err = fmt.Errorf("%w; and it does not go on: %w", err, e)
		}
		return nil, err
	}
	return z, nil
}

func (f *fault) addresses(s *State) {
	local, err := unix.Getsockname(f.fd)
	f.fail("getsockname", err)
	remote, err := unix.Getpeername(f.fd)
	f.fail("getpeername", err)
	s.Local, s.Remote = addrPort(local), addrPort(remote)
	if a, ok := remote.(*unix.SockaddrInet6); ok && a.ZoneId != 0 {
		f.fail("addresses", refuse(LinkLocal, s.Remote.String()))
	}
}

func (f *fault) options(s *State) {
	o := &s.Options
	o.NoDelay = f.tcpInt(unix.TCP_NODELAY, "TCP_NODELAY") != 0
	if o.KeepAlive = f.getInt(unix.SOL_SOCKET, unix.SO_KEEPALIVE, "SO_KEEPALIVE") != 0; o.KeepAlive {
		o.Idle = time.Duration(f.tcpInt(unix.TCP_KEEPIDLE, "TCP_KEEPIDLE")) * time.Second
		o.Interval = time.Duration(f.tcpInt(unix.TCP_KEEPINTVL, "TCP_KEEPINTVL")) * time.Second
		o.Count = uint8(f.tcpInt(unix.TCP_KEEPCNT, "TCP_KEEPCNT"))
	}
	o.UserTimeout = time.Duration(f.tcpInt(unix.TCP_USER_TIMEOUT, "TCP_USER_TIMEOUT")) * time.Millisecond
	linger := unix.Linger{}
	f.get(unix.SOL_SOCKET, unix.SO_LINGER, unsafe.Pointer(&linger), unsafe.Sizeof(linger), "SO_LINGER")
	if o.Linger = linger.Linger; linger.Onoff == 0 {
		o.Linger = -1
	}
	if s.Local.Addr().Unmap().Is4() {
		o.TOS = uint8(f.getInt(unix.IPPROTO_IP, unix.IP_TOS, "IP_TOS"))
	} else {
		o.TOS = uint8(f.getInt(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, "IPV6_TCLASS"))
	}
	var name [16]byte
	f.get(unix.IPPROTO_TCP, unix.TCP_CONGESTION, unsafe.Pointer(&name), unsafe.Sizeof(name), "TCP_CONGESTION")
	o.Congestion = unix.ByteSliceToString(name[:])
	lock := f.getInt(unix.SOL_SOCKET, unix.SO_BUF_LOCK, "SO_BUF_LOCK")
	s.SendBufferSet, s.ReceiveBufferSet = lock&sendLock != 0, lock&recvLock != 0
}

// connection reads what packets change, until nothing has come meanwhile: bytes or a FIN that this socket has acknowledged and that are not in its
// state would be lost. It leaves the send queue chosen: as long as it is, timers that would send new data (pacing) only mark it as sent. What is sent
// and not in the state would be worse than lost, for the peer's acknowledgments of it would be refused, and all that comes with them.
func (f *fault) connection(s *State, before info) {
	for range dumps {
		f.queue(receiveQueue)
		s.ReceiveNext = f.sequence()
		unread := f.received(s)
		f.queue(sendQueue)
		f.toSend(s, before.state)
		i := f.movable()
		f.features(s, i)
		if still := f.ioctl(unix.SIOCINQ, "SIOCINQ"); f.err != nil || still == unread && i.state == before.state {
			f.readable(i.state, unread)
			return
		}
		before = i
	}
	f.fail("freeze", refuse(Busy, fmt.Sprintf("read %d times", dumps)))
}

// readable refuses bytes before a FIN: a socket in repair mode takes bytes and no FIN after them.
func (f *fault) readable(state uint8, unread int) {
	if state == closeWait && unread > 0 {
		f.fail("receive queue", refuse(Unread, fmt.Sprintf("%d bytes", unread)))
	}
}

func (f *fault) features(s *State, i info) {
	s.Scaling = i.options&infoScaling != 0
	s.SendScale, s.ReceiveScale = i.scales&15, i.scales>>4
	s.SACK = i.options&infoSACK != 0
	s.Timestamps = i.options&infoTimestamps != 0
	s.Microseconds = i.options&infoMicroseconds != 0
	s.MSS = uint16(f.tcpInt(unix.TCP_MAXSEG, "TCP_MAXSEG"))
	if s.Timestamps {
		s.Timestamp = uint32(f.tcpInt(unix.TCP_TIMESTAMP, "TCP_TIMESTAMP"))
	}
	f.get(unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, unsafe.Pointer(&s.Window), unsafe.Sizeof(s.Window), "TCP_REPAIR_WINDOW")
	s.Window.within(s.ReceiveNext)
}

// toSend reads the bytes that are not acknowledged. The send queue is chosen.
func (f *fault) toSend(s *State, state uint8) {
	unsent := f.unsent()
	next := f.sequence()
	queued := f.ioctl(unix.SIOCOUTQ, "SIOCOUTQ")
	s.SendClosed = state == finWait1 || state == finWait2
	if s.SendClosed {
		// The FIN counts as a byte, the last. One that has been acknowledged is sent again: only by its answer can a socket get there.
		next--
		queued, unsent = max(queued-1, 0), max(unsent-1, 0)
	}
	s.SendUnacknowledged = next - uint32(queued)
	if queued > MaxQueue {
		f.fail("send queue", refuse(QueueTooLong, fmt.Sprintf("%d bytes to send", queued)))
	}
	b := f.peek(queued)
	sent := max(len(b)-unsent, 0)
	s.Sent, s.Unsent = b[:sent:sent], b[sent:]
}

// received reads the bytes that the application has not, and tells how many. The receive queue is chosen.
func (f *fault) received(s *State) int {
	var urgent bool
	urgent, s.ReceiveClosed = f.events()
	if urgent {
		f.fail("receive queue", refuse(Urgent, ""))
	}
	memory := f.memory()
	s.ReceiveBuffer, s.SendBuffer = int(memory[1]), int(memory[3])
	s.Received = nil
	if memory[0] == 0 {
		return 0
	}
	n := f.ioctl(unix.SIOCINQ, "SIOCINQ")
	if n != f.inline() {
		f.fail("receive queue", refuse(Urgent, "its mark"))
	}
	if n > MaxQueue {
		f.fail("receive queue", refuse(QueueTooLong, fmt.Sprintf("%d bytes received", n)))
	}
	s.Received = f.peek(n)
	return n
}

// inline is how many bytes there are to read, those behind the mark of urgent data included, where the socket would else stop counting.
func (f *fault) inline() int {
	was := f.getInt(unix.SOL_SOCKET, unix.SO_OOBINLINE, "SO_OOBINLINE")
	f.setInt(unix.SOL_SOCKET, unix.SO_OOBINLINE, 1, "SO_OOBINLINE")
	n := f.ioctl(unix.SIOCINQ, "SIOCINQ")
	f.setInt(unix.SOL_SOCKET, unix.SO_OOBINLINE, was, "SO_OOBINLINE")
	return n
}

// peek copies the last n bytes of the queue that was chosen. A segment of which the peer has acknowledged a part may still be there as a whole.
func (f *fault) peek(n int) []byte {
	for size := n; n > 0 && f.err == nil; {
		b := make([]byte, size)
		got, _, err := unix.Recvfrom(f.fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err != nil:
			f.fail("peek", err)
		case got < n:
			f.fail("peek", refuse(Busy, fmt.Sprintf("%d bytes of %d", got, n)))
		case got > size:
			size = got
		default:
			return b[got-n : got]
		}
	}
	return nil
}

// Thaw lets the connection go on where it was. The peer hears of it.
func (z *Frozen) Thaw() error {
	if err := z.revive(); err != nil {
		return fmt.Errorf("thaw the connection of %v to %v: %w", z.State.Remote, z.State.Local, err)
	}
	return nil
}
