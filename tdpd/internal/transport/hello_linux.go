package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/manycast/manycast/tdpd/internal/discovery"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// helloSocket is where hellos of one family come and go.
type helloSocket struct {
	local netip.Addr // transport address, which targeted hellos come from
	v4    *ipv4.PacketConn
	v6    *ipv6.PacketConn

	mu     sync.Mutex
	joined map[string]membership // of interfaces whose link hellos are taken
	names  map[int]string        // the same by index
}

func openHellos(local netip.Addr) (*helloSocket, error) {
	h := &helloSocket{local: local, joined: map[string]membership{}, names: map[int]string{}}
	network, any := "udp4", "0.0.0.0"
	if local.Is6() {
		network, any = "udp6", "::"
	}
	pc, err := net.ListenPacket(network, net.JoinHostPort(any, strconv.Itoa(wire.Port)))
	if err != nil {
		return nil, err
	}
	if local.Is4() {
		h.v4 = ipv4.NewPacketConn(pc)
		err = errors.Join(h.v4.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true), h.v4.SetMulticastTTL(1), h.v4.SetMulticastLoopback(false), h.v4.SetTTL(255))
	} else {
		h.v6 = ipv6.NewPacketConn(pc)
		// RFC 7552 section 5.1: link hellos have, and have to have, 255 hops.
		err = errors.Join(h.v6.SetControlMessage(ipv6.FlagInterface|ipv6.FlagDst|ipv6.FlagHopLimit, true), h.v6.SetMulticastHopLimit(255), h.v6.SetMulticastLoopback(false), h.v6.SetHopLimit(255))
	}
	if err != nil {
		pc.Close()
		return nil, err
	}
	return h, nil
}

func (h *helloSocket) close() {
	_ = h.setInterfaces(nil)
	if h.v4 != nil {
		h.v4.Close()
	} else {
		h.v6.Close()
	}
}

func (h *helloSocket) group() netip.Addr {
	if h.local.Is4() {
		return discovery.AllRouters4
	}
	return discovery.AllRouters6
}

func (h *helloSocket) runsOn(i discovery.Interface) bool {
	return i.V4 && h.local.Is4() || i.V6 && h.local.Is6()
}

// setInterfaces joins the group of all routers by these interfaces and leaves it by others. One that was made anew under its old name
// has another index.
func (h *helloSocket) setInterfaces(all []discovery.Interface) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	wanted := map[string]int{}
	var errs []error
	for _, i := range all {
		if !h.runsOn(i) {
			continue
		}
		ifi, err := net.InterfaceByName(i.Name)
		if err != nil {
			errs = append(errs, fmt.Errorf("interface %s: %w", i.Name, err))
			continue
		}
		wanted[i.Name] = ifi.Index
	}
	for name, m := range h.joined {
		if wanted[name] != m.index {
			m.leave()
			delete(h.joined, name)
			delete(h.names, m.index)
		}
	}
	for name, index := range wanted {
		if _, there := h.joined[name]; there {
			continue
		}
		m, err := join(h.group(), index)
		if err != nil {
			errs = append(errs, fmt.Errorf("join %v by %s: %w", h.group(), name, err))
			continue
		}
		h.joined[name], h.names[index] = m, name
	}
	return errors.Join(errs...)
}

func (h *helloSocket) send(datagram []byte, iface string, to netip.Addr) error {
	h.mu.Lock()
	m, joined := h.joined[iface]
	h.mu.Unlock()
	source := net.IP(nil)
	switch {
	case iface == "":
		source = h.local.AsSlice()
	case !joined:
		return fmt.Errorf("interface %s is not there", iface)
	}
	dst := &net.UDPAddr{IP: to.AsSlice(), Port: wire.Port}
	var err error
	if h.v4 != nil {
		_, err = h.v4.WriteTo(datagram, &ipv4.ControlMessage{IfIndex: m.index, Src: source}, dst)
	} else {
		_, err = h.v6.WriteTo(datagram, &ipv6.ControlMessage{IfIndex: m.index, Src: source}, dst)
	}
	return err
}

// arrival is how a datagram came.
type arrival struct {
	index    int
	dst      netip.Addr
	source   netip.Addr
	hopLimit int // of IPv6
}

// receive waits for a datagram; ok: it holds a hello that came as hellos of its kind have to. One that is wrong has to come as link
// hellos do, which nobody can send from elsewhere.
func (h *helloSocket) receive(buf []byte) (e Hello, ok bool, err error) {
	n, a, err := h.read(buf)
	if err != nil {
		return e, false, err
	}
	h.mu.Lock()
	name := h.names[a.index]
	h.mu.Unlock()
	e.Interface, e.Source = name, a.source
	// RFC 7552 section 5.1: a link hello of IPv6 comes from the link.
	onLink := a.dst == h.group() && name != "" && (a.source.Is4() || a.source.IsLinkLocalUnicast() && a.hopLimit == 255)
	var bad error
	e.Sender, e.Hello, bad = wire.ParseHello(buf[:n])
	if bad != nil {
		return e, onLink && errors.As(bad, &e.Err) && e.Sender != wire.Identifier{}, nil
	}
	if e.Hello.Targeted {
		return e, !a.dst.IsMulticast(), nil
	}
	return e, onLink, nil
}

func (h *helloSocket) read(buf []byte) (n int, a arrival, err error) {
	var src net.Addr
	if h.v4 != nil {
		var cm *ipv4.ControlMessage
		if n, cm, src, err = h.v4.ReadFrom(buf); err == nil && cm != nil {
			a.index = cm.IfIndex
			a.dst, _ = netip.AddrFromSlice(cm.Dst)
		}
	} else {
		var cm *ipv6.ControlMessage
		if n, cm, src, err = h.v6.ReadFrom(buf); err == nil && cm != nil {
			a.index, a.hopLimit = cm.IfIndex, cm.HopLimit
			a.dst, _ = netip.AddrFromSlice(cm.Dst)
		}
	}
	if err != nil {
		return 0, a, err
	}
	a.dst = a.dst.Unmap()
	a.source = src.(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
	return n, a, nil
}
