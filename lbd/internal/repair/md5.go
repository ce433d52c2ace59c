package repair

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// What sock_diag(7) is asked and answers (<linux/inet_diag.h>).
const (
	diagRequestLen = 8 + 48      // struct inet_diag_req_v2
	diagMessageLen = 4 + 48 + 20 // struct inet_diag_msg
	diagInfo       = 2           // INET_DIAG_INFO
	diagMD5        = 18          // INET_DIAG_MD5SIG, told to CAP_NET_ADMIN alone
)

// hasMD5 asks the caller's network namespace, which has to be the socket's, because no socket option tells.
func hasMD5(fd int) (bool, error) {
	s := &State{}
	f := &fault{fd: fd}
	f.addresses(s)
	if f.err != nil {
		return false, f.err
	}
	diag, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return false, fmt.Errorf("sock_diag socket: %w", err)
	}
	defer unix.Close(diag)
	if err := unix.Sendto(diag, diagRequest(s), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, fmt.Errorf("ask sock_diag: %w", err)
	}
	answer := make([]byte, 8<<10)
	n, _, err := unix.Recvfrom(diag, answer, unix.MSG_DONTWAIT) // the kernel answers within sendto
	if err != nil {
		return false, fmt.Errorf("answer of sock_diag: %w", err)
	}
	return parseDiag(answer[:n])
}

func diagRequest(s *State) []byte {
	be, ne := binary.BigEndian, binary.NativeEndian
	b := make([]byte, unix.SizeofNlMsghdr+diagRequestLen)
	ne.PutUint32(b[0:], uint32(len(b)))
	ne.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	ne.PutUint16(b[6:], unix.NLM_F_REQUEST)
	r := b[unix.SizeofNlMsghdr:]
	r[0], r[1] = unix.AF_INET6, unix.IPPROTO_TCP
	if s.Local.Addr().Is4() {
		r[0] = unix.AF_INET
	}
	r[2] = 1 << (diagInfo - 1)      // with it come keys
	ne.PutUint32(r[4:], ^uint32(0)) // any state
	id := r[8:]
	be.PutUint16(id[0:], s.Local.Port())
	be.PutUint16(id[2:], s.Remote.Port())
	copy(id[4:20], s.Local.Addr().AsSlice())
	copy(id[20:36], s.Remote.Addr().AsSlice())
	ne.PutUint64(id[40:], ^uint64(0)) // no cookie
	return b
}

// parseDiag looks for keys in the one message of an answer.
func parseDiag(b []byte) (bool, error) {
	ne := binary.NativeEndian
	if len(b) < unix.SizeofNlMsghdr+4 {
		return false, errors.New("answer of sock_diag is cut short")
	}
	body := b[unix.SizeofNlMsghdr:]
	if ne.Uint16(b[4:]) == unix.NLMSG_ERROR {
		return false, fmt.Errorf("sock_diag: %w", unix.Errno(-int32(ne.Uint32(body))))
	}
	if len(body) < diagMessageLen {
		return false, errors.New("answer of sock_diag is cut short")
	}
	for a := body[diagMessageLen:]; len(a) >= unix.SizeofRtAttr; {
		if ne.Uint16(a[2:]) == diagMD5 {
			return true, nil
		}
		a = a[min(max((int(ne.Uint16(a))+3)&^3, unix.SizeofRtAttr), len(a)):]
	}
	return false, nil
}
