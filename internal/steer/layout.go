package steer

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const lineSlots = 16

// The structures of steer.h.
type (
	mapKey struct{ Generation, Mask, Addr uint32 }
	line   struct{ Slot [lineSlots]uint32 }
	digest [2]uint64
	mapRun struct{ Shift, Mask uint32 }
	header struct {
		Digest   digest
		Runs     [maxRuns]mapRun
		MasksLen uint32
		Pad      uint32
		Masks    [maxMasks]uint32
	}
)

// lines returns the slot table in cache lines.
func (p *Plan) lines() []line {
	out := make([]line, (len(p.slots)+lineSlots-1)/lineSlots)
	for i, s := range p.slots {
		out[i/lineSlots].Slot[i%lineSlots] = s
	}
	return out
}

func (p *Plan) header(d digest) *header {
	h := &header{Digest: d, MasksLen: uint32(len(p.masks))}
	for i, r := range p.runs {
		h.Runs[i] = mapRun{r.shift, r.mask}
	}
	copy(h.Masks[:], p.masks)
	return h
}

// digest tells plans apart: equal plans have equal digests.
func (p *Plan) digest() digest {
	h := sha256.New()
	b := make([]byte, 0, 4096)
	put := func(vs ...uint32) {
		for _, v := range vs {
			b = binary.BigEndian.AppendUint32(b, v)
		}
		if len(b) > 4000 {
			h.Write(b)
			b = b[:0]
		}
	}
	put(uint32(len(p.runs)), uint32(len(p.slots)), uint32(len(p.masks)), uint32(len(p.entries)))
	for _, r := range p.runs {
		put(r.shift, r.mask)
	}
	for _, s := range p.slots {
		put(s)
	}
	put(p.masks...)
	for _, e := range slices.SortedFunc(maps.Keys(p.entries), compareEntries) {
		put(e.mask, e.addr, uint32(p.entries[e]))
	}
	h.Write(b)
	sum := h.Sum(nil)
	return digest{binary.BigEndian.Uint64(sum), binary.BigEndian.Uint64(sum[8:])}
}

func compareEntries(a, b entry) int {
	return cmp.Or(cmp.Compare(a.mask, b.mask), cmp.Compare(a.addr, b.addr))
}

// newTable makes a slot table that fits into steer_slots.
func newTable(lines int) (*ebpf.Map, error) {
	return ebpf.NewMap(&ebpf.MapSpec{
		Name: "steer_table", Type: ebpf.Array, KeySize: 4, ValueSize: 4 * lineSlots,
		MaxEntries: uint32(lines), Flags: unix.BPF_F_INNER_MAP,
	})
}

func fillTable(m *ebpf.Map, lines []line) error {
	at := make([]uint32, len(lines))
	for i := range at {
		at[i] = uint32(i)
	}
	_, err := m.BatchUpdate(at, lines, nil)
	return err
}
