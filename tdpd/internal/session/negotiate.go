package session

import (
	"fmt"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// initialization is what this router proposes (RFC 5036 section 3.5.3): downstream unsolicited, always.
func (s *Session) initialization(now time.Time) wire.Initialization {
	m := wire.Initialization{
		Head: wire.Head{Others: s.cfg.Others},
		SessionParameters: wire.SessionParameters{
			KeepAliveTime:   uint16(s.cfg.KeepAlive / time.Second),
			LoopDetection:   s.cfg.LoopDetection,
			PathVectorLimit: s.cfg.PathVector,
			MaxPDULength:    s.cfg.MaxPDU,
			Receiver:        s.cfg.Peer,
		},
		Capabilities: s.cfg.Capabilities,
	}
	if s.cfg.Restart != nil {
		m.FTSession = s.cfg.Restart(now)
	}
	return m
}

// negotiate finds what both can agree on; the codec has seen to version and keepalive time. Where one side wants downstream on demand
// and the link is neither ATM nor frame relay, unsolicited holds (RFC 5036 section 3.5.3, A bit), so that is no reason to refuse.
func (s *Session) negotiate(in wire.Initialization) (Parameters, *wire.Error) {
	if in.Receiver != s.cfg.Local {
		return Parameters{}, refusal(wire.StatusRejectedNoHello, "meant for %v, this is %v", in.Receiver, s.cfg.Local)
	}
	return Parameters{
		KeepAlive:     min(s.cfg.KeepAlive, time.Duration(in.KeepAliveTime)*time.Second),
		MaxPDU:        wire.MaxPDULength(s.cfg.MaxPDU, in.MaxPDULength),
		LoopDetection: s.cfg.LoopDetection && in.LoopDetection,
		Capabilities:  in.Capabilities,
		Others:        in.Others,
		Restart:       in.FTSession,
	}, nil
}

func refusal(status wire.StatusCode, format string, args ...any) *wire.Error {
	return &wire.Error{Status: status, Reason: fmt.Sprintf(format, args...)}
}
