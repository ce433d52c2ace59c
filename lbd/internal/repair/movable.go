package repair

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reason is why a connection stays where it is. It is an error, and its text is the name for metrics and tables.
type Reason string

// The reasons.
const (
	NotTCP         Reason = "not-tcp"        // no TCP socket, or a listener
	Opening        Reason = "opening"        // SYN_SENT, or SYN_RECV with TCP Fast Open: its handshake is not over
	Closing        Reason = "closing"        // both ends have sent a FIN, or it is over: the kernel ends it by itself
	Unread         Reason = "unread-at-end"  // the peer has sent a FIN and the application has not read all before it
	Urgent         Reason = "urgent-data"    // the urgent pointer cannot be restored
	ULP            Reason = "upper-layer"    // TLS in the kernel, or something else on top of TCP
	MPTCP          Reason = "mptcp"          //
	MD5            Reason = "md5"            // RFC 2385: the keys cannot be read
	Authentication Reason = "tcp-ao"         // RFC 5925: the same
	LinkLocal      Reason = "link-local"     // the peer's address means something on one link alone
	QueueTooLong   Reason = "queue-too-long" // over MaxQueue
	Busy           Reason = "packets-arrive" // its packets are not kept away
)

func (r Reason) Error() string { return string(r) }

// States of TCP (include/net/tcp_states.h).
const (
	established = iota + 1
	synSent
	synReceived
	finWait1
	finWait2
	timeWait
	closed
	closeWait
	lastACK
	listen
	closingState
	newSynReceived
)

// Movable tells why a connection is not to be moved, by a Reason in the error; nil: it can be. What may change, such as its state, Freeze looks at
// again; keys of MD5 are looked for here alone.
func Movable(fd int) error {
	f := &fault{fd: fd}
	if f.movable(); f.err != nil {
		return f.err
	}
	return f.unkeyed()
}

func refuse(r Reason, detail string) error {
	if detail == "" {
		return fmt.Errorf("connection is not to be moved: %w", r)
	}
	return fmt.Errorf("connection is not to be moved: %w (%s)", r, detail)
}

// movable is what both Movable and Freeze look at.
func (f *fault) movable() info {
	i := f.info()
	if errors.Is(f.err, unix.EOPNOTSUPP) || errors.Is(f.err, unix.ENOPROTOOPT) {
		f.err = refuse(NotTCP, "")
	}
	if r := reasonOfState(i.state); f.err == nil && r != "" {
		f.err = refuse(r, fmt.Sprintf("state %d", i.state))
	}
	var name [16]byte
	f.get(unix.IPPROTO_TCP, unix.TCP_ULP, unsafe.Pointer(&name), unsafe.Sizeof(name), "TCP_ULP")
	if above := unix.ByteSliceToString(name[:]); f.err == nil && above != "" {
		f.err = refuse(reasonOfULP(above), above)
	}
	return i
}

func reasonOfULP(name string) Reason {
	if name == "mptcp" {
		return MPTCP
	}
	return ULP
}

func reasonOfState(state uint8) Reason {
	switch state {
	case established, finWait1, finWait2, closeWait:
		return ""
	case synSent, synReceived, newSynReceived:
		return Opening
	case listen:
		return NotTCP
	}
	return Closing
}

// events says whether urgent data has come and whether the receiving side is shut, by the peer's FIN or by the application.
func (f *fault) events() (urgent, shut bool) {
	if f.err != nil {
		return false, false
	}
	p := []unix.PollFd{{Fd: int32(f.fd), Events: unix.POLLPRI | unix.POLLRDHUP}}
	_, err := unix.Poll(p, 0)
	for errors.Is(err, unix.EINTR) { // Go's own signals
		_, err = unix.Poll(p, 0)
	}
	if err != nil {
		f.fail("poll", err)
	}
	urgent, shut = p[0].Revents&unix.POLLPRI != 0, p[0].Revents&unix.POLLRDHUP != 0
	if !urgent && f.err == nil {
		// The pointer may have come before its byte.
		_, _, err := unix.Recvfrom(f.fd, make([]byte, 1), unix.MSG_OOB|unix.MSG_PEEK|unix.MSG_DONTWAIT)
		urgent = errors.Is(err, unix.EAGAIN)
	}
	return urgent, shut
}

// unkeyed refuses connections whose segments are signed.
func (f *fault) unkeyed() error {
	var ao [56]byte // struct tcp_ao_info_opt
	probe := &fault{fd: f.fd}
	probe.get(unix.IPPROTO_TCP, tcpAOInfo, unsafe.Pointer(&ao), unsafe.Sizeof(ao), "TCP_AO_INFO")
	if probe.err == nil {
		return refuse(Authentication, "")
	}
	signed, err := hasMD5(f.fd)
	if err != nil {
		return fmt.Errorf("is the connection to be moved: keys of MD5: %w", err)
	}
	if signed {
		return refuse(MD5, "")
	}
	return nil
}
