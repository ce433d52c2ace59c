package wire

import (
	"encoding/binary"
	"time"
)

// Hold times of Hellos (RFC 5036 section 3.5.2).
const (
	DefaultLinkHoldTime     = 15 * time.Second
	DefaultTargetedHoldTime = 45 * time.Second
	HoldTimeDefault         = 0      // on the wire: one of the above
	HoldTimeInfinite        = 0xffff // on the wire
)

// HelloParameters is the Common Hello Parameters TLV (RFC 5036 section 3.5.2, RFC 6720 section 2.1).
type HelloParameters struct {
	HoldTime        uint16 // seconds, HoldTimeDefault or HoldTimeInfinite
	Targeted        bool   // T bit
	RequestTargeted bool   // R bit: send targeted Hellos, please
	GTSM            bool   // G bit: sessions from this link Hello by GTSM; never with Targeted
}

const (
	helloParametersSize = 4
	helloT              = 1 << 15
	helloR              = 1 << 14
	helloG              = 1 << 13
)

func (p HelloParameters) appendHelloParameters(b []byte) ([]byte, error) {
	if p.GTSM && p.Targeted {
		return b, invalid("GTSM in a targeted Hello")
	}
	flags := flag(helloT, p.Targeted) | flag(helloR, p.RequestTargeted) | flag(helloG, p.GTSM)
	b = append(binary.BigEndian.AppendUint16(b, uint16(TLVCommonHelloParameters)), 0, helloParametersSize)
	b = binary.BigEndian.AppendUint16(b, p.HoldTime)
	return binary.BigEndian.AppendUint16(b, uint16(flags)), nil
}

func parseHelloParameters(t TLV) (HelloParameters, error) {
	if err := t.wantLength(helloParametersSize); err != nil {
		return HelloParameters{}, err
	}
	flags := binary.BigEndian.Uint16(t.Value[2:])
	if flags&helloT != 0 {
		flags &^= helloG
	}
	return HelloParameters{
		HoldTime:        binary.BigEndian.Uint16(t.Value),
		Targeted:        flags&helloT != 0,
		RequestTargeted: flags&helloR != 0,
		GTSM:            flags&helloG != 0,
	}, nil
}
