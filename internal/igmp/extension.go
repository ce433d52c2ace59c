package igmp

import (
	"encoding/binary"
	"fmt"
)

// Types of extensions (RFC 9279 section 7.2); 65534 and 65535 are for experiments.
const (
	ExtensionNoOp         = 0
	ExtensionExperiment   = 65534
	extensionHeaderBytes  = 4
	extensionMaxValueSize = 0xffff
)

// ExtensionBytes is the size of an extension on the wire whose value has n bytes.
func ExtensionBytes(n int) int { return extensionHeaderBytes + n }

// Extension is one TLV of RFC 9279.
type Extension struct {
	Type  uint16
	Value []byte // at most 65535 bytes
}

// parseExtensions decodes all of b. RFC 9279 section 5: at least one TLV, none longer than what is left, nothing behind.
func parseExtensions(b []byte) ([]Extension, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("igmp: %w: E bit without an extension", ErrMalformed)
	}
	var list []Extension
	for len(b) > 0 {
		if len(b) < extensionHeaderBytes {
			return nil, fmt.Errorf("igmp: %w: %d bytes behind the last extension", ErrMalformed, len(b))
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n > len(b)-extensionHeaderBytes {
			return nil, fmt.Errorf("igmp: %w: extension of %d bytes, %d left", ErrTruncated, n, len(b)-extensionHeaderBytes)
		}
		end := extensionHeaderBytes + n
		list = append(list, Extension{Type: binary.BigEndian.Uint16(b), Value: b[extensionHeaderBytes:end:end]})
		b = b[end:]
	}
	return list, nil
}

func appendExtensions(b []byte, list []Extension) ([]byte, error) {
	for _, e := range list {
		if len(e.Value) > extensionMaxValueSize {
			return nil, fmt.Errorf("igmp: %w: extension %d of %d bytes", ErrMalformed, e.Type, len(e.Value))
		}
		b = binary.BigEndian.AppendUint16(b, e.Type)
		b = binary.BigEndian.AppendUint16(b, uint16(len(e.Value)))
		b = append(b, e.Value...)
	}
	return b, nil
}
