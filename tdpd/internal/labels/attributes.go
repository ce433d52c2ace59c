package labels

import (
	"cmp"
	"slices"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// attributes are what loop detection has mappings carry (RFC 5036 section 2.8). They are never changed, so FECs may share them.
type attributes struct {
	path    []wire.LSRID
	hops    uint8 // wire.HopCountUnknown: that
	counted bool  // there is a hop count at all
}

func (a *attributes) equal(b *attributes) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.hops == b.hops && a.counted == b.counted && slices.Equal(a.path, b.path)
}

// attributesIn takes them from a message; nil: there are none.
func attributesIn(hops *uint8, path []wire.LSRID) *attributes {
	if hops == nil && path == nil {
		return nil
	}
	a := &attributes{path: path, counted: hops != nil}
	if hops != nil {
		a.hops = *hops
	}
	return a
}

// looped says whether a message has come round: it passed here, or is longer than any way (RFC 5036 sections 3.4.4.1 and 3.4.5.1).
func (l *Labels) looped(a *attributes) bool {
	if a == nil || !l.cfg.LoopDetection {
		return false
	}
	return a.hops > l.cfg.HopLimit || len(a.path) > int(l.cfg.PathLimit) || slices.Contains(a.path, l.cfg.LSR)
}

// attributesOf is what this router's mappings of a FEC carry. Without loop detection that is a hop count alone, where the next hop
// gave one. Several next hops count as the longest of their ways, and by all of them. What is on any of them may be more than a path
// vector may have though none of them is too long; then the longest stands for all, and the hop count finds loops by the others.
func (l *Labels) attributesOf(f *fec) *attributes {
	if f.local == NoLabel {
		return nil
	}
	if f.kind != Transit {
		if l.cfg.LoopDetection {
			return &attributes{hops: 1, counted: true}
		}
		return nil
	}
	a := attributes{counted: l.cfg.LoopDetection}
	known, unknown := false, false
	var longest []wire.LSRID
	for b := range f.downstream {
		if b.attrs == nil {
			unknown = true
			continue
		}
		known = true
		a.merge(b.attrs)
		longest = longer(longest, b.attrs.path)
		unknown = unknown || !b.attrs.counted || b.attrs.hops == wire.HopCountUnknown
	}
	if !known && !l.cfg.LoopDetection {
		return nil
	}
	if unknown || !known {
		a.hops = wire.HopCountUnknown
	} else if a.hops < 255 {
		a.hops++
	}
	switch {
	case !l.cfg.LoopDetection:
		a.path = nil
	case len(a.path) > int(l.cfg.PathLimit):
		a.path = append(slices.Clone(longest), l.cfg.LSR)
	default:
		a.path = append(a.path, l.cfg.LSR)
	}
	return &a
}

// longer is the longer path; of two as long always the same.
func longer(a, b []wire.LSRID) []wire.LSRID {
	if c := cmp.Compare(len(a), len(b)); c > 0 || c == 0 && slices.CompareFunc(a, b, compareLSR) <= 0 {
		return a
	}
	return b
}

func compareLSR(a, b wire.LSRID) int { return slices.Compare(a[:], b[:]) }

func (a *attributes) merge(b *attributes) {
	a.hops, a.counted = max(a.hops, b.hops), a.counted || b.counted
	for _, id := range b.path {
		if !slices.Contains(a.path, id) {
			a.path = append(a.path, id)
		}
	}
}
