package probe

import (
	"encoding/binary"
	"fmt"
	"net/netip"
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
	receiver *receiver
	arrivals []Arrival
}

// Listen starts to collect the UDP packets to a group.
func Listen(ns *netns.Namespace, ifname string, group netip.Addr) (*Capture, error) {
	c := &Capture{group: group}
	var err error
	if c.receiver, err = receive(ns, ifname, true, c.take); err != nil {
		return nil, err
	}
	return c, nil
}

// take takes an IPv4 packet without options, as a flow sends them.
func (c *Capture) take(p []byte, at time.Time, _ bool) {
	const header = 20 + 8
	if len(p) < header+payloadBytes || p[0] != 0x45 || p[9] != unix.IPPROTO_UDP || netip.AddrFrom4([4]byte(p[16:20])) != c.group {
		return
	}
	c.arrivals = append(c.arrivals, Arrival{at, netip.AddrFrom4([4]byte(p[12:16])), binary.BigEndian.Uint64(p[header:])})
}

// Stop ends the capture. What the kernel had to drop makes it an error.
func (c *Capture) Stop() ([]Arrival, error) {
	err := c.receiver.stop()
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	return c.arrivals, nil
}
