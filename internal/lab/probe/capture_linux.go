package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/netns"
)

// Arrival is one packet of a flow on an interface.
type Arrival struct {
	At     time.Time // by the kernel
	User   netip.Addr
	Number uint64
}

// Capture collects the packets of a flow that come in by an interface, before any program of tc sees them.
type Capture struct {
	group    netip.Addr
	file     *os.File
	done     chan struct{}
	arrivals []Arrival
	err      error
}

// captureBuffer holds some seconds of a flow, whatever else the machine does.
const captureBuffer = 32 << 20

// Listen starts to collect the UDP packets to a group.
func Listen(ns *netns.Namespace, ifname string, group netip.Addr) (*Capture, error) {
	c := &Capture{group: group, done: make(chan struct{})}
	if err := ns.Do(func() error { return c.open(ifname) }); err != nil {
		return nil, fmt.Errorf("capture on %s: %w", ifname, err)
	}
	go c.run()
	return c, nil
}

func (c *Capture) open(ifname string) error {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c.file = os.NewFile(uintptr(fd), "capture")
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL << 8, Ifindex: ifi.Index}), // network order; ETH_P_IP would come behind tc
	)
	if err != nil {
		c.file.Close()
	}
	return err
}

// run reads until the deadline that Stop sets, and then what is still there.
func (c *Capture) run() {
	defer close(c.done)
	raw, err := c.file.SyscallConn()
	if err != nil {
		c.err = err
		return
	}
	packet, control := make([]byte, 256), make([]byte, unix.CmsgSpace(16))
	take := func(fd uintptr) (done bool) {
		n, oobn, _, _, err := unix.Recvmsg(int(fd), packet, control, 0)
		if err != nil {
			c.err = err
			return !errors.Is(err, unix.EAGAIN)
		}
		c.err = nil
		if a, ok := c.parse(packet[:n], control[:oobn]); ok {
			c.arrivals = append(c.arrivals, a)
		}
		return true
	}
	for err == nil && c.err == nil {
		err = raw.Read(take)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		c.err = errors.Join(c.err, err)
		return
	}
	err = raw.Control(func(fd uintptr) {
		for take(fd) && c.err == nil {
		}
	})
	if errors.Is(c.err, unix.EAGAIN) {
		c.err = nil
	}
	c.err = errors.Join(c.err, err)
}

// parse takes an IPv4 packet without options, as a flow sends them.
func (c *Capture) parse(p, control []byte) (a Arrival, ok bool) {
	const header = 20 + 8
	if len(p) < header+payloadBytes || p[0] != 0x45 || p[9] != unix.IPPROTO_UDP || netip.AddrFrom4([4]byte(p[16:20])) != c.group {
		return a, false
	}
	a.User, a.Number = netip.AddrFrom4([4]byte(p[12:16])), binary.BigEndian.Uint64(p[header:])
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return a, false
	}
	for _, m := range messages {
		if m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			a.At = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return a, !a.At.IsZero()
}

// Stop ends the capture. What the kernel had to drop makes it an error.
func (c *Capture) Stop() ([]Arrival, error) {
	defer c.file.Close()
	if err := c.file.SetReadDeadline(time.Now()); err != nil {
		return nil, err
	}
	<-c.done
	if c.err != nil {
		return nil, fmt.Errorf("capture: %w", c.err)
	}
	raw, err := c.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var stats *unix.TpacketStats
	if e := raw.Control(func(fd uintptr) {
		stats, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	}); e != nil || err != nil {
		return nil, fmt.Errorf("capture: %w", errors.Join(e, err))
	}
	if stats.Drops > 0 {
		return nil, fmt.Errorf("capture: %d packets were not seen", stats.Drops)
	}
	return c.arrivals, nil
}
