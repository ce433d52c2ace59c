package kernel

import (
	"errors"
	"os"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/manycast/manycast/internal/bpfnet"
)

// ring gives out what the programs put into a ring buffer.
type ring[T any] struct {
	reader *bpfnet.Ring
	out    chan T
	lost   atomic.Uint64
}

// readRing reads it; waiting is how many may wait for who reads out.
func readRing[T any](m *ebpf.Map, waiting int, parse func([]byte) (T, bool)) (*ring[T], error) {
	reader, err := bpfnet.OpenRing(m)
	if err != nil {
		return nil, err
	}
	r := &ring[T]{reader: reader, out: make(chan T, waiting)}
	go r.read(parse)
	return r, nil
}

// read ends when the ring is closed, and the channel with it.
func (r *ring[T]) read(parse func([]byte) (T, bool)) {
	defer close(r.out)
	var record ringbuf.Record
	for {
		err := r.reader.ReadInto(&record)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			r.lost.Add(1)
			continue
		}
		if v, ok := parse(record.RawSample); ok {
			select {
			case r.out <- v:
				continue
			default:
			}
		}
		r.lost.Add(1)
	}
}

func (r *ring[T]) close() error { return r.reader.Close() }
