package relay

import "sync"

const (
	smallBuffer = 2 << 10  // bytes, of each direction of a connection
	largeBuffer = 64 << 10 // bytes, while much passes
)

// buffers are the large ones that nobody uses.
type buffers struct{ pool sync.Pool }

func newBuffers() *buffers {
	return &buffers{sync.Pool{New: func() any { return new([largeBuffer]byte) }}}
}

// buffer is one direction's: small while that is enough, so that idle connections cost little.
type buffer struct {
	of    *buffers
	small [smallBuffer]byte
	large *[largeBuffer]byte
}

// room is where to read to.
func (b *buffer) room() []byte {
	if b.large != nil {
		return b.large[:]
	}
	return b.small[:]
}

// passed hears how much was read, after it has been passed on.
func (b *buffer) passed(n int) {
	switch {
	case n == smallBuffer && b.large == nil:
		b.large = b.of.pool.Get().(*[largeBuffer]byte)
	case n < smallBuffer:
		b.free()
	}
}

func (b *buffer) free() {
	if b.large != nil {
		b.of.pool.Put(b.large)
		b.large = nil
	}
}
