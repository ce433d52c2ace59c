package service

import (
	"time"

	"github.com/manycast/manycast/tdpd/internal/transport"
)

// queueSlack is how many messages may wait for a peer beyond two for each FEC: it is offered all at first, and may ask for all.
const queueSlack = 1 << 16

// boundQueues has sessions end whose peers take so little that what waits for them takes more memory than all there is to say.
func (s *Service) boundQueues() {
	most := queueSlack + 2*s.labels.Size()
	for _, p := range s.peers {
		if p.conn != nil {
			p.conn.SetMaxQueue(most)
		}
	}
}

// dropped tells, seldom, of a message that no PDU of the session can carry. The peer does without it.
func (s *Service) dropped(now time.Time, d transport.Dropped) {
	p := s.with(d.Conn)
	if p == nil || !s.unfit.IsZero() && now.Sub(s.unfit) < retryLater {
		return
	}
	s.unfit = now
	s.Log.Warn("a message is not sent: it fits into no PDU of the session", "peer", p.id, "err", d.Err)
}
