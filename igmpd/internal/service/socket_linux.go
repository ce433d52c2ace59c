package service

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/packetsock"
)

const (
	packetMax     = 65536
	receiveBuffer = 1 << 20
	routerAlert   = "\x94\x04\x00\x00" // RFC 2113
	precedence    = 0xc0               // internetwork control, RFC 3376 section 4
)

// igmpFilter takes IPv4 packets with protocol 2; offsets are from the IP header.
var igmpFilter = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 9, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_IGMP, SkipTrue: 1},
	bpf.RetConstant{Val: packetMax},
	bpf.RetConstant{Val: 0},
}

// portSocket receives the IGMP packets of one interface.
type portSocket struct {
	name  string
	index int
	file  *os.File
	over  atomic.Bool
}

// openPort opens a packet socket that hears all groups.
func openPort(name string, index int) (*portSocket, error) {
	file, err := packetsock.Open(packetsock.Config{
		Ifindex: index, Name: "igmp-" + name, Filter: igmpFilter, AllMulticast: true, Buffer: receiveBuffer,
	})
	if err != nil {
		return nil, err
	}
	return &portSocket{name: name, index: index, file: file}, nil
}

// read hands packets on until the socket is closed, its interface goes or done is closed.
func (s *portSocket) read(packets chan<- Packet, done <-chan struct{}) {
	defer s.over.Store(true)
	buffer := make([]byte, packetMax)
	for {
		n, err := s.file.Read(buffer)
		if err != nil {
			return
		}
		p, err := parseIPv4(buffer[:n])
		if err != nil {
			continue
		}
		p.Port, p.At, p.Payload = s.name, time.Now(), slices.Clone(p.Payload)
		select {
		case packets <- p:
		case <-done:
			return
		}
	}
}

func (s *portSocket) ended() bool { return s.over.Load() }
func (s *portSocket) close()      { s.file.Close() }

// sender sends IGMP messages on any interface.
type sender struct{ fd int }

func newSender() (*sender, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_IGMP)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		packetsock.AttachFilter(fd, packetsock.Nothing),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, precedence),
		unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, routerAlert),
	)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &sender{fd}, nil
}

func (s *sender) send(index int, from, to netip.Addr, payload []byte) error {
	control := unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(index), Spec_dst: from.As4()})
	return unix.Sendmsg(s.fd, payload, control, &unix.SockaddrInet4{Addr: to.As4()}, 0)
}

func (s *sender) close() error { return unix.Close(s.fd) }
