package peer

import (
	"fmt"

	"github.com/manycast/manycast/lbd/internal/handover"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

// queue is what is to be written: messages and small states in their order, and of large states one part after each batch of them.
type queue struct {
	small []byte // frames
	large []handover.State
	from  int // bytes of the first large one that are written
	held  int // bytes of all large ones
}

// add puts a message in.
func (q *queue) add(m handover.Message) error {
	var p *handoverv1.Message
	switch s, ok := m.(handover.State); {
	case !ok:
		p = handover.EncodeMessage(m)
	case len(s.Kernel) > MaxKernel || len(s.Application) > MaxApplication:
		return fmt.Errorf("state of %d and %d bytes, at most %d and %d", len(s.Kernel), len(s.Application), MaxKernel, MaxApplication)
	case len(s.Kernel)+len(s.Application) > maxPart:
		q.large = append(q.large, s)
		q.held += len(s.Kernel) + len(s.Application)
		return nil
	default:
		p, _ = part(s, 0)
	}
	b, err := appendFrame(q.small, p)
	if err == nil {
		q.small = b
	}
	return err
}

// bytes is how much is waiting.
func (q *queue) bytes() int { return len(q.small) + q.held - q.from }

// next is what to write now, in place of b: all that is small, and one part.
func (q *queue) next(b []byte) ([]byte, error) {
	b = append(b[:0], q.small...)
	q.small = q.small[:0]
	if len(q.large) == 0 {
		return b, nil
	}
	s := q.large[0]
	p, next := part(s, q.from)
	if q.from = next; next == len(s.Kernel)+len(s.Application) {
		q.large[0] = handover.State{} // let go of its bytes
		q.large, q.from, q.held = q.large[1:], 0, q.held-next
	}
	return appendFrame(b, p)
}
