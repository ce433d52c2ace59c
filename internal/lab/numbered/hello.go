package numbered

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Hello is how a user begins a stream: what the server is to send. Both directions have the same number.
type Hello struct {
	Stream uint16
	Words  uint16        // of each write
	Pace   time.Duration // between two writes, in microseconds on the way; 0: one after the other
	Rate   uint32        // bytes a second that the kernel sends at most, of what is in its queue; 0: all it can
}

// HelloBytes is the size of a hello.
const HelloBytes = 16

var magic = [4]byte{'n', 'u', 'm', '1'}

// Append appends the hello as it is sent.
func (h Hello) Append(p []byte) []byte {
	p = append(p, magic[:]...)
	p = binary.BigEndian.AppendUint16(p, h.Stream)
	p = binary.BigEndian.AppendUint16(p, h.Words)
	p = binary.BigEndian.AppendUint32(p, uint32(h.Pace.Microseconds()))
	return binary.BigEndian.AppendUint32(p, h.Rate)
}

// ParseHello reads what Append wrote.
func ParseHello(p []byte) (Hello, error) {
	if len(p) != HelloBytes || [4]byte(p) != magic {
		return Hello{}, errors.New("no stream begins like that")
	}
	h := Hello{
		Stream: binary.BigEndian.Uint16(p[4:]), Words: binary.BigEndian.Uint16(p[6:]),
		Pace: time.Duration(binary.BigEndian.Uint32(p[8:])) * time.Microsecond, Rate: binary.BigEndian.Uint32(p[12:]),
	}
	if h.Words == 0 || h.Pace == 0 && h.Rate == 0 {
		return Hello{}, fmt.Errorf("stream %d: %d words at a time, without a pace or a rate", h.Stream, h.Words)
	}
	return h, nil
}
