package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// closePasses bounds how often CloseConnections reads the socket table again: a dump in several messages may miss sockets while
// others vanish beside them.
const closePasses = 5

// CloseConnections resets every TCP connection of users to vip and one of ports whose user is lost, so that the user sees a RST and the
// application an error, and tells how many it closed. A connection that ends by itself meanwhile is not counted.
//
// It sees the sockets of the caller's network namespace and needs CAP_NET_ADMIN and a kernel with CONFIG_INET_DIAG_DESTROY.
func CloseConnections(ctx context.Context, vip netip.Addr, ports []Port, lost func(user netip.AddrPort) bool) (int, error) {
	diag, err := openUsers()
	if err != nil {
		return 0, err
	}
	defer diag.close()
	closed := 0
	for range closePasses {
		n := 0
		for _, port := range ports {
			if port.Proto != "tcp" {
				continue
			}
			done, err := diag.closeLost(ctx, netip.AddrPortFrom(vip, port.Number), lost)
			n += done
			if err != nil {
				return closed + n, err
			}
		}
		closed += n
		if n == 0 {
			break
		}
	}
	return closed, nil
}

// ConnectedUsers are the users of all TCP connections to one of vips and one of ports, requests among them, one for each connection. What this host
// opens to itself, as health probes do, is no user's. It sees the sockets of the caller's network namespace and needs no privilege.
func ConnectedUsers(ctx context.Context, vips []netip.Addr, ports []Port) ([]netip.AddrPort, error) {
	diag, err := openUsers()
	if err != nil {
		return nil, err
	}
	defer diag.close()
	var users []netip.AddrPort
	for _, vip := range vips {
		for _, port := range ports {
			for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
				if port.Proto != "tcp" || family == unix.AF_INET && vip.Is6() {
					continue
				}
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				socks, err := diag.dump(family, netip.AddrPortFrom(vip, port.Number))
				if err != nil {
					return nil, err
				}
				for _, s := range socks {
					users = append(users, s.remote)
				}
			}
		}
	}
	return users, nil
}

// diag is a NETLINK_SOCK_DIAG socket, sock_diag(7).
type diag struct {
	fd  int
	seq uint32
	own map[netip.Addr]bool // this host's addresses, whose connections are not seen; nil: all are
}

func openDiag() (*diag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("sock_diag socket: %w", err)
	}
	// No answer within that time means that the kernel will not answer at all.
	timeout := unix.Timeval{Sec: 5}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("sock_diag socket: %w", err)
	}
	return &diag{fd: fd}, nil
}

// openUsers has one that sees connections of users alone: what this host's own addresses open comes from no router.
func openUsers() (*diag, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("own addresses: %w", err)
	}
	d, err := openDiag()
	if err != nil {
		return nil, err
	}
	d.own = make(map[netip.Addr]bool, len(addresses))
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			d.own[p.Addr()] = true
		}
	}
	return d, nil
}

func (d *diag) close() { unix.Close(d.fd) }

// closeLost closes the lost connections of one local address and port, of both families: a server that listens on [::] has its
// IPv4 users as mapped addresses.
func (d *diag) closeLost(ctx context.Context, local netip.AddrPort, lost func(netip.AddrPort) bool) (int, error) {
	closed := 0
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		socks, err := d.dump(family, local)
		if err != nil {
			return closed, err
		}
		for _, s := range socks {
			if err := ctx.Err(); err != nil {
				return closed, err
			}
			if !lost(s.remote) {
				continue
			}
			ok, err := d.destroy(family, s)
			if err != nil {
				return closed, fmt.Errorf("close connection of %s to %s: %w", s.remote, local, err)
			}
			if ok {
				closed++
			}
		}
	}
	return closed, nil
}

// tcpStates are those of a connection (include/net/tcp_states.h): not CLOSE, TIME_WAIT or LISTEN, where there is nobody to reset.
const tcpStates = 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11 | 1<<12

// sock is one connection in the socket table. id is the kernel's inet_diag_sockid, as it wants it back.
type sock struct {
	remote netip.AddrPort
	id     [sockIDLen]byte
}

