package wire

import (
	"encoding/binary"
	"math"
	"time"
)

// FTSession is the FT Session TLV, by which LSRs agree on graceful restart (RFC 3479 section 8.2, RFC 3478 section 2).
type FTSession struct {
	Reconnect          bool // R: state was kept since the last session
	SaveState          bool // S
	AllLabelProtection bool // A
	CheckPointing      bool // C
	LearnFromNetwork   bool // L: graceful restart of RFC 3478
	// ReconnectTimeout is how long the peer is to wait for the session to come back, in 1 ms up to 49 days; 0: nothing was preserved.
	ReconnectTimeout time.Duration
	// RecoveryTime is how long the sender keeps its preserved forwarding state, in 1 ms up to 49 days; 0: nothing was preserved.
	RecoveryTime time.Duration
}

// GracefulRestart says whether it is graceful restart by RFC 3478 that is meant, and nothing else.
func (s FTSession) GracefulRestart() bool {
	return s.LearnFromNetwork && !s.SaveState && !s.AllLabelProtection && !s.CheckPointing
}

const (
	ftSessionSize = 12
	ftR           = 1 << 15
	ftS           = 1 << 3
	ftA           = 1 << 2
	ftC           = 1 << 1
	ftL           = 1 << 0
)

// append appends nothing where s is nil. Times are rounded down, and cut at the largest.
func (s *FTSession) append(b []byte) []byte {
	if s == nil {
		return b
	}
	flags := flag(ftR, s.Reconnect) | flag(ftS, s.SaveState) | flag(ftA, s.AllLabelProtection) |
		flag(ftC, s.CheckPointing) | flag(ftL, s.LearnFromNetwork)
	b = append(binary.BigEndian.AppendUint16(b, uint16(TLVFTSession)|tlvU), 0, ftSessionSize)
	b = append(binary.BigEndian.AppendUint16(b, uint16(flags)), 0, 0)
	b = binary.BigEndian.AppendUint32(b, milliseconds(s.ReconnectTimeout))
	return binary.BigEndian.AppendUint32(b, milliseconds(s.RecoveryTime))
}

func milliseconds(d time.Duration) uint32 {
	return uint32(min(max(d.Milliseconds(), 0), math.MaxUint32))
}

func parseFTSession(t TLV) (*FTSession, error) {
	if err := t.wantLength(ftSessionSize); err != nil {
		return nil, err
	}
	flags := binary.BigEndian.Uint16(t.Value)
	return &FTSession{
		Reconnect:          flags&ftR != 0,
		SaveState:          flags&ftS != 0,
		AllLabelProtection: flags&ftA != 0,
		CheckPointing:      flags&ftC != 0,
		LearnFromNetwork:   flags&ftL != 0,
		ReconnectTimeout:   time.Duration(binary.BigEndian.Uint32(t.Value[4:])) * time.Millisecond,
		RecoveryTime:       time.Duration(binary.BigEndian.Uint32(t.Value[8:])) * time.Millisecond,
	}, nil
}
