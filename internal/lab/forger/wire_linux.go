package forger

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/netns"
)

// Sender sends packets with whatever source address.
type Sender struct{ fd int }

// Open makes a sender in a host.
func Open(ns *netns.Namespace) (*Sender, error) {
	s := &Sender{}
	err := ns.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("raw socket: %w", err)
	}
	return s, nil
}

// Close lets go of it.
func (s *Sender) Close() error { return unix.Close(s.fd) }

const (
	ipHeader  = 20
	udpHeader = 8
	tcpHeader = 20
)

// UDP sends a datagram without a checksum.
func (s *Sender) UDP(from, to netip.AddrPort, payload []byte) error {
	p := packet(from.Addr(), to.Addr(), unix.IPPROTO_UDP, udpHeader+len(payload))
	u := p[ipHeader:]
	binary.BigEndian.PutUint16(u, from.Port())
	binary.BigEndian.PutUint16(u[2:], to.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(udpHeader+len(payload)))
	copy(u[udpHeader:], payload)
	return s.send(to.Addr(), p)
}

// Segment is a TCP segment.
type Segment struct {
	From, To      netip.AddrPort
	Sequence, Ack uint32
	Flags         byte
	Payload       []byte
}

// Flags of segments.
const (
	FIN = 1
	SYN = 2
	RST = 4
	PSH = 8
	ACK = 16
)

// TCP sends a segment.
func (s *Sender) TCP(t Segment) error {
	p := packet(t.From.Addr(), t.To.Addr(), unix.IPPROTO_TCP, tcpHeader+len(t.Payload))
	h := p[ipHeader:]
	binary.BigEndian.PutUint16(h, t.From.Port())
	binary.BigEndian.PutUint16(h[2:], t.To.Port())
	binary.BigEndian.PutUint32(h[4:], t.Sequence)
	binary.BigEndian.PutUint32(h[8:], t.Ack)
	h[12], h[13] = tcpHeader/4<<4, t.Flags
	binary.BigEndian.PutUint16(h[14:], 1024)
	copy(h[tcpHeader:], t.Payload)
	binary.BigEndian.PutUint16(h[16:], checksum(p))
	return s.send(t.To.Addr(), p)
}

// packet has an IPv4 header; the kernel sets length, id and checksum.
func packet(from, to netip.Addr, protocol byte, payload int) []byte {
	p := make([]byte, ipHeader+payload)
	p[0], p[8], p[9] = 0x45, 64, protocol
	src, dst := from.As4(), to.As4()
	copy(p[12:], src[:])
	copy(p[16:], dst[:])
	return p
}

// checksum is that of the segment in a packet (RFC 9293 section 3.1), whose own is 0.
func checksum(p []byte) uint16 {
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(p)-ipHeader)
	for i := 12; i < len(p); i += 2 { // from the addresses on
		sum += uint32(p[i]) << 8
		if i+1 < len(p) {
			sum += uint32(p[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func (s *Sender) send(to netip.Addr, p []byte) error {
	if err := unix.Sendto(s.fd, p, 0, &unix.SockaddrInet4{Addr: to.As4()}); err != nil {
		return fmt.Errorf("send to %v: %w", to, err)
	}
	return nil
}
