package wire

import (
	"bytes"
	"encoding/binary"
)

const (
	vendorMessageFirst, vendorMessageLast MessageType = 0x3e00, 0x3eff

	vendorIDSize = 4
)

func isVendorMessage(t MessageType) bool { return t >= vendorMessageFirst && t <= vendorMessageLast }

// VendorPrivate is a Vendor-Private message (RFC 5036 section 3.6.1.2). What it means depends on type and vendor.
type VendorPrivate struct {
	Head                    // Others stays empty
	MessageType MessageType // 0x3e00 to 0x3eff
	Unknown     bool        // U bit: whoever does not know the message ignores it in silence
	Vendor      uint32      // IEEE 802 vendor ID, in the low 24 bits
	Data        []byte      // what follows the vendor ID
}

// Type implements Message.
func (m VendorPrivate) Type() MessageType { return m.MessageType }

func (m VendorPrivate) kind() uint16 {
	return uint16(uint32(m.MessageType) | flag(messageU, m.Unknown))
}

func (m VendorPrivate) withID(id uint32) Message {
	m.ID = id
	return m
}

// NotKnown is for messages whose type and vendor the caller does not know: an Error to answer with, or nil where the U bit says to
// ignore it in silence.
func (m VendorPrivate) NotKnown() error {
	if m.Unknown {
		return nil
	}
	e := refuse(StatusUnknownMessageType, "vendor %#06x is not known here", m.Vendor)
	return inMessage(e, header{kind: MessageType(m.kind()), id: m.ID})
}

func (m VendorPrivate) appendParameters(b []byte) ([]byte, error) {
	if !isVendorMessage(m.MessageType) {
		return b, invalid("type %#04x, not between %#04x and %#04x", uint16(m.MessageType), uint16(vendorMessageFirst), uint16(vendorMessageLast))
	}
	return append(binary.BigEndian.AppendUint32(b, m.Vendor), m.Data...), nil
}

func decodeVendorPrivate(h header, b []byte) (Message, error) {
	if len(b) < vendorIDSize && h.kind&messageU != 0 {
		return decodeUnknown(h, b)
	}
	if len(b) < vendorIDSize {
		return nil, inMessage(refuse(StatusMissingMessageParameters, "no vendor ID"), h)
	}
	return VendorPrivate{
		Head: Head{ID: h.id}, MessageType: h.kind & messageTypeMask, Unknown: h.kind&messageU != 0,
		Vendor: binary.BigEndian.Uint32(b), Data: bytes.Clone(b[vendorIDSize:]),
	}, nil
}

// VendorTLV makes a Vendor-Private TLV (RFC 5036 section 3.6.1.1), with the U bit: whoever does not know it ignores it. Types are
// 0x3e00 to 0x3eff.
func VendorTLV(t TLVType, vendor uint32, data []byte) TLV {
	return TLV{Type: t, Unknown: true, Value: append(binary.BigEndian.AppendUint32(nil, vendor), data...)}
}

// Vendor gives vendor ID and data of a Vendor-Private TLV, false for all others. Data is a part of Value.
func (t TLV) Vendor() (vendor uint32, data []byte, ok bool) {
	if t.Type < tlvVendorFirst || t.Type > tlvVendorLast || len(t.Value) < vendorIDSize {
		return 0, nil, false
	}
	return binary.BigEndian.Uint32(t.Value), t.Value[vendorIDSize:], true
}
