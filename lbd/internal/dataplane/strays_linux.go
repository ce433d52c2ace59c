package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/manycast/manycast/internal/bpfnet"
)

const (
	straysWaiting = 256  // that nobody has read yet
	strayMax      = 2048 // bytes of a frame, STRAY_MAX of bpf/forward.h
	strayHeader   = 48   // struct stray before its frame
)

// strayReader gives out what the programs put into their ring.
type strayReader struct {
	ring *bpfnet.Ring
	out  chan Stray
	lost atomic.Uint64
}

func readStrays(m *ebpf.Map) (*strayReader, error) {
	ring, err := bpfnet.OpenRing(m)
	if err != nil {
		return nil, fmt.Errorf("read strays: %w", err)
	}
	r := &strayReader{ring: ring, out: make(chan Stray, straysWaiting)}
	go r.read()
	return r, nil
}

// read ends when the ring is closed, and the channel with it.
func (r *strayReader) read() {
	defer close(r.out)
	var record ringbuf.Record
	for {
		err := r.ring.ReadInto(&record)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			r.lost.Add(1)
			continue
		}
		if s, ok := parseStray(record.RawSample); ok {
			select {
			case r.out <- s:
				continue
			default:
			}
		}
		r.lost.Add(1)
	}
}

// parseStray reads a struct stray.
func parseStray(b []byte) (s Stray, ok bool) {
	if len(b) < strayHeader {
		return s, false
	}
	k := flowMapKey{
		User: [16]byte(b[0:16]), VIP: [16]byte(b[16:32]), UserPort: [2]byte(b[32:34]), VIPPort: [2]byte(b[34:36]),
		Proto: binary.NativeEndian.Uint32(b[36:]),
	}
	n := binary.NativeEndian.Uint64(b[40:])
	if n > strayMax || n > uint64(len(b)-strayHeader) {
		return s, false
	}
	s.Flow = k.flow()
	if n > 0 {
		s.Frame = append([]byte(nil), b[strayHeader:strayHeader+int(n)]...)
	}
	return s, true
}

func (r *strayReader) close() error { return r.ring.Close() }

// Strays ends with the plane.
func (f *forwarder) Strays() <-chan Stray { return f.strays.out }
