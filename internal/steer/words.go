package steer

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// words are the 8-byte elements of an array map in memory. An update by system call copies bytes, in whatever steps; a
// program must see a generation's number change in one.
type words struct {
	bytes []byte
	count uint32
}

func mapWords(m *ebpf.Map) (*words, error) {
	if m.ValueSize() != 8 || m.Flags()&unix.BPF_F_MMAPABLE == 0 {
		return nil, fmt.Errorf("has %d-byte elements and flags %#x, not those of steer.h; remove the pinned maps", m.ValueSize(), m.Flags())
	}
	page := unix.Getpagesize()
	size := (8*int(m.MaxEntries()) + page - 1) / page * page
	b, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	w := &words{b, m.MaxEntries()}
	runtime.AddCleanup(w, func(b []byte) { unix.Munmap(b) }, b) //nolint:errcheck // nothing to be done about it
	return w, nil
}

func (w *words) at(i uint32) *uint64 {
	if i >= w.count {
		panic(fmt.Sprintf("element %d of %d", i, w.count))
	}
	return (*uint64)(unsafe.Pointer(&w.bytes[8*i]))
}

func (w *words) load(i uint32) uint32 {
	defer runtime.KeepAlive(w) // and so the mapping
	return uint32(atomic.LoadUint64(w.at(i)))
}

func (w *words) store(i, v uint32) {
	defer runtime.KeepAlive(w)
	atomic.StoreUint64(w.at(i), uint64(v))
}
