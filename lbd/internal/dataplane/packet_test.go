package dataplane

import (
	"encoding/binary"

	"github.com/cilium/ebpf"
)

// packet is an IPv4 packet to be built: what a test wants to say, the rest follows.
type packet struct {
	src, dst  string
	proto     uint8
	id        uint16
	offset    uint16 // of the fragment, in units of 8 bytes
	more      bool   // more fragments follow
	options   []byte // IP options, a multiple of 4 bytes
	vlan      bool
	payload   []byte // TCP, UDP or ICMP, or a later fragment's bytes
	zeroCheck bool   // UDP without checksum
}

// frame is the Ethernet frame of p, its checksums right.
func (p packet) frame() []byte {
	src, dst := addr(p.src).As4(), addr(p.dst).As4()
	header := make([]byte, 20, 20+len(p.options)+len(p.payload))
	header = append(header, p.options...)
	header[0] = 0x40 | byte(len(header)/4)
	binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(p.payload)))
	binary.BigEndian.PutUint16(header[4:], p.id)
	fragment := p.offset
	if p.more {
		fragment |= 0x2000
	}
	binary.BigEndian.PutUint16(header[6:], fragment)
	header[8], header[9] = 64, p.proto
	copy(header[12:], src[:])
	copy(header[16:], dst[:])
	binary.BigEndian.PutUint16(header[10:], checksum(header, 0))

	payload := append([]byte(nil), p.payload...)
	if at := checkOffset(p.proto); p.offset == 0 && at > 0 && len(payload) >= at+2 && !p.zeroCheck {
		binary.BigEndian.PutUint16(payload[at:], checksum(payload, pseudo(src, dst, p.proto, len(payload))))
	}
	eth := append(make([]byte, 12), 0x08, 0x00)
	if p.vlan {
		eth = append(make([]byte, 12), 0x81, 0x00, 0x00, 0x07, 0x08, 0x00)
	}
	return append(append(eth, header...), payload...)
}

func checkOffset(proto uint8) int {
	switch proto {
	case protoTCP:
		return 16
	case protoUDP:
		return 6
	case protoICMP:
		return 2
	}
	return 0
}

const protoICMP = 1

func tcpSegment(src, dst uint16, flags byte, options []byte, data string) []byte {
	b := make([]byte, 20, 20+len(options)+len(data))
	binary.BigEndian.PutUint16(b[0:], src)
	binary.BigEndian.PutUint16(b[2:], dst)
	b[12], b[13] = byte((20+len(options))/4)<<4, flags
	return append(append(b, options...), data...)
}

func udpDatagram(src, dst uint16, data string) []byte {
	b := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(b[0:], src)
	binary.BigEndian.PutUint16(b[2:], dst)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
	return append(b, data...)
}

func icmpMessage(kind, code byte, body []byte) []byte {
	return append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, body...)
}

// quote is what an ICMP error says of p: its IP header and 8 bytes.
func quote(p packet) []byte {
	b := p.frame()[14:]
	return b[:min(len(b), int(b[0]&0xf)*4+8)]
}

func pseudo(src, dst [4]byte, proto uint8, length int) uint32 {
	if proto == protoICMP {
		return 0
	}
	b := append(append(src[:], dst[:]...), 0, proto, byte(length>>8), byte(length))
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	return sum
}

func checksum(b []byte, sum uint32) uint16 {
	for i := 0; i < len(b); i++ {
		sum += uint32(b[i]) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// everyCPU is a value for each CPU of a per-CPU map.
func everyCPU[V any](v V) []V {
	all := make([]V, ebpf.MustPossibleCPU())
	for i := range all {
		all[i] = v
	}
	return all
}
