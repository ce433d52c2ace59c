// Package wire is the control channel's frames (docs/wire-formats.md): pure, without sockets, clocks or keys on disk.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/manycast/manycast/internal/control/identity"
)

// Type is what a frame carries.
type Type uint8

// Types of frames.
const (
	Heartbeat Type = 1
	Part      Type = 2 // of a message
)

// Sizes, in bytes.
const (
	headerSize = 32
	partHeader = 4 // part, parts
	macSize    = 16
	// Overhead is what a part's frame has beside the part.
	Overhead = headerSize + partHeader + macSize
	// MinFrame and MaxFrame bound what frame_max may say: a report has to fit, and a UDP datagram.
	MinFrame = 512
	MaxFrame = 9000
)

const version = 1

// What Parse refuses.
var (
	ErrMalformed = errors.New("malformed frame")
	ErrVersion   = errors.New("frame of another version")
	ErrType      = errors.New("frame of an unknown type")
)

// Frame is one UDP payload. Sequence is the heartbeat's index in the sender's chains, or the number of the message that a part
// belongs to; each counts from 1 within a boot.
type Frame struct {
	Type     Type
	KeyID    uint32
	Sender   identity.ID
	Boot     uint64
	Sequence uint64
	Element  Element // of a heartbeat
	Part     uint16  // from 0
	Parts    uint16
	Bytes    []byte // of the part
}

// Seal appends the encoded frame, authenticated with key, whose identifier it carries.
func (f Frame) Seal(dst []byte, key *Key) []byte {
	begin := len(dst)
	dst = append(dst, 'M', 'C', version, byte(f.Type))
	dst = binary.BigEndian.AppendUint32(dst, key.ID)
	dst = append(dst, f.Sender[:]...)
	dst = binary.BigEndian.AppendUint64(dst, f.Boot)
	dst = binary.BigEndian.AppendUint64(dst, f.Sequence)
	if f.Type == Heartbeat {
		dst = append(dst, f.Element[:]...)
	} else {
		dst = binary.BigEndian.AppendUint16(dst, f.Part)
		dst = binary.BigEndian.AppendUint16(dst, f.Parts)
		dst = append(dst, f.Bytes...)
	}
	return key.sum(dst, dst[begin:])
}

// Parse decodes a frame without asking who made it: Key.Verify does. Bytes is a part of raw.
func Parse(raw []byte) (Frame, error) {
	if len(raw) < headerSize+macSize || raw[0] != 'M' || raw[1] != 'C' {
		return Frame{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(raw))
	}
	if raw[2] != version {
		return Frame{}, fmt.Errorf("%w: %d, this one speaks %d", ErrVersion, raw[2], version)
	}
	f := Frame{
		Type:     Type(raw[3]),
		KeyID:    binary.BigEndian.Uint32(raw[4:]),
		Sender:   identity.ID(raw[8:16]),
		Boot:     binary.BigEndian.Uint64(raw[16:]),
		Sequence: binary.BigEndian.Uint64(raw[24:]),
	}
	body := raw[headerSize : len(raw)-macSize]
	switch f.Type {
	case Heartbeat:
		if len(body) != len(f.Element) {
			return Frame{}, fmt.Errorf("%w: heartbeat of %d bytes", ErrMalformed, len(body))
		}
		f.Element = Element(body)
	case Part:
		if len(body) <= partHeader {
			return Frame{}, fmt.Errorf("%w: part of %d bytes", ErrMalformed, len(body))
		}
		f.Part, f.Parts, f.Bytes = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:]), body[partHeader:]
		if f.Part >= f.Parts || f.Parts > MaxParts {
			return Frame{}, fmt.Errorf("%w: part %d of %d", ErrMalformed, f.Part, f.Parts)
		}
	default:
		return Frame{}, fmt.Errorf("%w: %d", ErrType, f.Type)
	}
	if f.Sequence == 0 {
		return Frame{}, fmt.Errorf("%w: sequence 0", ErrMalformed)
	}
	return f, nil
}
