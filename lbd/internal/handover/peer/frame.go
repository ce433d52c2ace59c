package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/lbd/internal/handover"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

// Bounds of what is read.
const (
	// MaxKernel and MaxApplication bound a state, in bytes: two queues of 16 MiB each and what is beside them; and the application's words.
	MaxKernel      = 34 << 20
	MaxApplication = 16 << 20

	maxPart  = 64 << 10      // bytes of a state in one frame: half a millisecond at 1 Gbit/s
	maxFrame = maxPart + 512 // bytes of a message; a Part's other fields are below 100
	maxHello = 1 << 10       // bytes of the first frame, before anybody is known
	prefix   = 4             // bytes of length before each frame
)

// ErrFrame is what errors wrap of a peer that breaks the rules of frames.
var ErrFrame = errors.New("bad frame")

// appendFrame adds a message with its length.
func appendFrame(b []byte, m *handoverv1.Message) ([]byte, error) {
	at := len(b)
	b, err := proto.MarshalOptions{}.MarshalAppend(append(b, 0, 0, 0, 0), m)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", m.GetAbout(), err)
	}
	size := len(b) - at - prefix
	if size > maxFrame {
		return nil, fmt.Errorf("%w: %T of %d bytes, at most %d", ErrFrame, m.GetAbout(), size, maxFrame)
	}
	binary.BigEndian.PutUint32(b[at:], uint32(size))
	return b, nil
}

// frames reads messages of at most limit bytes.
type frames struct {
	r     io.Reader
	limit int
	buf   []byte
}

// next waits for a message. io.EOF is the end between two of them.
func (f *frames) next() (*handoverv1.Message, error) {
	var head [prefix]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: the end within a length", ErrFrame)
		}
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > uint32(f.limit) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrFrame, size, f.limit)
	}
	if cap(f.buf) < int(size) {
		f.buf = make([]byte, size)
	}
	f.buf = f.buf[:size]
	if _, err := io.ReadFull(f.r, f.buf); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: the end within %d bytes", ErrFrame, size)
		}
		return nil, err
	}
	m := &handoverv1.Message{} // its bytes are copies
	if err := proto.Unmarshal(f.buf, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	return m, nil
}

// assembler makes messages of frames: it puts parts of states together, of one state at a time.
type assembler struct {
	id     handover.ID
	kernel int
	total  int
	data   []byte // grows with what has come; nil: no state is on its way
}

// take returns what a frame says: a State with its last part, Coming with the others, nil where it says nothing.
func (a *assembler) take(m *handoverv1.Message) (handover.Message, error) {
	switch about := m.GetAbout().(type) {
	case *handoverv1.Message_Alive:
		return nil, nil
	case *handoverv1.Message_Part:
		return a.part(about.Part)
	}
	return handover.DecodeMessage(m)
}

func (a *assembler) part(p *handoverv1.Part) (handover.Message, error) {
	id, err := handover.DecodeID(p.GetTransfer())
	if err != nil {
		return nil, err
	}
	if p.GetKernel() > MaxKernel || p.GetApplication() > MaxApplication {
		return nil, fmt.Errorf("%w: state of %d and %d bytes, at most %d and %d", ErrFrame, p.GetKernel(), p.GetApplication(), MaxKernel, MaxApplication)
	}
	kernel, total := int(p.GetKernel()), int(p.GetKernel()+p.GetApplication())
	switch size := len(p.GetData()); {
	case size == total: // whole
		return state(id, p.GetData(), kernel), nil
	case size == 0 || size > maxPart:
		return nil, fmt.Errorf("%w: part of %d bytes, of %d", ErrFrame, size, total)
	case a.data == nil:
		a.id, a.kernel, a.total = id, kernel, total
	case a.id != id || a.kernel != kernel || a.total != total:
		return nil, fmt.Errorf("%w: part of %v between those of %v", ErrFrame, id, a.id)
	}
	if len(a.data)+len(p.GetData()) > a.total {
		return nil, fmt.Errorf("%w: more than the %d bytes that %v was to have", ErrFrame, a.total, id)
	}
	if a.data = append(a.data, p.GetData()...); len(a.data) < a.total {
		return handover.Coming{ID: id}, nil
	}
	whole := a.data
	a.data = nil
	return state(id, whole, kernel), nil
}

func state(id handover.ID, data []byte, kernel int) handover.State {
	return handover.State{ID: id, Kernel: data[:kernel:kernel], Application: data[kernel:]}
}

// part is the piece of a state from a position on, and where the next one begins.
func part(s handover.State, from int) (m *handoverv1.Message, next int) {
	next = min(from+maxPart, len(s.Kernel)+len(s.Application))
	data := make([]byte, 0, next-from)
	if from < len(s.Kernel) {
		data = append(data, s.Kernel[from:min(next, len(s.Kernel))]...)
	}
	if next > len(s.Kernel) {
		data = append(data, s.Application[max(0, from-len(s.Kernel)):next-len(s.Kernel)]...)
	}
	return &handoverv1.Message{About: &handoverv1.Message_Part{Part: &handoverv1.Part{
		Transfer: handover.EncodeID(s.ID), Kernel: uint32(len(s.Kernel)), Application: uint32(len(s.Application)), Data: data,
	}}}, next
}
