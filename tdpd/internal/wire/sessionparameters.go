package wire

import "encoding/binary"

// SessionParameters is the Common Session Parameters TLV (RFC 5036 section 3.5.3).
type SessionParameters struct {
	KeepAliveTime      uint16     // seconds, not 0
	DownstreamOnDemand bool       // A bit; not: Downstream Unsolicited
	LoopDetection      bool       // D bit
	PathVectorLimit    uint8      // 0 without LoopDetection
	MaxPDULength       uint16     // bytes; 255 or less stands for DefaultMaxPDULength; two proposals meet in MaxPDULength
	Receiver           Identifier // whom the message is for
}

const (
	sessionParametersSize = 14
	sessionA              = 1 << 7
	sessionD              = 1 << 6
)

func (p SessionParameters) appendSessionParameters(b []byte) ([]byte, error) {
	if p.KeepAliveTime == 0 {
		return b, invalid("KeepAlive Time 0")
	}
	if p.PathVectorLimit != 0 && !p.LoopDetection {
		return b, invalid("Path Vector Limit %d without loop detection", p.PathVectorLimit)
	}
	flags := flag(sessionA, p.DownstreamOnDemand) | flag(sessionD, p.LoopDetection)
	b = append(binary.BigEndian.AppendUint16(b, uint16(TLVCommonSessionParameters)), 0, sessionParametersSize)
	b = binary.BigEndian.AppendUint16(b, Version)
	b = binary.BigEndian.AppendUint16(b, p.KeepAliveTime)
	b = binary.BigEndian.AppendUint16(append(b, byte(flags), p.PathVectorLimit), p.MaxPDULength)
	return p.Receiver.append(b), nil
}

// parseSessionParameters ignores a Path Vector Limit where loop detection is off.
func parseSessionParameters(t TLV) (SessionParameters, error) {
	if err := t.wantLength(sessionParametersSize); err != nil {
		return SessionParameters{}, err
	}
	b := t.Value
	if v := binary.BigEndian.Uint16(b); v != Version {
		return SessionParameters{}, refuse(StatusBadProtocolVersion, "session of version %d, this LSR speaks %d", v, Version)
	}
	p := SessionParameters{
		KeepAliveTime:      binary.BigEndian.Uint16(b[2:]),
		DownstreamOnDemand: b[4]&sessionA != 0,
		LoopDetection:      b[4]&sessionD != 0,
		MaxPDULength:       binary.BigEndian.Uint16(b[6:]),
		Receiver:           parseIdentifier(b[8:]),
	}
	if p.KeepAliveTime == 0 {
		return SessionParameters{}, refuse(StatusRejectedBadKeepAliveTime, "KeepAlive Time 0")
	}
	if p.LoopDetection {
		p.PathVectorLimit = b[5]
	}
	return p, nil
}