const (
	sockIDLen  = 48          // struct inet_diag_sockid
	requestLen = 8 + 48      // struct inet_diag_req_v2
	messageLen = 4 + 48 + 20 // struct inet_diag_msg
)

func (d *diag) dump(family uint8, local netip.AddrPort) ([]sock, error) {
	var id [sockIDLen]byte
	binary.BigEndian.PutUint16(id[0:], local.Port())
	if err := d.send(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, family, tcpStates, id); err != nil {
		return nil, fmt.Errorf("read connections of %s: %w", local, err)
	}
	var socks []sock
	err := d.receive(func(body []byte) {
		if s, at, ok := parseSock(body); ok && at == local && !d.own[s.remote.Addr()] {
			socks = append(socks, s)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read connections of %s: %w", local, err)
	}
	return socks, nil
}

// destroy ends one connection; false when it was gone already.
func (d *diag) destroy(family uint8, s sock) (bool, error) {
	if err := d.send(unix.SOCK_DESTROY, unix.NLM_F_ACK, family, tcpStates, s.id); err != nil {
		return false, err
	}
	err := d.receive(func([]byte) {})
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return false, fmt.Errorf("the kernel lacks CONFIG_INET_DIAG_DESTROY: %w", err)
	}
	return err == nil, err
}

func (d *diag) send(kind uint16, flags uint16, family uint8, states uint32, id [sockIDLen]byte, attributes ...byte) error {
	return d.request(kind, flags, family, 0, states, id, attributes...)
}

// sendFor asks for all connections, with extensions (idiag_ext).
func (d *diag) sendFor(extensions, family uint8, id [sockIDLen]byte) error {
	return d.request(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, family, extensions, tcpStates, id)
}

func (d *diag) request(kind uint16, flags uint16, family, extensions uint8, states uint32, id [sockIDLen]byte, attributes ...byte) error {
	d.seq++
	b := append(make([]byte, unix.SizeofNlMsghdr+requestLen), attributes...)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(b[8:], d.seq)
	req := b[unix.SizeofNlMsghdr:]
	req[0], req[1], req[2] = family, unix.IPPROTO_TCP, extensions
	binary.NativeEndian.PutUint32(req[4:], states)
	copy(req[8:], id[:])
	return unix.Sendto(d.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive hands each message of the answer to each, until it is done or acknowledged.
func (d *diag) receive(each func(body []byte)) error {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(d.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom sock_diag", err)
		}
		done, err := splitMessages(buf[:n], d.seq, each)
		if done || err != nil {
			return err
		}
	}
}

// splitMessages walks the netlink messages of one datagram. done: the answer to seq ends here.
func splitMessages(b []byte, seq uint32, each func(body []byte)) (done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b[0:]))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false, fmt.Errorf("sock_diag: message of %d bytes in %d", size, len(b))
		}
		body := b[unix.SizeofNlMsghdr:size]
		if binary.NativeEndian.Uint32(b[8:]) == seq {
			switch binary.NativeEndian.Uint16(b[4:]) {
			case unix.NLMSG_DONE:
				return true, nil
			case unix.NLMSG_ERROR:
				if len(body) < 4 {
					return false, errors.New("sock_diag: error message cut short")
				}
				if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
					return true, unix.Errno(-code)
				}
				return true, nil
			default:
				each(body)
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false, nil
}

// parseSock reads a struct inet_diag_msg. IPv4 addresses that are mapped to IPv6 come back as IPv4.
func parseSock(b []byte) (s sock, local netip.AddrPort, ok bool) {
	if len(b) < messageLen {
		return s, local, false
	}
	family, id := b[0], b[4:4+sockIDLen]
	address := func(b []byte) netip.Addr {
		if family == unix.AF_INET {
			return netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrFrom16([16]byte(b[:16])).Unmap()
	}
	copy(s.id[:], id)
	local = netip.AddrPortFrom(address(id[4:20]), binary.BigEndian.Uint16(id[0:]))
	s.remote = netip.AddrPortFrom(address(id[20:36]), binary.BigEndian.Uint16(id[2:]))
	return s, local, true
}
