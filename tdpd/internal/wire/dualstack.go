package wire

import "encoding/binary"

// TransportPreference is the value of the Dual-Stack capability TLV: over what a dual-stack LSR wants its session (RFC 7552 section
// 6.1.1).
type TransportPreference uint8

// Preferences; PreferNone is a Hello without the TLV.
const (
	PreferNone TransportPreference = 0
	PreferIPv4 TransportPreference = 4
	PreferIPv6 TransportPreference = 6
)

const dualStackSize = 4

func (p TransportPreference) append(b []byte) ([]byte, error) {
	switch p {
	case PreferNone:
		return b, nil
	case PreferIPv4, PreferIPv6:
		b = append(binary.BigEndian.AppendUint16(b, uint16(TLVDualStackCapability)|tlvU), 0, dualStackSize)
		return append(b, byte(p)<<4, 0, 0, 0), nil
	}
	return b, invalid("transport preference %d", p)
}

// parseTransportPreference refuses a preference that is not known: the Hello is discarded, and a session that there is already ends.
func parseTransportPreference(t TLV) (TransportPreference, error) {
	if err := t.wantLength(dualStackSize); err != nil {
		return 0, err
	}
	p := TransportPreference(t.Value[0] >> 4)
	if p != PreferIPv4 && p != PreferIPv6 {
		return 0, refuse(StatusTransportConnectionMismatch, "transport preference %d is not known", p)
	}
	return p, nil
}
