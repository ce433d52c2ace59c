package join

import (
	"crypto/ed25519"
	"fmt"
	"math"

	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/portion"
)

// ipHeaderBytes is an IPv4 header with the router alert option.
const ipHeaderBytes = 24

// Room is the size of the largest join that fits a report of its own in a packet of mtu bytes.
func Room(mtu int) int {
	return min(mtu-ipHeaderBytes-igmp.ReportBytes-igmp.RecordBytes-igmp.ExtensionBytes(0), MaxBytes)
}

func (j Join) size(signed bool) int {
	n := fixedBytes + portionBytes*j.portions()
	if signed {
		n += ed25519.SignatureSize
	}
	return n
}

// perPart is how many portions a part of maxBytes has room for; below 0: not even a part without any.
func perPart(maxBytes int) int {
	return (min(maxBytes, MaxBytes) - fixedBytes - ed25519.SignatureSize) / portionBytes
}

// MostPortions is how many portions a set can have that travels in packets of mtu bytes: what goes into 255 parts, and routers take.
func MostPortions(mtu int) int {
	return min(MaxPortions, max(0, math.MaxUint8*perPart(Room(mtu))))
}

// Split cuts the complete set j into as few parts as fit maxBytes each, signature included (see Room). Permit and deny lists
// are cut wherever a part is full: they hold for the set as a whole. Time and Random of the parts are left to Stamp.
func Split(j Join, maxBytes int) ([]Join, error) {
	j.Part, j.Parts = 1, 1
	room, total := perPart(maxBytes), j.portions()
	if room < 0 || room == 0 && total > 0 {
		return nil, fmt.Errorf("%w: %d bytes hold no portion", ErrTooLarge, maxBytes)
	}
	if total <= room {
		return []Join{j}, nil
	}
	n := (total + room - 1) / room
	if n > math.MaxUint8 {
		return nil, fmt.Errorf("%w: %d portions need %d parts of %d bytes, at most %d are possible: use fewer or coarser portions",
			ErrTooLarge, total, n, maxBytes, math.MaxUint8)
	}
	parts := make([]Join, n)
	for i := range parts {
		p := j
		p.Part, p.Parts = uint8(i+1), uint8(n)
		left := room
		p.Owner.Permit = take(&j.Owner.Permit, &left)
		p.Owner.Deny = take(&j.Owner.Deny, &left)
		p.Standby.Permit = take(&j.Standby.Permit, &left)
		p.Standby.Deny = take(&j.Standby.Deny, &left)
		parts[i] = p
	}
	return parts, nil
}

// take cuts up to room portions off the front of list.
func take(list *[]portion.Portion, room *int) []portion.Portion {
	n := min(len(*list), *room)
	if n == 0 {
		return nil
	}
	head := (*list)[:n:n]
	*list = (*list)[n:]
	*room -= n
	return head
}
