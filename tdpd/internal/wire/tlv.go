package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// TLVType is the type of a TLV, 14 bits (RFC 5036 section 3.3).
type TLVType uint16

// Types of TLVs: RFC 5036 section 3.8, RFC 3479 section 8, RFC 5561 sections 8 and 9, RFC 5918 section 5, RFC 5919 section 3, RFC 7552
// section 6.1.1.
const (
	TLVFEC                        TLVType = 0x0100
	TLVAddressList                TLVType = 0x0101
	TLVHopCount                   TLVType = 0x0103
	TLVPathVector                 TLVType = 0x0104
	TLVGenericLabel               TLVType = 0x0200
	TLVATMLabel                   TLVType = 0x0201 // not supported
	TLVFrameRelayLabel            TLVType = 0x0202 // not supported
	TLVFTProtection               TLVType = 0x0203 // not supported
	TLVStatus                     TLVType = 0x0300
	TLVExtendedStatus             TLVType = 0x0301
	TLVReturnedPDU                TLVType = 0x0302
	TLVReturnedMessage            TLVType = 0x0303
	TLVReturnedTLVs               TLVType = 0x0304
	TLVCommonHelloParameters      TLVType = 0x0400
	TLVIPv4TransportAddress       TLVType = 0x0401
	TLVConfigurationSequence      TLVType = 0x0402
	TLVIPv6TransportAddress       TLVType = 0x0403
	TLVCommonSessionParameters    TLVType = 0x0500
	TLVATMSessionParameters       TLVType = 0x0501
	TLVFrameRelaySession          TLVType = 0x0502
	TLVFTSession                  TLVType = 0x0503
	TLVFTACK                      TLVType = 0x0504 // not supported
	TLVFTCork                     TLVType = 0x0505 // not supported
	TLVDynamicCapability          TLVType = 0x0506
	TLVTypedWildcardCapability    TLVType = 0x050b
	TLVLabelRequestMessageID      TLVType = 0x0600
	TLVUnrecognizedNotification   TLVType = 0x0603
	TLVDualStackCapability        TLVType = 0x0701
	tlvVendorFirst, tlvVendorLast TLVType = 0x3e00, 0x3eff
)

const (
	tlvHeaderSize = 4
	tlvU          = 1 << 15
	tlvF          = 1 << 14
	tlvTypeMask   = tlvF - 1
	maxTLVLength  = 0xffff
)

// String is the type's name in its RFC.
func (t TLVType) String() string {
	switch t {
	case TLVFEC:
		return "FEC TLV"
	case TLVAddressList:
		return "Address List TLV"
	case TLVHopCount:
		return "Hop Count TLV"
	case TLVPathVector:
		return "Path Vector TLV"
	case TLVGenericLabel:
		return "Generic Label TLV"
	case TLVStatus:
		return "Status TLV"
	case TLVLabelRequestMessageID:
		return "Label Request Message ID TLV"
	case TLVCommonHelloParameters:
		return "Common Hello Parameters TLV"
	case TLVCommonSessionParameters:
		return "Common Session Parameters TLV"
	case TLVATMLabel:
		return "ATM Label TLV"
	case TLVFrameRelayLabel:
		return "Frame Relay Label TLV"
	}
	return fmt.Sprintf("TLV %#04x", uint16(t))
}

// TLV is a parameter that is kept as it came: Unknown tells an LSR that does not know it to go on without it, Forward to forward it
// with its message all the same (RFC 5036 section 3.3).
type TLV struct {
	Type    TLVType
	Unknown bool   // U bit
	Forward bool   // F bit
	Value   []byte // at most 65535 bytes
}

func (t TLV) append(b []byte) ([]byte, error) {
	if t.Type > tlvTypeMask || len(t.Value) > maxTLVLength {
		return b, invalid("TLV of type %#x with %d bytes", uint16(t.Type), len(t.Value))
	}
	kind := uint32(t.Type) | flag(tlvU, t.Unknown) | flag(tlvF, t.Forward)
	b = binary.BigEndian.AppendUint16(b, uint16(kind))
	b = binary.BigEndian.AppendUint16(b, uint16(len(t.Value)))
	return append(b, t.Value...), nil
}

// parseTLV cuts the first TLV off b; its Value is a part of b.
func parseTLV(b []byte) (TLV, []byte, error) {
	if len(b) < tlvHeaderSize {
		return TLV{}, nil, refuse(StatusBadTLVLength, "%d bytes behind the last TLV", len(b))
	}
	kind := binary.BigEndian.Uint16(b)
	t := TLV{Type: TLVType(kind & tlvTypeMask), Unknown: kind&tlvU != 0, Forward: kind&tlvF != 0}
	end := tlvHeaderSize + int(binary.BigEndian.Uint16(b[2:]))
	if end > len(b) {
		return TLV{}, nil, refuse(StatusBadTLVLength, "%v of %d bytes, %d left", t.Type, end-tlvHeaderSize, len(b)-tlvHeaderSize)
	}
	t.Value = b[tlvHeaderSize:end:end]
	return t, b[end:], nil
}

// openTLV appends a TLV's header; closeTLV writes the length of what was appended since. at is where the header begins.
func openTLV(b []byte, t TLVType, flags uint16) ([]byte, int) {
	return append(binary.BigEndian.AppendUint16(b, uint16(t)|flags), 0, 0), len(b)
}

func closeTLV(b []byte, at int) ([]byte, error) {
	n := len(b) - at - tlvHeaderSize
	if n > maxTLVLength {
		return b, fmt.Errorf("%w: TLV of %d bytes", ErrTooLarge, n)
	}
	binary.BigEndian.PutUint16(b[at+2:], uint16(n))
	return b, nil
}

// appendUint32TLV appends a TLV whose value is v, nothing where v is nil.
func appendUint32TLV(b []byte, t TLVType, v *uint32) []byte {
	if v == nil {
		return b
	}
	b = binary.BigEndian.AppendUint16(b, uint16(t))
	return binary.BigEndian.AppendUint32(append(b, 0, 4), *v)
}

func parseUint32TLV(t TLV) (*uint32, error) {
	if err := t.wantLength(4); err != nil {
		return nil, err
	}
	v := binary.BigEndian.Uint32(t.Value)
	return &v, nil
}

// wantLength refuses a value that has not n bytes.
func (t TLV) wantLength(n int) error {
	if len(t.Value) != n {
		return t.malformed("%d bytes, %d wanted", len(t.Value), n)
	}
	return nil
}

// malformed is for values that cannot be decoded: RFC 5036 section 3.5.1.2.2 makes that fatal, for one of the two LSRs has a bug.
func (t TLV) malformed(format string, args ...any) error {
	return refuse(StatusMalformedTLVValue, "%v: %s", t.Type, fmt.Sprintf(format, args...))
}

// clone gives a TLV that does not hold on to the message.
func (t TLV) clone() TLV {
	t.Value = bytes.Clone(t.Value)
	return t
}

// flag is the bit where it is set, else 0.
func flag(bit uint32, set bool) uint32 {
	if set {
		return bit
	}
	return 0
}
