package stray

import (
	"encoding/binary"
	"net/netip"

	"github.com/manycast/manycast/lbd/internal/dataplane"
)

const (
	ethernet = 14 // bytes
	tcp      = 6
	syn, ack = 0x02, 0x10
)

// isOf reports whether a frame is a packet of TCP of the flow that opens nothing: no fragment, no tag, no extension header.
func isOf(frame []byte, f dataplane.Flow) bool {
	if len(frame) < ethernet || len(frame) > MaxFrame {
		return false
	}
	source, destination, segment, ok := parseIP(binary.BigEndian.Uint16(frame[12:]), frame[ethernet:])
	if !ok || len(segment) < 20 {
		return false
	}
	port := func(at int) uint16 { return binary.BigEndian.Uint16(segment[at:]) }
	return netip.AddrPortFrom(source, port(0)) == f.User && netip.AddrPortFrom(destination, port(2)) == f.VIP && segment[13]&(syn|ack) != syn
}

// parseIP takes an IP header off.
func parseIP(etherType uint16, p []byte) (source, destination netip.Addr, segment []byte, ok bool) {
	switch etherType {
	case 0x0800:
		if len(p) < 20 || p[0]>>4 != 4 || p[9] != tcp || binary.BigEndian.Uint16(p[6:])&0x3fff != 0 {
			return source, destination, nil, false
		}
		header := int(p[0]&0xf) * 4
		if header < 20 || len(p) < header {
			return source, destination, nil, false
		}
		return netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:])), p[header:], true
	case 0x86dd:
		if len(p) < 40 || p[0]>>4 != 6 || p[6] != tcp {
			return source, destination, nil, false
		}
		return netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:])), p[40:], true
	}
	return source, destination, nil, false
}
