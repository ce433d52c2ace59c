package main

import (
	"encoding/binary"
	"math"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
)

// Users are in classes that are active together: those of a time zone who were there at midnight, those who come in the course of the
// day, and those of the network that surges.
const (
	zones   = 4
	surging = 2 * zones
	classes = 2*zones + 1

	maxSharers = 4    // users of one address, but for CGNAT
	cgnat      = 0.15 // part of the users that are behind an address with hundreds or thousands of others
	comers     = 0.1  // part of the users that come in the course of the day
)

// sum is something of the users of a portion, by class.
type sum [classes]float32

func (s *sum) add(class uint8, v float32) { s[class] += v }

// at is how much of it there is while so much of each class is active.
func (s *sum) at(active *[classes]float64) (n float64) {
	for k, v := range s {
		n += float64(v) * active[k]
	}
	return n
}

// user is one of millions.
type user struct {
	addr  uint32
	rate  float32 // of an active one; 1 on average
	class uint8
}

// network is a block of addresses that belongs to one provider.
type network struct {
	prefix netip.Prefix
	users  int
}

// host is an address with many users.
type host struct {
	addr    netip.Addr
	slot    int
	users   sum
	traffic sum
}

// world is the users: where they are does not change, who of them is active does.
type world struct {
	slots    alloc.Slots
	users    []user // by slot, then address
	first    []int  // of each slot in users, and their number at the end
	networks []network
	hosts    []host
	count    []sum // users, by slot
	traffic  []sum
	square   []float64 // sum of squares of the rates, by slot: how much chance there is in its traffic
}

// newWorld makes users: networks have sizes by Zipf's law, and each as many addresses as hold its users; some share one address with up to
// crowd others.
func newWorld(r *rand.Rand, slots alloc.Slots, users, crowd int) *world {
	w := &world{slots: slots}
	w.makeNetworks(users)
	all := make([]user, 0, users)
	for i, n := range w.networks {
		for range n.users {
			all = append(all, w.newUser(r, i, n.prefix))
		}
	}
	w.gather(r, all, crowd)
	w.sort(all)
	return w
}

func (w *world) makeNetworks(users int) {
	count := max(20, users/200)
	whole := 0.0
	for i := range count {
		whole += 1 / float64(i+1)
	}
	next := uint32(1 << 24)
	left := users
	for i := range count {
		n := min(left, int(math.Ceil(float64(users)/whole/float64(i+1))))
		if n == 0 {
			break
		}
		left -= n
		free := max(8, bits.Len(uint((n-1)/maxSharers))) // at least a /24
		next = (next + 1<<free - 1) &^ (1<<free - 1)
		w.networks = append(w.networks, network{netip.PrefixFrom(addr4(next), 32-free), n})
		next += 1 << free
	}
}

func (w *world) newUser(r *rand.Rand, network int, in netip.Prefix) user {
	class := uint8(network*7+network/zones) % zones
	switch {
	case network == surgingNetwork:
		class = surging
	case r.Float64() < comers:
		class += zones
	}
	rate := float32(math.Exp(r.NormFloat64() - 0.5))
	return user{addr: word(in.Addr()) | r.Uint32()&(1<<(32-in.Bits())-1), rate: rate, class: class}
}

// gather puts users behind addresses with many others: a power law up to crowd.
func (w *world) gather(r *rand.Rand, all []user, crowd int) {
	const least, power = 0.02, 1.1
	for left := int(cgnat * float64(len(all))); left > 0; {
		size := min(left, int(float64(crowd)*min(1, least/math.Pow(1-r.Float64(), 1/power))))
		at := r.IntN(len(all))
		if size < 2 {
			return
		}
		end := min(at+size, len(all)) // neighbours in all are of one network, or of the next
		for i := at; i < end; i++ {
			all[i].addr = all[at].addr
		}
		left -= size
	}
}

func (w *world) sort(all []user) {
	n := w.slots.Count()
	w.first = make([]int, n+1)
	for _, u := range all {
		w.first[w.slotOf(u.addr)+1]++
	}
	for i := range n {
		w.first[i+1] += w.first[i]
	}
	w.users = make([]user, len(all))
	next := slices.Clone(w.first)
	for _, u := range all {
		s := w.slotOf(u.addr)
		w.users[next[s]] = u
		next[s]++
	}
	w.count, w.traffic, w.square = make([]sum, n), make([]sum, n), make([]float64, n)
	for s := range n {
		here := w.users[w.first[s]:w.first[s+1]]
		slices.SortFunc(here, func(a, b user) int { return int(int64(a.addr) - int64(b.addr)) })
		for _, u := range here {
			w.count[s].add(u.class, 1)
			w.traffic[s].add(u.class, u.rate)
			w.square[s] += float64(u.rate) * float64(u.rate)
		}
	}
}

// findHosts notes the addresses with at least so many users.
func (w *world) findHosts(least int) {
	for i := 0; i < len(w.users); {
		end := i + 1
		for end < len(w.users) && w.users[end].addr == w.users[i].addr {
			end++
		}
		if end-i >= least {
			h := host{addr: addr4(w.users[i].addr), slot: w.slotOf(w.users[i].addr)}
			for _, u := range w.users[i:end] {
				h.users.add(u.class, 1)
				h.traffic.add(u.class, u.rate)
			}
			w.hosts = append(w.hosts, h)
		}
		i = end
	}
}

// piece is what a fixed portion takes of a slot.
type piece struct {
	slot           int
	users, traffic sum
}

// pieces cuts a portion out of the slots.
func (w *world) pieces(p portion.Portion) (out []piece) {
	addr, mask := word(p.Addr), word(p.Mask)
	for slot := range w.slots.Count() {
		if !w.slots.Portion(slot).Overlaps(p) {
			continue
		}
		c := piece{slot: slot}
		for _, u := range w.users[w.first[slot]:w.first[slot+1]] {
			if u.addr&mask == addr {
				c.users.add(u.class, 1)
				c.traffic.add(u.class, u.rate)
			}
		}
		out = append(out, c)
	}
	return out
}

func (w *world) slotOf(addr uint32) int {
	if w.slots.By == alloc.Prefix {
		return int(addr >> (32 - w.slots.Bits))
	}
	return int(addr & (1<<w.slots.Bits - 1))
}

func word(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func addr4(v uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return netip.AddrFrom4(b)
}

func (s *sum) plus(o sum) {
	for k, v := range o {
		s[k] += v
	}
}

// all is how much there is when everybody is active.
func (s *sum) all() (n float64) {
	for _, v := range s {
		n += float64(v)
	}
	return n
}
