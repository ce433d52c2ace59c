package labels

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// hopSet is next hops that FECs share: a table of 100,000 routes has few of them. Which peers they are is found once for all.
type hopSet struct {
	key   string
	hops  []NextHop // sorted, each once
	peers []*peer   // of each hop; nil: nobody's
	users int
}

type hopSets struct {
	byKey map[string]*hopSet
	key   []byte    // to look up without allocating
	hops  []NextHop // likewise
}

func compareHops(a, b NextHop) int {
	return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Index, b.Index), cmp.Compare(a.Interface, b.Interface))
}

// hopSet finds or makes the set, and counts a user of it; nil where there are no next hops.
func (l *Labels) hopSet(hops []NextHop) *hopSet {
	if len(hops) == 0 {
		return nil
	}
	s := &l.sets
	s.hops = s.hops[:0]
	for _, h := range hops {
		h.Address = h.Address.WithZone("")
		s.hops = append(s.hops, h)
	}
	slices.SortFunc(s.hops, compareHops)
	s.hops = slices.Compact(s.hops)
	s.key = s.key[:0]
	for _, h := range s.hops {
		a := h.Address.As16()
		s.key = append(append(s.key, a[:]...), byte(h.Address.BitLen()))
		s.key = binary.BigEndian.AppendUint64(s.key, uint64(h.Index))
		s.key = append(append(s.key, h.Interface...), 0)
	}
	set := s.byKey[string(s.key)]
	if set == nil {
		set = &hopSet{key: string(s.key), hops: slices.Clone(s.hops)}
		set.peers = make([]*peer, len(set.hops))
		l.resolve(set)
		s.byKey[set.key] = set
	}
	set.users++
	return set
}

func (s *hopSets) drop(set *hopSet) {
	if set == nil {
		return
	}
	if set.users--; set.users == 0 {
		delete(s.byKey, set.key)
	}
}

// resolve finds the peers of a set, and says whether one is another than before.
func (l *Labels) resolve(set *hopSet) bool {
	changed := false
	for i, h := range set.hops {
		p := l.peerOf(h)
		changed = changed || set.peers[i] != p
		set.peers[i] = p
	}
	return changed
}

// peerOf finds whose address a next hop is: by hellos from it on that link, else by Address messages. Where several claim it, who is
// on the link and whose session is up goes first.
func (l *Labels) peerOf(h NextHop) (best *peer) {
	rank := 0
	for _, p := range l.peers {
		if r := p.claim(h); r > rank {
			best, rank = p, r
		}
	}
	return best
}

// Neighbor is the peer that a neighbor on a link is, by one of its addresses there; false: it is none.
func (l *Labels) Neighbor(h NextHop) (wire.Identifier, bool) {
	h.Address = h.Address.WithZone("")
	if p := l.peerOf(h); p != nil {
		return p.id, true
	}
	return wire.Identifier{}, false
}

// resolveAll follows changes of whose addresses are whose; about says which addresses, nil: all.
func (l *Labels) resolveAll(about func(netip.Addr) bool) {
	var changed map[*hopSet]bool
	for _, set := range l.sets.byKey {
		if about != nil && !slices.ContainsFunc(set.hops, func(h NextHop) bool { return about(h.Address) }) {
			continue
		}
		if l.resolve(set) {
			if changed == nil {
				changed = map[*hopSet]bool{}
			}
			changed[set] = true
		}
	}
	if changed == nil {
		return
	}
	for _, f := range l.sorted() {
		if f.hops != nil && changed[f.hops] && f.kind == Transit {
			l.change(f)
			l.settle(f)
			l.settleRequests(f)
		}
	}
}
