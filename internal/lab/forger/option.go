package forger

import (
	"encoding/binary"
	"net/netip"
)

// Option is what a SYN or SYN-ACK says of dynamic TCP.
type Option struct {
	Tag         uint16
	Cookie      uint64
	Destination netip.AddrPort // zero: none is said
}

// What the option begins with, and its lengths, in bytes.
const (
	optionKind             = 254
	optionExID             = 0x4d44
	optionBytes            = 14
	optionDestinationBytes = 20
)

// FindOption looks for it among a segment's options. What is cut off is none.
func FindOption(options []byte) (Option, bool) {
	for len(options) >= 2 && options[0] != 0 {
		if options[0] == 1 {
			options = options[1:]
			continue
		}
		n := int(options[1])
		if n < 2 || n > len(options) {
			break
		}
		o := options[:n]
		options = options[n:]
		if o[0] != optionKind || n != optionBytes && n != optionDestinationBytes || binary.BigEndian.Uint16(o[2:]) != optionExID {
			continue
		}
		found := Option{Tag: binary.BigEndian.Uint16(o[4:]), Cookie: binary.BigEndian.Uint64(o[6:])}
		if n == optionDestinationBytes {
			found.Destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(o[14:18])), binary.BigEndian.Uint16(o[18:]))
		}
		return found, true
	}
	return Option{}, false
}
