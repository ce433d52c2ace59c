package service

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

const (
	ipv4Min         = 20
	protocolIGMP    = 2
	optionEnd       = 0
	optionNop       = 1
	optionAlert     = 0x94 // router alert, RFC 2113
	fragmentMask    = 0x3fff
	ipv4VersionByte = 4
)

var errNotIGMP = errors.New("no whole IGMP packet")

// parseIPv4 reads an IPv4 packet with IGMP in it. Fragments are refused: an IGMP message fits one packet.
func parseIPv4(b []byte) (Packet, error) {
	if len(b) < ipv4Min || b[0]>>4 != ipv4VersionByte || b[9] != protocolIGMP {
		return Packet{}, errNotIGMP
	}
	header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < ipv4Min || total < header || total > len(b) || binary.BigEndian.Uint16(b[6:])&fragmentMask != 0 || checksum(b[:header]) != 0 {
		return Packet{}, errNotIGMP
	}
	return Packet{
		Source: netip.AddrFrom4([4]byte(b[12:16])), Destination: netip.AddrFrom4([4]byte(b[16:20])), TTL: b[8],
		RouterAlert: hasRouterAlert(b[ipv4Min:header]), Payload: b[header:total],
	}, nil
}

func hasRouterAlert(options []byte) bool {
	for len(options) > 0 {
		switch options[0] {
		case optionEnd:
			return false
		case optionNop:
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return false
		}
		if options[0] == optionAlert && options[1] == 4 {
			return true
		}
		options = options[options[1]:]
	}
	return false
}

// checksum is the Internet checksum (RFC 1071) of an even number of bytes; 0 over a header that bears a right one.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
