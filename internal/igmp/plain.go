package igmp

import "net/netip"

// V1Report is a membership report of IGMPv1 (RFC 1112, appendix I).
type V1Report struct {
	Group netip.Addr
}

// V2Report is a membership report of IGMPv2 (RFC 2236 section 2).
type V2Report struct {
	Group netip.Addr
}

// Leave is a Leave Group message of IGMPv2 (RFC 2236 section 2).
type Leave struct {
	Group netip.Addr
}

// Append implements Message.
func (r V1Report) Append(b []byte) ([]byte, error) { return appendPlain(b, TypeV1Report, r.Group) }

// Append implements Message.
func (r V2Report) Append(b []byte) ([]byte, error) { return appendPlain(b, TypeV2Report, r.Group) }

// Append implements Message.
func (l Leave) Append(b []byte) ([]byte, error) { return appendPlain(b, TypeLeave, l.Group) }

func appendPlain(b []byte, kind byte, group netip.Addr) ([]byte, error) {
	start := len(b)
	b, err := appendAddr(append(b, kind, 0, 0, 0), group, "group")
	if err != nil {
		return nil, err
	}
	return seal(b, start)
}
