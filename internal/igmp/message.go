// Package igmp is the codec of IGMPv1 (RFC 1112), IGMPv2 (RFC 2236) and IGMPv3 (RFC 3376) messages with the extensions of
// RFC 9279. It knows bytes only: no sockets, no IP header, no state.
package igmp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Message types, the first byte of every message.
const (
	TypeQuery    = 0x11
	TypeV1Report = 0x12
	TypeV2Report = 0x16
	TypeLeave    = 0x17
	TypeV3Report = 0x22
)

// MaxBytes is the longest message that an IPv4 packet with a router alert option carries.
const MaxBytes = 65535 - 24

const headerBytes = 8

// What is wrong with a message; errors of Parse and Append wrap one of them.
var (
	ErrTruncated = errors.New("truncated")
	ErrChecksum  = errors.New("wrong checksum")
	ErrMalformed = errors.New("malformed")
	ErrUnknown   = errors.New("unknown message type") // to be ignored in silence, RFC 3376 section 4
)

// Message is one of Query, V1Report, V2Report, Leave and Report.
type Message interface {
	// Append appends the message with its checksum to b.
	Append(b []byte) ([]byte, error)
}

// Marshal returns the bytes of m, checksum included.
func Marshal(m Message) ([]byte, error) { return m.Append(nil) }

// Parse decodes an IGMP message, the payload of an IP packet. The kernel does not check what it gives to raw sockets, so
// Parse checks the checksum too. Values of extensions alias b; everything else is copied.
func Parse(b []byte) (Message, error) {
	if len(b) < headerBytes {
		return nil, fmt.Errorf("igmp: %w: %d bytes, the header has %d", ErrTruncated, len(b), headerBytes)
	}
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("igmp: %w: %d bytes, more than fit an IPv4 packet", ErrMalformed, len(b))
	}
	if sum(b) != 0 {
		return nil, fmt.Errorf("igmp: %w: type %#x, %d bytes", ErrChecksum, b[0], len(b))
	}
	switch b[0] {
	case TypeQuery:
		return parseQuery(b)
	case TypeV1Report:
		return V1Report{Group: addr4(b[4:])}, nil
	case TypeV2Report:
		return V2Report{Group: addr4(b[4:])}, nil
	case TypeLeave:
		return Leave{Group: addr4(b[4:])}, nil
	case TypeV3Report:
		return parseReport(b)
	}
	return nil, fmt.Errorf("igmp: %w: %#x", ErrUnknown, b[0])
}

// sum is the Internet checksum (RFC 1071); 0 over a message that bears a right one.
func sum(b []byte) uint16 {
	var s uint64
	for ; len(b) >= 4; b = b[4:] {
		s += uint64(binary.BigEndian.Uint32(b))
	}
	if len(b) >= 2 {
		s += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// seal writes the checksum of the message at b[start:].
func seal(b []byte, start int) ([]byte, error) {
	msg := b[start:]
	if len(msg) > MaxBytes {
		return nil, fmt.Errorf("igmp: %w: %d bytes, more than fit an IPv4 packet", ErrMalformed, len(msg))
	}
	msg[2], msg[3] = 0, 0
	binary.BigEndian.PutUint16(msg[2:], sum(msg))
	return b, nil
}

func addr4(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b[:4])) }

// appendAddr appends an IPv4 address; what is the field's name for the error.
func appendAddr(b []byte, a netip.Addr, what string) ([]byte, error) {
	if !a.Is4() {
		return nil, fmt.Errorf("igmp: %w: %s %v is no IPv4 address", ErrMalformed, what, a)
	}
	v := a.As4()
	return append(b, v[:]...), nil
}

// parseAddrs decodes n addresses off the front of b.
func parseAddrs(b []byte, n int) ([]netip.Addr, []byte, error) {
	if len(b) < 4*n {
		return nil, nil, fmt.Errorf("igmp: %w: %d sources announced, %d bytes left", ErrTruncated, n, len(b))
	}
	if n == 0 {
		return nil, b, nil
	}
	addrs := make([]netip.Addr, n)
	for i := range addrs {
		addrs[i] = addr4(b[4*i:])
	}
	return addrs, b[4*n:], nil
}

func appendAddrs(b []byte, addrs []netip.Addr) ([]byte, error) {
	var err error
	for _, a := range addrs {
		if b, err = appendAddr(b, a, "source"); err != nil {
			return nil, err
		}
	}
	return b, nil
}
