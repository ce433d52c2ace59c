package rtnl

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Route is a route of IP, or of a label.
type Route struct {
	Prefix   netip.Prefix // invalid: of Label
	Label    uint32
	Metric   uint32
	Protocol uint8
	Type     uint8
	TOS      uint8
	Table    uint32
	Flags    uint32 // RTM_F_...
	Hops     []Hop  // none in a request to delete: whatever it has
}

// Hop is one next hop.
type Hop struct {
	Labels    []uint32   // outermost first
	Via       netip.Addr // invalid: Interface itself; of IPv4 in a route of IPv6 with labels alone (RFC 4798)
	Interface int
}

// Family is AF_INET, AF_INET6 or AF_MPLS.
func (r *Route) Family() uint8 {
	switch {
	case !r.Prefix.IsValid():
		return unix.AF_MPLS
	case r.Prefix.Addr().Is4():
		return unix.AF_INET
	}
	return unix.AF_INET6
}

const (
	labelBits   = 20
	labelShift  = 12
	labelBottom = 1 << 8
)

func appendLabels(b []byte, labels []uint32) []byte {
	for i, l := range labels {
		entry := l << labelShift
		if i == len(labels)-1 {
			entry |= labelBottom
		}
		b = binary.BigEndian.AppendUint32(b, entry)
	}
	return b
}

func parseLabels(b []byte) ([]uint32, error) {
	if len(b)%4 != 0 {
		return nil, errShort
	}
	labels := make([]uint32, 0, len(b)/4)
	for ; len(b) > 0; b = b[4:] {
		labels = append(labels, binary.BigEndian.Uint32(b)>>labelShift)
	}
	return labels, nil
}

// append appends what follows the netlink header in a request about r.
func (r *Route) append(b []byte, remove bool) []byte {
	family, scope := r.Family(), byte(unix.RT_SCOPE_UNIVERSE)
	bits := labelBits
	if family != unix.AF_MPLS {
		bits = r.Prefix.Bits()
		if remove {
			scope = unix.RT_SCOPE_NOWHERE // any
		}
	}
	flags := r.Flags
	if len(r.Hops) == 1 {
		flags |= uint32(r.Hops[0].flags(family))
	}
	b = append(b, family, byte(bits), 0, r.TOS, tableByte(r.Table), r.Protocol, scope, r.Type)
	b = native.AppendUint32(b, flags)
	b = appendAttribute(b, unix.RTA_DST, func(b []byte) []byte {
		if family == unix.AF_MPLS {
			return appendLabels(b, []uint32{r.Label})
		}
		return append(b, r.Prefix.Addr().AsSlice()...)
	})
	if family != unix.AF_MPLS {
		b = appendUint32(b, unix.RTA_PRIORITY, r.Metric)
	}
	if r.Table > 0xff {
		b = appendUint32(b, unix.RTA_TABLE, r.Table)
	}
	switch len(r.Hops) {
	case 0:
		return b
	case 1:
		b = r.Hops[0].append(b, family)
		return appendUint32(b, unix.RTA_OIF, uint32(r.Hops[0].Interface))
	}
	return appendAttribute(b, unix.RTA_MULTIPATH, func(b []byte) []byte {
		for _, h := range r.Hops {
			start := len(b)
			b = native.AppendUint32(append(b, 0, 0, h.flags(family), 0), uint32(h.Interface))
			b = h.append(b, family)
			native.PutUint16(b[start:], uint16(len(b)-start))
		}
		return b
	})
}

// flags are those of a hop of a route of that family (RTNH_F_...): no route says where a mapped address is, which is a neighbor's.
func (h *Hop) flags(family uint8) byte {
	if family == unix.AF_INET6 && h.Via.Is4() {
		return unix.RTNH_F_ONLINK
	}
	return 0
}

// append appends the attributes of a hop of a route of that family.
func (h *Hop) append(b []byte, family uint8) []byte {
	switch {
	case len(h.Labels) == 0:
	case family == unix.AF_MPLS:
		b = appendAttribute(b, unix.RTA_NEWDST, func(b []byte) []byte { return appendLabels(b, h.Labels) })
	default:
		b = appendAttribute(b, unix.RTA_ENCAP_TYPE, func(b []byte) []byte { return native.AppendUint16(b, unix.LWTUNNEL_ENCAP_MPLS) })
		b = appendAttribute(b, unix.RTA_ENCAP|unix.NLA_F_NESTED, func(b []byte) []byte {
			return appendAttribute(b, unix.MPLS_IPTUNNEL_DST, func(b []byte) []byte { return appendLabels(b, h.Labels) })
		})
	}
	via := uint16(unix.AF_INET)
	switch {
	case !h.Via.IsValid():
		return b
	case h.Via.Is6():
		via = unix.AF_INET6
	}
	if family == unix.AF_INET6 { // IPv4 as mapped
		to := h.Via.As16()
		return appendAttribute(b, unix.RTA_GATEWAY, func(b []byte) []byte { return append(b, to[:]...) })
	}
	if family == uint8(via) {
		return appendAttribute(b, unix.RTA_GATEWAY, func(b []byte) []byte { return append(b, h.Via.AsSlice()...) })
	}
	return appendAttribute(b, unix.RTA_VIA, func(b []byte) []byte { return append(native.AppendUint16(b, via), h.Via.AsSlice()...) })
}

