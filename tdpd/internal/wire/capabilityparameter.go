package wire

import "encoding/binary"

// CapabilityParameter is a capability that is advertised or withdrawn (RFC 5561 section 3). Those that are known here are Dynamic
// Capability Announcement, Typed Wildcard FEC and Unrecognized Notification; none of them carries data. Others are among Head.Others.
type CapabilityParameter struct {
	Type    TLVType
	Enabled bool // S bit; always set in an Initialization message
}

const (
	capabilitySize = 1
	capabilityS    = 1 << 7
)

func isCapability(t TLVType) bool {
	return t == TLVDynamicCapability || t == TLVTypedWildcardCapability || t == TLVUnrecognizedNotification
}

func (c CapabilityParameter) append(b []byte) ([]byte, error) {
	if !isCapability(c.Type) {
		return b, invalid("%v is no capability that is known here", c.Type)
	}
	b = append(binary.BigEndian.AppendUint16(b, uint16(c.Type)|tlvU), 0, capabilitySize)
	return append(b, byte(flag(capabilityS, c.Enabled))), nil
}

func appendCapabilities(b []byte, list []CapabilityParameter) ([]byte, error) {
	for i, c := range list {
		for _, earlier := range list[:i] {
			if c.Type == earlier.Type {
				return b, invalid("%v twice", c.Type)
			}
		}
		var err error
		if b, err = c.append(b); err != nil {
			return b, err
		}
	}
	return b, nil
}

func parseCapability(t TLV) (CapabilityParameter, error) {
	if err := t.wantLength(capabilitySize); err != nil {
		return CapabilityParameter{}, err
	}
	return CapabilityParameter{Type: t.Type, Enabled: t.Value[0]&capabilityS != 0}, nil
}

// capabilityOnce refuses the second of one capability, and returns it (RFC 5561 section 3). Other TLVs count once and are then ignored.
func capabilityOnce(t TLV) error {
	if !isCapability(t.Type) {
		return nil
	}
	raw, err := t.append(nil)
	if err != nil {
		return err
	}
	return returning(t.malformed("a second one"), raw)
}
