package steer

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
)

const (
	lineSlots = 16
	// layoutVersion is another one where maps that a former version has pinned are to be written anew.
	layoutVersion = 2
)

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
		Users    usersAt
		ByPort   [4]byte
		Masks    [maxMasks]uint32
	}
)

// lines returns the slot table in cache lines.
func (p *Plan) lines() []line {
	out := make([]line, p.lineCount())
	for i, s := range p.slots {
		out[i/lineSlots].Slot[i%lineSlots] = s
	}
	return out
}

func (p *Plan) lineCount() int { return (len(p.slots) + lineSlots - 1) / lineSlots }

func (p *Plan) header(d digest, users usersAt) *header {
	h := &header{Digest: d, MasksLen: uint32(len(p.masks)), Users: users}
	for i, r := range p.runs {
		h.Runs[i] = mapRun{r.shift, r.mask}
	}
	copy(h.Masks[:], p.masks)
	if p.byPort.Is4() {
		h.ByPort = p.byPort.As4()
	}
	return h
}

func (h *header) byPort() netip.Addr {
	if h.ByPort == [4]byte{} {
		return netip.Addr{}
	}
	return netip.AddrFrom4(h.ByPort)
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
	put(layoutVersion, uint32(len(p.runs)), uint32(len(p.slots)), uint32(len(p.masks)), uint32(len(p.entries)), uint32(len(p.users)))
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
	for _, u := range p.users {
		put(uint32(u>>32), uint32(u))
	}
	if p.byPort.Is4() {
		put(toUint32(p.byPort))
	}
	h.Write(b)
	sum := h.Sum(nil)
	return digest{binary.BigEndian.Uint64(sum), binary.BigEndian.Uint64(sum[8:])}
}

func compareEntries(a, b entry) int {
	return cmp.Or(cmp.Compare(a.mask, b.mask), cmp.Compare(a.addr, b.addr))
}