// ParseRoute reads an RTM_NEWROUTE or RTM_DELROUTE. What only others' routes have (other encapsulations, ways by the address of a
// link) is left out of it.
func ParseRoute(data []byte) (Route, error) {
	if len(data) < unix.SizeofRtMsg {
		return Route{}, errShort
	}
	family := data[0]
	r := Route{TOS: data[3], Table: uint32(data[4]), Protocol: data[5], Type: data[7], Flags: native.Uint32(data[8:])}
	switch family {
	case unix.AF_INET:
		r.Prefix = netip.PrefixFrom(netip.IPv4Unspecified(), int(data[1]))
	case unix.AF_INET6:
		r.Prefix = netip.PrefixFrom(netip.IPv6Unspecified(), int(data[1]))
	case unix.AF_MPLS:
	default:
		return r, fmt.Errorf("netlink: a route of address family %d", family)
	}
	var single Hop
	err := attributes(data[unix.SizeofRtMsg:], func(typ uint16, v []byte) (err error) {
		switch typ {
		case unix.RTA_DST:
			return r.parseDestination(family, v)
		case unix.RTA_PRIORITY:
			r.Metric, err = parseUint32(v)
		case unix.RTA_TABLE:
			r.Table, err = parseUint32(v)
		case unix.RTA_OIF:
			var index uint32
			index, err = parseUint32(v)
			single.Interface = int(index)
		case unix.RTA_MULTIPATH:
			r.Hops, err = parseHops(v)
		default:
			return single.parse(typ, v)
		}
		return err
	})
	if err == nil && family != unix.AF_MPLS && !r.Prefix.IsValid() {
		err = fmt.Errorf("netlink: a route's prefix of %d bits", data[1])
	}
	if len(r.Hops) == 0 {
		r.Hops = []Hop{single}
	}
	return r, err
}

func (r *Route) parseDestination(family uint8, v []byte) error {
	if family == unix.AF_MPLS {
		labels, err := parseLabels(v)
		if err == nil && len(labels) != 1 {
			err = fmt.Errorf("netlink: a route of %d labels", len(labels))
		}
		if err == nil {
			r.Label = labels[0]
		}
		return err
	}
	addr, ok := netip.AddrFromSlice(v)
	if !ok || addr.Is4() != (family == unix.AF_INET) {
		return errShort
	}
	r.Prefix = netip.PrefixFrom(addr, r.Prefix.Bits())
	return nil
}

func parseHops(b []byte) (hops []Hop, err error) {
	for len(b) >= unix.SizeofRtNexthop {
		length := int(native.Uint16(b))
		if length < unix.SizeofRtNexthop || length > len(b) {
			return nil, errShort
		}
		h := Hop{Interface: int(native.Uint32(b[4:]))}
		if err := attributes(b[unix.SizeofRtNexthop:length], h.parse); err != nil {
			return nil, err
		}
		hops = append(hops, h)
		b = b[min(align(length), len(b)):]
	}
	return hops, nil
}

func (h *Hop) parse(typ uint16, v []byte) (err error) {
	switch typ {
	case unix.RTA_NEWDST:
		h.Labels, err = parseLabels(v)
	case unix.RTA_ENCAP:
		return attributes(v, func(typ uint16, v []byte) error {
			if typ == unix.MPLS_IPTUNNEL_DST && len(v)%4 == 0 {
				h.Labels, err = parseLabels(v)
			}
			return err
		})
	case unix.RTA_GATEWAY:
		h.Via, _ = netip.AddrFromSlice(v)
		h.Via = h.Via.Unmap()
	case unix.RTA_VIA:
		if len(v) < 2 {
			return errShort
		}
		if f := native.Uint16(v); f == unix.AF_INET || f == unix.AF_INET6 {
			h.Via, _ = netip.AddrFromSlice(v[2:])
		}
	}
	return err
}
