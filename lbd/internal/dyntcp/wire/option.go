package wire

import (
	"encoding/binary"
	"net/netip"
)

// The option (RFC 6994): kind, length, ExID, tag, cookie, and in a SYN-ACK of IPv4 the destination. Offsets and sizes in bytes.
const (
	OptionKind = 254    // shared by experiments, each with an ExID
	ExID       = 0x4d44 // "MD"; not registered

	OptionOffExID    = 2
	OptionOffTag     = 4
	OptionOffCookie  = 6
	OptionOffAddress = 14
	OptionOffPort    = 18

	// OptionSize is the option of a SYN, of the ACK that ends the handshake, and of a SYN-ACK without a destination.
	OptionSize = 14
	// OptionDestinationSize is the option of a SYN-ACK with a destination: all the space that a SYN with timestamps has left.
	OptionDestinationSize = 20

	// OptionsMax is what the header of a segment has room for in options.
	OptionsMax = 40
)

// Option is the TCP option of dynamic TCP.
type Option struct {
	Tag         uint16 // chosen by the user's host, as the cookie is; the server says both again
	Cookie      Cookie
	Destination netip.AddrPort // where the server is; in a SYN-ACK of IPv4 alone, else zero
}

// Append appends the encoded option to dst. A destination that is none of IPv4 is an error: one of IPv6 has no room.
func (o Option) Append(dst []byte) ([]byte, error) {
	size := OptionSize
	if o.Destination != (netip.AddrPort{}) {
		if err := destination4(o.Destination); err != nil {
			return nil, err
		}
		size = OptionDestinationSize
	}
	dst = append(dst, OptionKind, byte(size))
	dst = binary.BigEndian.AppendUint16(dst, ExID)
	dst = binary.BigEndian.AppendUint16(dst, o.Tag)
	dst = append(dst, o.Cookie[:]...)
	if size == OptionDestinationSize {
		addr := o.Destination.Addr().As4()
		dst = append(dst, addr[:]...)
		dst = binary.BigEndian.AppendUint16(dst, o.Destination.Port())
	}
	return dst, nil
}

// DecodeOption reads one option, from its kind to its last byte. Errors wrap ErrMalformed.
func DecodeOption(raw []byte) (Option, error) {
	if len(raw) != OptionSize && len(raw) != OptionDestinationSize {
		return Option{}, malformed("option of %d bytes", len(raw))
	}
	if raw[0] != OptionKind || int(raw[1]) != len(raw) || binary.BigEndian.Uint16(raw[OptionOffExID:]) != ExID {
		return Option{}, malformed("option begins with % x", raw[:OptionOffTag])
	}
	o := Option{
		Tag:    binary.BigEndian.Uint16(raw[OptionOffTag:]),
		Cookie: Cookie(raw[OptionOffCookie:OptionOffAddress]),
	}
	if len(raw) == OptionDestinationSize {
		addr := netip.AddrFrom4([4]byte(raw[OptionOffAddress:OptionOffPort]))
		o.Destination = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(raw[OptionOffPort:]))
		if err := destination4(o.Destination); err != nil {
			return Option{}, err
		}
	}
	return o, nil
}

// FindOption looks for the option among those of a segment, its padding included. The first counts. Without one it is false;
// errors, which wrap ErrMalformed, are of options that break RFC 9293 section 3.1 before it and of itself.
func FindOption(options []byte) (Option, bool, error) {
	if len(options) > OptionsMax {
		return Option{}, false, malformed("%d bytes of options", len(options))
	}
	for len(options) > 0 {
		switch kind := options[0]; kind {
		case 0: // end of the list
			return Option{}, false, nil
		case 1: // no operation
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return Option{}, false, malformed("option of kind %d is longer than what is left", options[0])
		}
		this := options[:options[1]]
		if this[0] == OptionKind && len(this) >= OptionOffTag && binary.BigEndian.Uint16(this[OptionOffExID:]) == ExID {
			o, err := DecodeOption(this)
			return o, err == nil, err
		}
		options = options[len(this):]
	}
	return Option{}, false, nil
}

func destination4(a netip.AddrPort) error {
	if !a.Addr().Is4() {
		return malformed("destination %v is not of IPv4: a SYN-ACK has no room for it", a)
	}
	return unicast("destination", a)
}
