package rtnl

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

var native = binary.NativeEndian

var errShort = errors.New("netlink: message ends early")

// Message is a netlink message; Data is valid until the next one is read.
type Message struct {
	Type, Flags uint16
	Seq         uint32
	Data        []byte // after the header
}

// messages calls do with all messages in b.
func messages(b []byte, do func(Message) error) error {
	for len(b) > 0 {
		if len(b) < unix.NLMSG_HDRLEN {
			return errShort
		}
		length := int(native.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return errShort
		}
		m := Message{native.Uint16(b[4:]), native.Uint16(b[6:]), native.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:length]}
		if err := do(m); err != nil {
			return err
		}
		b = b[min(align(length), len(b)):]
	}
	return nil
}

// appendMessage appends a message whose data body appends.
func appendMessage(b []byte, typ, flags uint16, seq uint32, body func([]byte) []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, unix.NLMSG_HDRLEN)...)
	b = body(b)
	h := b[start:]
	native.PutUint32(h, uint32(len(h)))
	native.PutUint16(h[4:], typ)
	native.PutUint16(h[6:], flags)
	native.PutUint32(h[8:], seq)
	return pad(b)
}

func align(n int) int { return (n + 3) &^ 3 }

func pad(b []byte) []byte { return append(b, make([]byte, align(len(b))-len(b))...) }

// appendAttribute appends an attribute whose value body appends.
func appendAttribute(b []byte, typ uint16, body func([]byte) []byte) []byte {
	start := len(b)
	b = body(append(b, 0, 0, 0, 0))
	native.PutUint16(b[start:], uint16(len(b)-start))
	native.PutUint16(b[start+2:], typ)
	return pad(b)
}

func appendUint32(b []byte, typ uint16, v uint32) []byte {
	return appendAttribute(b, typ, func(b []byte) []byte { return native.AppendUint32(b, v) })
}

// attributes calls do with all attributes in b.
func attributes(b []byte, do func(typ uint16, value []byte) error) error {
	for len(b) >= unix.SizeofNlAttr {
		length := int(native.Uint16(b))
		if length < unix.SizeofNlAttr || length > len(b) {
			return errShort
		}
		if err := do(native.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofNlAttr:length]); err != nil {
			return err
		}
		b = b[min(align(length), len(b)):]
	}
	return nil
}

func parseUint32(b []byte) (uint32, error) {
	if len(b) < 4 {
		return 0, errShort
	}
	return native.Uint32(b), nil
}
