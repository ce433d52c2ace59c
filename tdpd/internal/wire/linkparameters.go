package wire

import "bytes"

// LinkParameters is the value of an ATM or Frame Relay Session Parameters TLV, as it came (RFC 5036 section 3.5.3). This LSR has no
// such links: a session that has them to negotiate is to be rejected.
type LinkParameters []byte

const (
	linkParametersHeader = 4 // merge, number of ranges, directionality, reserved
	linkRangeSize        = 8
)

// Ranges is how many label ranges are announced, 0 to 15.
func (p LinkParameters) Ranges() int {
	if len(p) == 0 {
		return 0
	}
	return int(p[0] >> 2 & 0xf)
}

func (p LinkParameters) whole() bool { return len(p) == linkParametersHeader+p.Ranges()*linkRangeSize }

// append appends nothing where p is nil.
func (p LinkParameters) append(b []byte, t TLVType) ([]byte, error) {
	if p == nil {
		return b, nil
	}
	if !p.whole() {
		return b, invalid("%v of %d bytes with %d ranges", t, len(p), p.Ranges())
	}
	return TLV{Type: t, Value: p}.append(b)
}

func parseLinkParameters(t TLV) (LinkParameters, error) {
	p := LinkParameters(bytes.Clone(t.Value))
	if !p.whole() {
		return nil, t.malformed("%d bytes with %d ranges", len(p), p.Ranges())
	}
	return p, nil
}
