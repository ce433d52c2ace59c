package members

import (
	"fmt"
	"time"

	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/control/wire"
)

// Bounds of incomplete messages. Any member can use them up with frames in others' names; longer than waitParts it cannot.
const (
	waitParts   = 2 * time.Second
	maxPending  = 1024     // messages
	maxOfSender = 8        // messages
	maxBytes    = 16 << 20 // of parts, and of the tables of those to come
	tableBytes  = 24       // a part's place in its table
)

// assembler puts the parts of messages together.
type assembler struct {
	pending  map[origin]*assembly
	bySender map[identity.ID]int
	bytes    int
	swept    time.Time
}

type assembly struct {
	began   time.Time
	parts   [][]byte
	missing int
	bytes   int // of parts
}

// held is what the message takes while it is incomplete.
func (p *assembly) held() int { return p.bytes + tableBytes*len(p.parts) }

// add takes a part; the message comes back with its last one. It keeps copies.
func (a *assembler) add(now time.Time, f wire.Frame) ([]byte, error) {
	if f.Parts == 1 {
		return f.Bytes, nil
	}
	key := origin{f.Sender, f.Boot, f.Sequence}
	p := a.pending[key]
	if p == nil {
		if len(a.pending) >= maxPending || a.bySender[f.Sender] >= maxOfSender {
			return nil, fmt.Errorf("%w: %d incomplete messages, %d of %v", Full, len(a.pending), a.bySender[f.Sender], f.Sender)
		}
		if a.bytes+tableBytes*int(f.Parts)+len(f.Bytes) > maxBytes {
			return nil, fmt.Errorf("%w: %d bytes of incomplete messages", Full, a.bytes)
		}
		if a.bySender == nil {
			a.bySender = make(map[identity.ID]int)
		}
		p = &assembly{began: now, parts: make([][]byte, f.Parts), missing: int(f.Parts)}
		a.pending[key] = p
		a.bySender[f.Sender]++
		a.bytes += p.held()
	}
	switch {
	case len(p.parts) != int(f.Parts):
		return nil, fmt.Errorf("%w: part %d of %d, the others are of %d", Malformed, f.Part, f.Parts, len(p.parts))
	case p.parts[f.Part] != nil:
		return nil, nil
	case p.bytes+len(f.Bytes) > wire.MaxMessage:
		a.drop(key)
		return nil, fmt.Errorf("%w: message of more than %d bytes", TooLarge, wire.MaxMessage)
	case a.bytes+len(f.Bytes) > maxBytes:
		return nil, fmt.Errorf("%w: %d bytes of incomplete messages", Full, a.bytes)
	}
	p.parts[f.Part] = append([]byte(nil), f.Bytes...)
	p.missing--
	p.bytes += len(f.Bytes)
	a.bytes += len(f.Bytes)
	if p.missing > 0 {
		return nil, nil
	}
	a.drop(key)
	whole := make([]byte, 0, p.bytes)
	for _, part := range p.parts {
		whole = append(whole, part...)
	}
	return whole, nil
}

func (a *assembler) drop(key origin) {
	a.bytes -= a.pending[key].held()
	delete(a.pending, key)
	if a.bySender[key.sender]--; a.bySender[key.sender] == 0 {
		delete(a.bySender, key.sender)
	}
}

// expire drops what stayed incomplete.
func (a *assembler) expire(now time.Time) {
	if len(a.pending) == 0 || now.Sub(a.swept) < waitParts/4 {
		return
	}
	a.swept = now
	for key, p := range a.pending {
		if now.Sub(p.began) >= waitParts {
			a.drop(key)
		}
	}
}
