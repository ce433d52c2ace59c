package joiner

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/packetsock"
)

// linkSocket is the Socket of one Ethernet interface. CAP_NET_RAW is enough for all of it.
type linkSocket struct {
	ifindex int
	packet  *os.File // AF_PACKET: holds the groups' MAC addresses and hears queries, those sent to groups too
	raw     int      // AF_INET raw: sends
	groups  []netip.Addr
	buffer  []byte
	isDown  bool // nothing was read since the interface went down
}

// ifGoneCheck is how often an interface that went down is looked for: the kernel says that it goes down, not that it is gone.
const ifGoneCheck = time.Second

// Open opens the Socket of the interface; reports bear the source address requester, which has to be local.
func Open(ifname string, requester netip.Addr) (Socket, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", ifname, err)
	}
	s := &linkSocket{ifindex: ifi.Index, buffer: make([]byte, math.MaxUint16)}
	if s.packet, err = packetsock.Open(packetsock.Config{Ifindex: ifi.Index, Name: "igmp-" + ifname, Filter: queryFilter}); err != nil {
		return nil, fmt.Errorf("packet socket on %s: %w", ifname, explain(err))
	}
	if s.raw, err = openRaw(ifi.Index, requester); err != nil {
		return nil, errors.Join(fmt.Errorf("IGMP socket on %s, from %v: %w", ifname, requester, explain(err)), s.packet.Close())
	}
	return s, nil
}

func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: needs CAP_NET_RAW", err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%w: set `address` to an address of this machine", err)
	}
	return err
}

func openRaw(ifindex int, requester netip.Addr) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_IGMP)
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		packetsock.AttachFilter(fd, packetsock.Nothing), // it only sends
		unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(ifindex)}),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, 0xc0), // internetwork control, RFC 3376 section 4
		unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, routerAlert),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: requester.As4()}),
	)
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// routerAlert is the IP option of RFC 2113.
const routerAlert = "\x94\x04\x00\x00"

var allIGMPv3Routers = [4]byte{224, 0, 0, 22}

// queryFilter takes whole IGMP queries that others sent; offsets are from the IP header.
var queryFilter = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 9, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_IGMP, SkipTrue: 6},
	bpf.LoadAbsolute{Off: 6, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: 4}, // a fragment
	bpf.LoadMemShift{Off: 0},
	bpf.LoadIndirect{Off: 0, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: igmp.TypeQuery, SkipTrue: 1},
	bpf.RetConstant{Val: math.MaxUint16},
	bpf.RetConstant{Val: 0},
}

// SetGroups implements Socket. The groups' MAC addresses are added to the interface by the packet socket, and go with it.
func (s *linkSocket) SetGroups(groups []netip.Addr) error {
	var failed []error
	change := func(do func(*os.File, int, netip.Addr) error, group netip.Addr) bool {
		err := do(s.packet, s.ifindex, group)
		if err != nil {
			failed = append(failed, err)
		}
		return err == nil
	}
	var now []netip.Addr
	for _, g := range groups {
		if slices.Contains(s.groups, g) || change(packetsock.Join, g) {
			now = append(now, g)
		}
	}
	for _, g := range s.groups {
		if !slices.Contains(groups, g) {
			change(packetsock.Leave, g)
		}
	}
	s.groups = now
	return errors.Join(failed...)
}

// Send implements Socket.
func (s *linkSocket) Send(report []byte) error {
	if err := unix.Sendto(s.raw, report, 0, &unix.SockaddrInet4{Addr: allIGMPv3Routers}); err != nil {
		return fmt.Errorf("send report of %d bytes: %w", len(report), err)
	}
	return nil
}

// ReadQuery implements Socket. What is no proper query is skipped.
func (s *linkSocket) ReadQuery() (igmp.Query, error) {
	for {
		n, err := s.packet.Read(s.buffer)
		switch {
		case errors.Is(err, unix.ENETDOWN), errors.Is(err, os.ErrDeadlineExceeded):
			if err := s.waitForLink(); err != nil {
				return igmp.Query{}, fmt.Errorf("read queries: %w", err)
			}
			continue
		case err != nil:
			return igmp.Query{}, fmt.Errorf("read queries: %w", err)
		case s.isDown:
			s.isDown = false
			if err := s.packet.SetReadDeadline(time.Time{}); err != nil {
				return igmp.Query{}, fmt.Errorf("read queries: %w", err)
			}
		}
		if q, ok := parseQuery(s.buffer[:n]); ok {
			return q, nil
		}
	}
}

// waitForLink makes the next read end in time to look again whether the interface that went down is still there.
func (s *linkSocket) waitForLink() error {
	bound, err := packetsock.Bound(s.packet, s.ifindex)
	if err != nil {
		return err
	}
	if !bound {
		return ErrLinkGone
	}
	s.isDown = true
	return s.packet.SetReadDeadline(time.Now().Add(ifGoneCheck))
}

// parseQuery takes the query out of an IP packet. Queries that crossed a router (TTL above 1) are nobody's here.
func parseQuery(b []byte) (igmp.Query, bool) {
	if len(b) < 20 || b[0]>>4 != 4 || b[8] != 1 {
		return igmp.Query{}, false
	}
	header, total := int(b[0]&0xf)*4, int(b[2])<<8|int(b[3])
	if header < 20 || total > len(b) || header > total {
		return igmp.Query{}, false
	}
	m, err := igmp.Parse(b[header:total])
	if err != nil {
		return igmp.Query{}, false
	}
	q, ok := m.(igmp.Query)
	return q, ok
}

// Close implements Socket.
func (s *linkSocket) Close() error {
	return errors.Join(s.packet.Close(), unix.Close(s.raw))
}
