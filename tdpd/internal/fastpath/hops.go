package fastpath

import (
	"fmt"
	"time"
)

// grace is longer than a program runs, and is held up in between.
const grace = 100 * time.Millisecond

// hopTable gives runs of hops places in fast_hops. Paths with the same hops share a run. Not safe for concurrent use.
type hopTable struct {
	put   func(at uint32, hops []fastpathFastHop) error
	size  uint32
	next  uint32           // first place that was never used
	runs  map[string]*run  // by their hops
	free  map[int][]uint32 // by length: places that no program looks at any more
	old   map[int][]uint32 // the same, but one that ran at turned may yet
	freed map[int][]uint32 // and these since then
	// turned is when freed began.
	turned time.Time
}

type run struct {
	first  uint32
	length int
	uses   int
}

func newHopTable(size uint32, put func(at uint32, hops []fastpathFastHop) error) *hopTable {
	return &hopTable{put: put, size: size, runs: map[string]*run{}, free: map[int][]uint32{}, old: map[int][]uint32{}, freed: map[int][]uint32{}}
}

// take returns where the hops are, and writes them if they are not there. Each take is for one give.
func (t *hopTable) take(hops []fastpathFastHop) (fastpathFastPath, error) {
	key := keyOf(hops)
	r := t.runs[key]
	if r == nil {
		first, err := t.place(len(hops))
		if err == nil {
			err = t.put(first, hops)
		}
		if err != nil {
			return fastpathFastPath{}, err
		}
		r = &run{first: first, length: len(hops)}
		t.runs[key] = r
	}
	r.uses++
	return fastpathFastPath{First: r.first, Count: uint32(r.length)}, nil
}

// adopt says that a path of a process before has hops at a place. Where another place has the same, each keeps its own.
func (t *hopTable) adopt(first uint32, hops []fastpathFastHop) {
	if len(hops) == 0 {
		return
	}
	t.next = max(t.next, first+uint32(len(hops)))
	key := keyOf(hops)
	if r := t.runs[key]; r == nil {
		t.runs[key] = &run{first: first, length: len(hops), uses: 1}
	} else {
		r.uses++
	}
}

// give says that no path of the program has the hops any more. Their place is used again when programs that run now have ended.
func (t *hopTable) give(hops []fastpathFastHop) {
	key := keyOf(hops)
	r := t.runs[key]
	if r.uses--; r.uses > 0 {
		return
	}
	delete(t.runs, key)
	t.freed[r.length] = append(t.freed[r.length], r.first)
}

// settle frees the places of hops that were given long enough ago.
func (t *hopTable) settle(now time.Time) {
	if now.Sub(t.turned) < grace {
		return
	}
	for n, places := range t.old {
		t.free[n] = append(t.free[n], places...)
	}
	t.old, t.freed, t.turned = t.freed, map[int][]uint32{}, now
}

func (t *hopTable) place(n int) (uint32, error) {
	if places := t.free[n]; len(places) > 0 {
		t.free[n] = places[:len(places)-1]
		return places[len(places)-1], nil
	}
	if uint64(t.next)+uint64(n) > uint64(t.size) {
		return 0, fmt.Errorf("%w: %d hops", ErrFull, t.size)
	}
	at := t.next
	t.next += uint32(n)
	return at, nil
}

// keyOf is the same for the same hops.
func keyOf(hops []fastpathFastHop) string {
	b := make([]byte, 0, 32*len(hops))
	for _, h := range hops {
		b = fmt.Appendf(b, "%d %d %d %d %x %d %x %x;", h.How, h.Ifindex, h.Entry, h.Mtu, h.Macs, h.Labelled, h.Via.In6U.U6Addr8, h.Far.In6U.U6Addr8)
	}
	return string(b)
}
