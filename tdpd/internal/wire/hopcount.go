package wire

import "encoding/binary"

// HopCountUnknown is the hop count of an LSP whose egress is not known (RFC 5036 section 3.4.4.1).
const HopCountUnknown = 0

// appendHopCount appends a Hop Count TLV, nothing where n is nil.
func appendHopCount(b []byte, n *uint8) []byte {
	if n == nil {
		return b
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(TLVHopCount)), 0, 1, *n)
}

func parseHopCount(t TLV) (*uint8, error) {
	if err := t.wantLength(1); err != nil {
		return nil, err
	}
	n := t.Value[0]
	return &n, nil
}
