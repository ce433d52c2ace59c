package transport

import (
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// option is a setting of a socket.
type option func(fd int) error

func control(c syscall.RawConn, options ...option) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		for _, o := range options {
			if failed == nil {
				failed = o(int(fd))
			}
		}
	})
	if err != nil {
		return err
	}
	return failed
}

func setInt(fd, level, name, value int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, name, value))
}

// from lets the local address be one that is not there yet, or not any more.
func from(local netip.Addr) option {
	return func(fd int) error {
		if local.Is4() {
			return setInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
		}
		return setInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
	}
}

// listens is for a listener. Its answers go out with 255 hops for peers with GTSM, which changes nothing for others; the packets of
// the connections that it accepts are held to it once they are known to be such a peer's.
func listens(local netip.Addr) option {
	return func(fd int) error {
		if err := from(local)(fd); err != nil {
			return err
		}
		return sends255(local)(fd)
	}
}

// sends255 is the sender's half of GTSM (RFC 5082), wants255 the receiver's.
func sends255(family netip.Addr) option { return hops(family, unix.IP_TTL, unix.IPV6_UNICAST_HOPS) }
func wants255(family netip.Addr) option { return hops(family, unix.IP_MINTTL, unix.IPV6_MINHOPCOUNT) }

func hops(family netip.Addr, name4, name6 int) option {
	return func(fd int) error {
		if family.Is4() {
			return setInt(fd, unix.IPPROTO_IP, name4, 255)
		}
		return setInt(fd, unix.IPPROTO_IPV6, name6, 255)
	}
}

// signs is TCP MD5 with a peer; an empty secret ends it.
func signs(peer netip.Addr, secret string) option {
	return func(fd int) error {
		sig := unix.TCPMD5Sig{Keylen: uint16(len(secret))}
		if len(secret) > len(sig.Key) {
			return fmt.Errorf("secret of %d bytes: at most %d", len(secret), len(sig.Key))
		}
		copy(sig.Key[:], secret)
		if peer.Is4() {
			sig.Addr.Family = unix.AF_INET
			a := peer.As4()
			copy(sig.Addr.Data[2:], a[:]) // behind the port
		} else {
			sig.Addr.Family = unix.AF_INET6
			a := peer.As16()
			copy(sig.Addr.Data[6:], a[:]) // behind port and flow
		}
		err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig)
		if secret == "" && err == unix.ENOENT { // there was none
			return nil
		}
		return os.NewSyscallError("setsockopt", err)
	}
}
