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

// Split cuts the complete set j into as few parts as fit maxBytes each, signature included (see Room). Permit and deny lists
// are cut wherever a part is full: they hold for the set as a whole. Time and Random of the parts are left to Stamp.
func Split(j Join, maxBytes int) ([]Join, error) {
	j.Part, j.Parts = 1, 1
	perPart := (min(maxBytes, MaxBytes) - fixedBytes - ed25519.SignatureSize) / portionBytes
	total := j.portions()
	if perPart < 0 || perPart == 0 && total > 0 {
		return nil, fmt.Errorf("%w: %d bytes hold no portion", ErrTooLarge, maxBytes)
	}
	if total <= perPart {
		return []Join{j}, nil
	}
	n := (total + perPart - 1) / perPart
	if n > math.MaxUint8 {
		return nil, fmt.Errorf("%w: %d portions need %d parts of %d bytes, at most %d are possible: use fewer or coarser portions",
			ErrTooLarge, total, n, maxBytes, math.MaxUint8)
	}
	parts := make([]Join, n)
	for i := range parts {
		p := j
		p.Part, p.Parts = uint8(i+1), uint8(n)
		room := perPart
		p.Owner.Permit = take(&j.Owner.Permit, &room)
		p.Owner.Deny = take(&j.Owner.Deny, &room)
		p.Standby.Permit = take(&j.Standby.Permit, &room)
		p.Standby.Deny = take(&j.Standby.Deny, &room)
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
