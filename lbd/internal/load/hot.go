package load

import (
	"cmp"
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

const (
	memory   = 30 * time.Second // what was sent so long ago counts 1/e
	maxHot   = 16               // portions
	maxUsers = 8192             // remembered; the light ones go first
	evidence = 1024             // packets within memory, 64 of them sampled: with fewer nothing is said

	hotSlot = 0.05 // share of the packets from which a slot is hot
	hotPart = 0.025
	// same is the part of a portion's share from which a part of it stands for it: the whole adds few packets and many users.
	same = 15.0 / 16
)

// senders remember who sent how much of a service's packets lately.
type senders struct {
	slots   alloc.Slots
	total   float64            // packets of all users
	perSlot []float64          // of those that were sampled
	users   map[uint32]float64 // the heavier ones
}

// take adds what users sent within dt. total is of all of them: of many the light ones are not in the sample. Those that are split are
// spread over all slots, and make none hot.
func (s *senders) take(dt time.Duration, slots alloc.Slots, split steer.Split, sample []dataplane.Sender, total float64) {
	if slots != s.slots || s.users == nil {
		*s = senders{slots: slots, perSlot: make([]float64, slots.Count()), users: map[uint32]float64{}}
	}
	fade := math.Exp(-dt.Seconds() / memory.Seconds())
	for i := range s.perSlot {
		s.perSlot[i] *= fade
	}
	for user, packets := range s.users {
		if packets *= fade; packets < 1 {
			delete(s.users, user)
		} else {
			s.users[user] = packets
		}
	}
	sampled := 0.0
	for _, sender := range sample {
		if !sender.User.Is4() {
			continue
		}
		packets := float64(sender.Packets)
		sampled += packets
		if _, is := split.Of(sender.User); is {
			continue
		}
		s.perSlot[slots.Index(sender.User)] += packets
		s.users[number(sender.User)] += packets
	}
	s.total = s.total*fade + max(total, sampled)
	s.forget()
}

// forget keeps the heavier half of too many users.
func (s *senders) forget() {
	if len(s.users) <= maxUsers {
		return
	}
	all := make([]float64, 0, len(s.users))
	for _, packets := range s.users {
		all = append(all, packets)
	}
	slices.Sort(all)
	for user, packets := range s.users {
		if packets <= all[len(all)-maxUsers/2] {
			delete(s.users, user)
		}
	}
}

// hot are the slots with a twentieth of the packets or more, and below each the way down to where its packets come from: of the
// halves by one more bit of the mask the heavier one, again and again, to the single host or a fortieth of all packets. A
// half whose own heavier half has nearly all of it is left out: that tells the same by fewer users. The heaviest come first,
// wholes before their parts.
func (s *senders) hot() []alloc.Hot {
	if s.total < evidence {
		return nil
	}
	in := make(map[int][]uint32)
	for user := range s.users {
		if slot := s.slots.Index(address(user)); s.share(s.perSlot[slot]) >= hotSlot {
			in[slot] = append(in[slot], user)
		}
	}
	var out []alloc.Hot
	for slot, packets := range s.perSlot {
		if share := s.share(packets); share >= hotSlot {
			out = append(out, s.descend(alloc.Hot{Portion: s.slots.Portion(slot), Share: share}, in[slot])...)
		}
	}
	slices.SortStableFunc(out, func(a, b alloc.Hot) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Portion.MaskBits(), b.Portion.MaskBits()), a.Portion.Compare(b.Portion))
	})
	return out[:min(len(out), maxHot)]
}

func (s *senders) share(packets float64) float64 { return min(packets/s.total, 1) }

// descend returns h and its parts, of which users are the heavier senders.
func (s *senders) descend(h alloc.Hot, users []uint32) []alloc.Hot {
	out := []alloc.Hot{h}
	slot := h.Portion
	for bits := s.slots.Bits; bits < 32; bits++ {
		bit := uint32(1) << bits // the next one of a suffix
		if s.slots.By == alloc.Prefix {
			bit = 1 << (31 - bits)
		}
		half, packets, value := s.heavier(users, bit)
		part := alloc.Hot{Portion: narrower(h.Portion, bit, value), Share: s.share(packets)}
		if part.Share < same*h.Share && h.Portion != slot {
			out = append(out, h)
		}
		if part.Share < hotPart {
			return out
		}
		h, users = part, half
	}
	return append(out, h) // a host
}

// heavier returns the users in the heavier half, by a bit, and the value of it there.
func (s *senders) heavier(users []uint32, bit uint32) (half []uint32, packets float64, value uint32) {
	var halves [2][]uint32
	var sums [2]float64
	for _, user := range users {
		i := 0
		if user&bit != 0 {
			i = 1
		}
		halves[i], sums[i] = append(halves[i], user), sums[i]+s.users[user]
	}
	if sums[1] > sums[0] {
		return halves[1], sums[1], bit
	}
	return halves[0], sums[0], 0
}

// narrower is p where one more bit is value.
func narrower(p portion.Portion, bit, value uint32) portion.Portion {
	return portion.Portion{Addr: address(number(p.Addr) | value), Mask: address(number(p.Mask) | bit)}
}

func number(a netip.Addr) uint32 {
	b := a.Unmap().As4()
	return binary.BigEndian.Uint32(b[:])
}

func address(v uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return netip.AddrFrom4(b)
}
